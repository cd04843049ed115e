"""``psync worker DIR``: makes the calls of executors elsewhere; leaves nothing unfinished, and nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psync import Executor, TaskFailed, WorkQueue
from psync.engine.system import process_identity
from psync.work import Worker
from tests.cli import calls
from tests.cli.shell import ENVIRON, psync
from tests.support import ENGINE

PATIENCE = 60


@contextlib.contextmanager
def worker(place: str, *options: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A worker that has begun; killed at the end of the block, if it runs still, with all it started."""
    command = [sys.executable, "-m", "psync", "worker", place, *options]
    with subprocess.Popen(
        command, env=ENVIRON, cwd=cwd, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        try:
            assert running.stderr
            assert re.match(r"psync worker: \d+ process(es)? works? on 'jobs' in ", running.stderr.readline())
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


def end_of(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what it said at the end."""
    err = running.communicate(timeout=PATIENCE)[1]
    assert err.count("\n") == 1, err
    return running.returncode, err.removeprefix("psync worker: ").rstrip()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def client(place: str) -> Iterator[Executor]:
    with Executor(place, max_workers=0) as client:
        yield client
        for future in client._futures.pending():
            future.cancel()
    client.queue.engine.close()


@pytest.fixture
def shared(place: str) -> str:
    return place


def begun(flag: Path) -> int:
    """The pid of the worker whose `nap` has begun."""
    eventually(lambda: flag.exists() and flag.read_text())
    return int(flag.read_text())


# -- working ---------------------------------------------------------------------------------------


def test_calls_are_made_by_as_many_processes_until_there_is_nothing_to_do(
    client: Executor, shared: str, tmp_path: Path
) -> None:
    with worker(shared, "-j", "2", "--idle", "0.5") as running:
        naps = [client.submit(calls.nap, str(tmp_path / name), 0.3) for name in ("one", "two")]
        answers = [client.submit(divmod, number, 7) for number in range(50)]
        assert [future.result(PATIENCE) for future in naps] == ["rested"] * 2
        assert [future.result(PATIENCE) for future in answers] == [divmod(number, 7) for number in range(50)]
        assert end_of(running) == (0, "52 calls made")
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_drain_ends_when_no_call_is_left(client: Executor, shared: str) -> None:
    bad = client.submit(divmod, 1, 0)
    good = client.submit(abs, -1)
    with worker(shared, "-j", "1", "--drain") as running:
        assert end_of(running) == (0, "2 calls made")
    assert good.result(PATIENCE) == 1
    assert isinstance(bad.exception(PATIENCE), ZeroDivisionError)
    ran = psync("worker", shared, "--drain", "-j", "2")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.endswith("psync worker: 0 calls made\n")


def test_functions_are_found_in_the_folder_it_was_started_in(tmp_path: Path, shared: str) -> None:
    (tmp_path / "mine.py").write_text("def double(x):\n    return 2 * x\n")
    program = f"""
from psync import Executor
import mine
with Executor({str(shared)!r}, max_workers=0) as client:
    print(client.submit(mine.double, 21).result(60))
"""
    script = tmp_path / "client.py"
    script.write_text(program)
    with worker(shared, "-j", "1", cwd=tmp_path) as running:
        out = subprocess.run([sys.executable, script], env=ENVIRON, capture_output=True, text=True, check=True).stdout
        assert out == "42\n"
        running.terminate()
        assert end_of(running) == (0, "1 call made; stopped by SIGTERM")


def test_a_worker_that_dies_or_leaves_is_replaced(client: Executor, shared: str, tmp_path: Path) -> None:
    idle = "10" if ENGINE else "2"  # where a server is asked, who died is looked for less often
    with worker(shared, "-j", "1", "--idle", idle) as running:
        first = client.submit(calls.pid)
        assert client.submit(calls.die_once, str(tmp_path / "flag")).result(PATIENCE) == "the second time"
        assert client.submit(calls.pid).result(PATIENCE) != first.result(PATIENCE)
        with pytest.raises(TaskFailed):
            client.submit(calls.leave, 75).result(PATIENCE)
        assert client.submit(abs, -1).result(PATIENCE) == 1
        assert end_of(running)[0] == 0


def test_a_call_that_raises_is_made_again_as_often_as_both_sides_allow(shared: str) -> None:
    with Executor(shared, max_workers=0, retries=4) as client:
        few, many = client.submit(divmod, 1, 0), client.submit(divmod, 2, 0)
        with worker(shared, "-j", "1", "--drain") as running:
            assert end_of(running) == (0, "6 calls made")
        assert isinstance(few.exception(PATIENCE), ZeroDivisionError)
        assert isinstance(many.exception(PATIENCE), ZeroDivisionError)
        client.submit(divmod, 3, 0)
        with worker(shared, "-j", "1", "--drain", "--attempts", "9") as running:
            assert end_of(running) == (0, "5 calls made")
        client.queue.engine.close()


def test_under_nohup_it_outlives_its_terminal(shared: str) -> None:
    command = ["nohup", sys.executable, "-m", "psync", "worker", str(shared), "-j", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=ENVIRON, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as one:
        assert one.stderr
        assert "work" in one.stderr.readline()
        one.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert one.poll() is None
        one.terminate()
        assert "0 calls made; stopped by SIGTERM\n" in one.communicate(timeout=PATIENCE)[1]


def test_a_closed_queue_is_worked_off(client: Executor, shared: str) -> None:
    future = client.submit(abs, -1)
    client.queue.close()
    with worker(shared, "-j", "2") as running:
        assert end_of(running) == (0, "1 call made")
    assert future.result(PATIENCE) == 1


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["it", "all of its group"])
def test_told_to_stop_it_finishes_the_call_at_hand_and_gives_back_the_rest(
    client: Executor, shared: str, tmp_path: Path, whom: str
) -> None:
    flag = tmp_path / "flag"
    future = client.submit(calls.nap, str(flag), 1.0)
    others = [client.submit(abs, -number) for number in range(5)]
    with worker(shared, "-j", "1") as running:
        pid = begun(flag)
        if whom == "it":
            running.send_signal(signal.SIGTERM)
        else:  # as SLURM and `timeout` do
            os.killpg(running.pid, signal.SIGTERM)
        assert end_of(running) == (0, "1 call made; stopped by SIGTERM")
    assert future.result(PATIENCE) == "rested"
    assert client.queue.qsize() == len(others)
    assert client.queue.statistics().running == 0
    assert not lives(pid)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_twice_it_stops_at_once_and_the_call_is_there_for_others(
    client: Executor, shared: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    flag = tmp_path / "flag"
    future = client.submit(calls.nap, str(flag), 100.0)
    with worker(shared, "-j", "2") as running:
        pid = begun(flag)
        running.send_signal(number)
        time.sleep(0.6)
        assert running.poll() is None
        running.send_signal(number)
        assert end_of(running) == (code, f"0 calls made; stopped at once by {number.name}")
    assert client.queue.state(future.id) == "waiting"
    assert not lives(pid)


def test_interrupted_with_nothing_to_do_it_ends(shared: str) -> None:
    with worker(shared, "-j", "2") as running:
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        assert end_of(running) == (130, "0 calls made; stopped by SIGINT")


def test_when_it_is_killed_its_processes_finish_their_call_and_end(
    client: Executor, shared: str, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    future = client.submit(calls.nap, str(flag), 1.0)
    later = client.submit(abs, -1)
    with worker(shared, "-j", "1") as running:
        pid = begun(flag)
        running.kill()
        assert future.result(PATIENCE) == "rested"
        eventually(lambda: not lives(pid))
        assert client.queue.state(later.id) == "waiting"


# -- limits ----------------------------------------------------------------------------------------


def test_a_process_that_has_grown_too_large_is_replaced_after_its_call(client: Executor, shared: str) -> None:
    with worker(shared, "-j", "1", "--max-rss", "200", "--idle", "1.5") as running:
        small = {client.submit(calls.pid).result(PATIENCE) for _ in range(3)}
        assert len(small) == 1
        assert {client.submit(calls.grow, 300).result(PATIENCE)} == small
        other = client.submit(calls.pid).result(PATIENCE)
        assert other not in small
        assert end_of(running) == (0, "5 calls made")


def test_no_call_is_begun_while_the_host_is_busy(client: Executor, shared: str) -> None:
    future = client.submit(abs, -1)
    if process_identity.load() > 0.01:
        with worker(shared, "-j", "1", "--max-load", "0.001") as running:
            time.sleep(1.0)
            assert client.queue.state(future.id) == "waiting"
            running.terminate()
            assert end_of(running)[0] == 0
    with worker(shared, "-j", "1", "--max-load", "1000", "--idle", "0.5") as running:
        assert future.result(PATIENCE) == 1
        assert end_of(running) == (0, "1 call made")


def test_who_is_held_back_goes_on_later(client: Executor) -> None:
    asked = threading.Event()
    busy = True

    def hold() -> bool:
        asked.set()
        return busy

    future = client.submit(abs, -1)
    thread = threading.Thread(target=Worker(client.queue).run, kwargs={"hold": hold, "drain": True})
    thread.start()
    assert asked.wait(PATIENCE)
    assert client.queue.state(future.id) == "waiting"
    busy = False
    thread.join(PATIENCE)
    assert future.result(PATIENCE) == 1


def test_enough_is_asked_after_each_call(root: Path) -> None:
    with Executor(root, max_workers=0) as client:
        futures = [client.submit(abs, number) for number in range(5)]
        made = Worker(WorkQueue(root, "jobs"))
        assert made.run(drain=True, enough=lambda: made.made == 3) == 3
        assert client.queue.qsize() == 2
        for future in futures:
            future.cancel()
