"""``psync put`` and ``psync results``: tasks from a shell script, worked on in Python, and what they came to."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import Executor, WorkQueue
from psync.cli.main import main
from psync.work import Worker
from tests.cli.shell import ENVIRON, psync

Shell = pytest.CaptureFixture[str]


def typed(capsys: Shell, *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(each) for each in arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


@pytest.fixture
def queue(root: Path) -> Iterator[WorkQueue]:
    queue = WorkQueue(root, "jobs")
    yield queue
    queue.engine.close()


def work_off(queue: WorkQueue) -> list[Any]:
    """Answer every task with its value twice; what the values were, in order."""
    seen = []
    for task in queue:
        seen.append(task.value)
        task.done(task.value * 2)
    return seen


# -- put -------------------------------------------------------------------------------------------


def test_values_are_tasks_in_their_order_and_their_ids_are_printed(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    code, out, err = typed(capsys, "put", root, "jobs", "a", "b c", "")
    assert (code, err) == (0, "")
    ids = out.splitlines()
    assert len(set(ids)) == 3
    assert work_off(queue) == ["a", "b c", ""]
    assert [queue.results.get(id) for id in ids] == ["aa", "b cb c", ""]


def test_lines_are_tasks(root: Path, queue: WorkQueue) -> None:
    ran = psync("put", root, "jobs", typed="one\n two \n\nlast without an end")
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 4)
    assert work_off(queue) == ["one", " two ", "", "last without an end"]
    assert psync("put", root, "jobs", typed="") == (0, "", "")
    assert queue.empty()


def test_json_values(root: Path, queue: WorkQueue) -> None:
    assert psync("put", "--json", root, "jobs", typed='[1]\n\n"x"\n').code == 0
    assert psync("put", "--json", root, "jobs", '{"a": null}').code == 0
    ran = psync("put", "--json", root, "jobs", typed="[1]\n[2\n")
    assert (ran.code, ran.out) == (2, "")
    assert "this is not JSON: '[2'" in ran.err
    assert [task.value for task in queue.get_many(9)] == [[1], "x", {"a": None}], "all are put in, or none"


def test_priority_delay_and_id(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    assert typed(capsys, "put", root, "jobs", "later", "--delay", "0.4")[0] == 0
    assert typed(capsys, "put", root, "jobs", "usual")[0] == 0
    assert typed(capsys, "put", root, "jobs", "urgent", "--priority", "5")[0] == 0
    assert typed(capsys, "put", root, "jobs", "at last", "--priority", "-5")[0] == 0
    for _ in range(2):
        assert typed(capsys, "put", root, "jobs", "once", "--id", "name") == (0, "name\n", "")
    seen = work_off(queue)
    assert [each for each in seen if each != "later"] == ["urgent", "usual", "once", "at last"]
    assert "later" in seen
    assert queue.results.get("name") == "onceonce"


def test_a_queue_that_is_closed_takes_nothing(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    queue.close()
    code, out, err = typed(capsys, "put", root, "jobs", "a")
    assert (code, out) == (1, "")
    assert err.startswith("psync put: the queue 'jobs' was closed")


# -- results ---------------------------------------------------------------------------------------


def test_results_of_ids_come_in_their_order(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    ids = queue.put_many([1, "x", [2]])
    work_off(queue)
    assert typed(capsys, "results", root, "jobs", *reversed(ids)) == (0, "[2, 2]\nxx\n2\n", "")
    assert typed(capsys, "results", root, "jobs", ids[1]) == (0, "xx\n", "")
    lines = typed(capsys, "results", "--json", root, "jobs", *ids)[1].splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": id, "result": result} for id, result in zip(ids, [2, "xx", [2, 2]], strict=True)
    ]


def test_results_without_ids_are_all_there_are(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    assert typed(capsys, "results", root, "jobs") == (0, "", "")
    queue.put("x", id="one")
    queue.put(5, id="two")
    work_off(queue)
    queue.put("not done")
    code, out, err = typed(capsys, "results", root, "jobs")
    assert (code, sorted(out.splitlines()), err) == (0, ["one\txx", "two\t10"], "")


def test_what_failed_or_is_not_done_is_named_and_the_rest_is_printed(
    root: Path, queue: WorkQueue, capsys: Shell
) -> None:
    done, bad = queue.put("x"), queue.put("bad")
    queue.get().done("fine")
    for _ in range(3):
        with contextlib.suppress(ZeroDivisionError), queue.get(timeout=60):
            1 / 0
    code, out, err = typed(capsys, "results", root, "jobs", done, bad, "nix")
    assert (code, out) == (1, "fine\n")
    first, second = err.splitlines()
    assert first == (
        f"psync results: task '{bad}' failed after 3 attempts; the last time: ZeroDivisionError: division by zero"
    )
    assert second == "psync results: no task 'nix' was ever put into the queue 'jobs'"
    waiting = queue.put("waits")
    assert typed(capsys, "results", root, "jobs", waiting) == (
        1,
        "",
        f"psync results: the task '{waiting}' is not done: it is waiting\n",
    )
    code, out, err = typed(capsys, "results", root, "jobs", "--json", bad)
    assert (code, json.loads(out)) == (1, {"id": bad, "error": first.removeprefix("psync results: ")})
    code, out, err = typed(capsys, "results", root, "jobs")
    assert (code, out) == (1, f"{done}\tfine\n")
    assert err == first + "\n"


def test_results_can_be_waited_for(root: Path, queue: WorkQueue) -> None:
    id = queue.put("x")
    command = [sys.executable, "-m", "psync", "results", str(root), "jobs", "--wait"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([*command, id], env=ENVIRON, stdout=pipe, text=True) as one,
        subprocess.Popen(command, env=ENVIRON, stdout=pipe, text=True) as every,
    ):
        time.sleep(0.3)
        assert (one.poll(), every.poll()) == (None, None)
        work_off(queue)
        assert one.communicate(timeout=60)[0] == "xx\n"
        assert every.communicate(timeout=60)[0] == f"{id}\txx\n"
    assert (one.returncode, every.returncode) == (0, 0)


def test_waiting_in_vain_exits_124(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    id = queue.put("x")
    for timeout in "0", "0.1":
        code, out, err = typed(capsys, "results", root, "jobs", id, "--timeout", timeout)
        assert (code, out, err) == (124, "", f"psync results: the task '{id}' is not done: it is waiting\n")
    code, out, err = typed(capsys, "results", root, "jobs", "--timeout", "0.1")
    assert (code, out) == (124, "")
    assert err.startswith("psync results: queue 'jobs' was not worked off within 0.1 seconds")


def test_a_result_that_json_can_not_tell_is_named(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    ids = queue.put_many([{1}, 2])
    for task in queue:
        task.done(task.value)
    code, out, err = typed(capsys, "results", "--json", root, "jobs", *ids)
    assert code == 1
    assert [json.loads(line).get("result") for line in out.splitlines()] == [None, 2]
    assert err.startswith(f"psync results: the result of '{ids[0]}' has no form in JSON")


def test_calls_of_an_executor_are_shown_as_what_they_came_to(root: Path, queue: WorkQueue, capsys: Shell) -> None:
    with Executor(root, max_workers=0) as executor:
        good, bad = executor.submit(pow, 2, 8), executor.submit(divmod, 1, 0)
        worker = threading.Thread(target=Worker(WorkQueue(root, "jobs")).run, kwargs={"drain": True})
        worker.start()
        worker.join(60)
        assert good.result(60) == 256
        assert isinstance(bad.exception(60), ZeroDivisionError)
    code, out, err = typed(capsys, "results", root, "jobs", "--calls", good.id, bad.id)
    assert (code, out) == (1, "256\n")
    assert err.startswith(f"psync results: the call '{bad.id}' raised ZeroDivisionError(")
    assert err.count("\n") == 1
    queue.put("x", id="no call")
    work_off(queue)
    code, out, err = typed(capsys, "results", root, "jobs", "--calls", "no call")
    assert (code, out) == (1, "")
    assert "is not that of a call" in err
