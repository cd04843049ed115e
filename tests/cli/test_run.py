"""``psync run DIR -- command {}``: each line once, whoever runs it, however often it is begun and killed."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from psync import Mailbox, WorkQueue
from psync.work.shell.template import Template
from tests.cli.shell import ENVIRON, psync
from tests.support import scaled

PATIENCE = 60.0


@contextmanager
def running(*arguments: str | Path, typed: str = "") -> Iterator[subprocess.Popen[str]]:
    """``psync run`` in the background; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "psync", "run", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRON,
    )
    assert process.stdin is not None
    process.stdin.write(typed)
    process.stdin.close()
    process.stdin = None
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def results(root: Path, queue: str = "run") -> dict[str, dict]:
    """By line."""
    found = list(WorkQueue(root, queue).results.collect(timeout=0))
    by_line = {result["line"]: result for _, result in found}
    assert len(by_line) == len(found)
    return by_line


# -- what is run -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line", "command"),
    [
        (["echo"], "a b", ["echo", "a b"]),
        (["echo", "{}"], "a b", ["echo", "a b"]),
        (["cp", "{}", "{}.bak"], "x", ["cp", "x", "x.bak"]),
        (["convert", "{}", "{.}.png"], "in/a.b/c.jpg", ["convert", "in/a.b/c.jpg", "in/a.b/c.png"]),
        (["echo", "{.}"], "in/a.b/c", ["echo", "in/a.b/c"]),
        (["echo", "{/}", "{//}", "{/.}"], "in/c.jpg", ["echo", "c.jpg", "in", "c"]),
        (["echo", "{/}", "{//}"], "c.jpg", ["echo", "c.jpg", "."]),
        (["echo", "{//}"], "/c", ["echo", "/"]),
        (["echo", "{#}"], "x", ["echo", "7"]),
        (["{}"], "x y", ["x y"]),
        (["echo", "{x}"], "a", ["echo", "{x}", "a"]),
        (["wc -l < {} | tr -d ' '"], "it's", ["/bin/sh", "-c", "wc -l < 'it'\"'\"'s' | tr -d ' '"]),
        (["echo hi"], "$(rm x)", ["/bin/sh", "-c", "echo hi '$(rm x)'"]),
        ([], "echo $((1 + 1))", ["/bin/sh", "-c", "echo $((1 + 1))"]),
    ],
)
def test_what_stands_for_the_line(words: list[str], line: str, command: list[str]) -> None:
    assert Template(words).command(line, 7) == command


def test_a_job_is_its_command_and_its_line_and_how_often_that_came_before() -> None:
    ids = [*Template(["echo"]).named(["a", "b", "a"])]
    assert len(set(ids)) == 3
    assert ids == [*Template(["echo"]).named(["a", "b", "a"])]
    assert not {*ids} & {*Template(["echo", "-n"]).named(["a", "b", "a"])}


def test_what_a_command_printed_is_printed_and_kept_with_its_exit_code(root: Path) -> None:
    ran = psync("run", root, "-j2", "--", "echo {}; echo but {} >&2; test {} != b", typed="a\nb\na\n")
    assert ran.code == 1
    assert sorted(ran.out.split()) == ["a", "a", "b"]
    assert sorted(ran.err.splitlines())[:3] == ["but a", "but a", "but b"]
    assert "psync run: 2 done, 1 failed, 0 skipped" in ran.err
    letters = [letter for _, letter in WorkQueue(root, "run").results.collect(timeout=0)]
    assert [(each["line"], each["code"], each["stdout"], each["stderr"]) for each in letters] == [
        ("a", 0, "a\n", "but a\n")
    ] * 2
    [(_, failed)] = list(Mailbox(root, "run/failed").collect(timeout=0))
    assert (failed["code"], failed["stdout"], failed["attempt"]) == (1, "b\n", 1)


def test_bytes_that_are_no_text_go_in_and_come_out_as_they_are(root: Path) -> None:
    command = [sys.executable, "-m", "psync", "run", str(root), "-k", "--", "echo"]
    ran = subprocess.run(command, input=b"\xff\xe4\nb", env=ENVIRON, capture_output=True, timeout=60, check=True)
    assert ran.stdout == b"\xff\xe4\nb\n"


def test_keep_order_prints_in_the_order_of_the_input(root: Path) -> None:
    ran = psync("run", root, "-j3", "-k", "--", "sleep 0.{}; echo {}", typed="3\n2\n1\n0\n")
    assert (ran.code, ran.out) == (0, "3\n2\n1\n0\n")


def test_a_file_of_lines_and_a_limit_of_time(tmp_path: Path, place: str) -> None:
    (tmp_path / "lines").write_text("0\n30\n")
    ran = psync("run", place, "-a", tmp_path / "lines", "--timeout", "0.5", "--", "sleep {}; echo {}")
    assert (ran.code, ran.out) == (1, "0\n")
    assert "its time was over" in ran.err
    assert ran.err.endswith(" s\n")


def test_lines_that_were_put_are_run(root: Path) -> None:
    WorkQueue(root, "mine").put_many(["a", "b"])
    ran = psync("run", root, "--queue", "mine", "--", "echo", "got {}")
    assert (ran.code, sorted(ran.out.splitlines())) == (0, ["got a", "got b"])


# -- again -------------------------------------------------------------------------------------------


def test_a_queue_that_was_used_is_not_run_again_without_resume(root: Path) -> None:
    assert psync("run", root, "--", "echo", typed="a\n").out == "a\n"
    again = psync("run", root, "--", "echo", typed="a\nb\n")
    assert (again.code, again.out, again.err.count("\n")) == (1, "", 1)
    assert "was used before" in again.err and "--resume" in again.err and "--queue" in again.err
    resumed = psync("run", root, "--resume", "--", "echo", typed="a\nb\n")
    assert (resumed.code, resumed.out) == (0, "b\n")
    assert "1 done, 0 failed, 1 skipped" in resumed.err


def test_resume_runs_what_failed_once_more(tmp_path: Path, place: str) -> None:
    command = ["--", f"test -e {tmp_path}/{{}} && echo found {{}}"]
    (tmp_path / "a").touch()
    assert psync("run", place, *command, typed="a\nb\n").code == 1
    (tmp_path / "b").touch()
    again = psync("run", place, "--resume", *command, typed="a\nb\n")
    assert (again.code, again.out) == (0, "found b\n")
    assert {*results(place)} == {"a", "b"}


def test_one_that_fails_is_tried_again_as_often_as_asked(tmp_path: Path, place: str) -> None:
    (tmp_path / "tries").touch()
    command = f"echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge {{}}"
    assert psync("run", place, "--retries", "2", "--", command, typed="3\n").code == 0
    assert results(place)["3"]["attempt"] == 3
    assert psync("run", f"{place}-other", "--retries", "1", "--", command, typed="9\n").code == 1
    assert (tmp_path / "tries").read_text() == "x\n" * 5


# -- together, and killed ----------------------------------------------------------------------------


def test_three_at_once_run_each_file_once_though_one_is_killed(tmp_path: Path, place: str) -> None:
    count = scaled(300)
    (tmp_path / "files").mkdir()
    for number in range(count):
        (tmp_path / "files" / f"{number} it's").write_text("x" * number)
    names = "".join(f"{name}\n" for name in sorted((tmp_path / "files").iterdir()))
    # each waits until all three are there: then none can find the others gone
    command = ["-j2", "--", f"while test $(ls {tmp_path} | grep -c '^here') -lt 3; do sleep 0.01; done; wc -c < {{}}"]
    with (
        running(place, *command, typed=names) as one,
        running(place, *command, typed=names) as two,
        running(place, *command, typed=names) as three,
    ):
        all_three = [psutil.Process(each.pid) for each in (one, two, three)]
        for number, each in enumerate(all_three):
            wait_for(lambda each=each: len(each.children()) >= 3)
            (tmp_path / f"here{number}").touch()
        left = one.pid
        wait_for(lambda: len(list(WorkQueue(place, "run").results.collect(timeout=0))) > 20)
        orphans = psutil.Process(left).children(recursive=True)
        one.kill()
        said = [each.communicate(timeout=PATIENCE) for each in (two, three)]
        assert (two.returncode, three.returncode) == (0, 0), said
        psutil.wait_procs(orphans, timeout=5)
        assert [each for each in orphans if each.is_running()] == []
    sizes = {Path(line).name: int(result["stdout"]) for line, result in results(place).items()}
    assert sizes == {f"{number} it's": number for number in range(count)}


def test_a_killed_run_takes_its_commands_with_it_and_they_are_run_again(tmp_path: Path, place: str) -> None:
    typed = "1\n2\n3\n"
    wait = f"while test ! -e {tmp_path}/go; do sleep 0.01; done; echo {{}}"
    with running(place, "-j2", "--", wait, typed=typed) as first:
        process = psutil.Process(first.pid)
        wait_for(lambda: len(process.children()) == 3)
        children = process.children(recursive=True)
        first.kill()
        first.wait()
        assert psutil.wait_procs(children, timeout=10)[1] == []
    (tmp_path / "go").touch()
    assert psync("run", place, "-k", "--resume", "--", wait, typed=typed).out == typed
    assert {line: each["attempt"] for line, each in results(place).items()} == {"1": 2, "2": 2, "3": 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_tells_its_commands_and_gives_them_back(
    tmp_path: Path, place: str, number: signal.Signals
) -> None:
    tell = f"trap 'touch {tmp_path}/told; exit 3' TERM; touch {tmp_path}/on; while true; do sleep 0.01; done"
    with running(place, "-j1", "--", f": {{}}; {tell}", typed="1\n2\n") as ran:
        wait_for((tmp_path / "on").exists)
        ran.send_signal(number)
        _, err = ran.communicate(timeout=PATIENCE)
    assert ran.returncode == 130
    assert "1 interrupted and given back, 2 waiting" in err
    assert (tmp_path / "told").exists()
    assert results(place) == {}
    assert WorkQueue(place, "run").qsize() == 2


def test_a_signal_that_it_was_told_to_ignore_stops_nobody(tmp_path: Path, place: str) -> None:
    wait = f"touch {tmp_path}/on; while test ! -e {tmp_path}/go; do sleep 0.01; done; echo {{}}"
    command = f"trap '' HUP; exec {sys.executable} -m psync run {shlex.quote(place)} -- '{wait}'"
    with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRON) as ran:
        assert ran.stdin is not None
        ran.stdin.write(b"1\n")
        ran.stdin.close()
        wait_for((tmp_path / "on").exists)
        ran.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        (tmp_path / "go").touch()
        assert ran.stdout is not None
        assert ran.stdout.read() == b"1\n"
    assert ran.returncode == 0


def test_told_twice_it_kills_them(tmp_path: Path, place: str) -> None:
    deaf = f"trap '' TERM; touch {tmp_path}/on{{}}; while true; do sleep 0.05; done"
    with running(place, "-j1", "--", deaf, typed="1\n") as ran:
        wait_for((tmp_path / "on1").exists)
        children = psutil.Process(ran.pid).children(recursive=True)
        ran.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert ran.poll() is None, "it waits for its command"
        ran.send_signal(signal.SIGINT)
        ran.communicate(timeout=PATIENCE)
    assert ran.returncode == 130
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert WorkQueue(place, "run").qsize() == 1


def test_what_a_command_leaves_in_the_background_goes_on(tmp_path: Path, place: str) -> None:
    command = f"sh -c 'sleep 0.5; touch {tmp_path}/later' & echo {{}}"
    begun = time.monotonic()
    ran = psync("run", place, "--", command, typed="a\n")
    assert (ran.code, ran.out) == (0, "a\n")
    if time.monotonic() - begun < 0.5:
        assert not (tmp_path / "later").exists()
    wait_for((tmp_path / "later").exists)


# -- wrong use ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "typed", "code", "complaint"),
    [
        (["-j0", "--", "echo"], "", 2, "'0' is not a number from 1 on"),
        (["--retries", "-1", "--", "echo"], "", 2, "error: "),
        (["--timeout", "0", "--", "echo"], "", 2, "'0' is not a number above 0"),
        (["--no-such", "--", "echo"], "", 2, "unrecognized arguments: --no-such"),
        (["echo", "{}"], "", 2, "unrecognized arguments: echo {}"),
        (["--", "no-such-command", "{}"], "a\n", 1, "there is no command 'no-such-command'"),
        (["-a", "no-such-file", "--", "echo"], "", 1, "no-such-file"),
        (["--", "echo"], "a\nb\0\n", 1, "line 2 has a NUL byte"),
        (["--queue", "../x", "--", "echo"], "a\n", 1, "'../x'"),
    ],
)
def test_wrong_use_is_one_line_and_runs_nothing(
    place: str, arguments: list[str], typed: str, code: int, complaint: str
) -> None:
    ran = psync("run", place, *arguments, typed=typed)
    assert (ran.code, ran.out) == (code, "")
    assert complaint in ran.err
    assert ran.err.count("\n") == 1 or ran.err.startswith("usage: psync run [-h] DIR")


def test_a_command_that_is_not_there_fails_as_in_a_shell(root: Path) -> None:
    ran = psync("run", root, "--", "{}", typed="no-such-command\n/\n")
    assert ran.code == 1
    codes = {letter["line"]: letter["code"] for _, letter in Mailbox(root, "run/failed").collect(timeout=0)}
    assert codes == {"no-such-command": 127, "/": 126}


def test_nobody_reading_on_ends_it(root: Path) -> None:
    place = shlex.quote(str(root))
    command = f"{sys.executable} -m psync run {place} -j2 -- 'sleep 0.01; echo {{}}' | head -n 2"
    lines = "".join(f"{number}\n" for number in range(200))
    ran = subprocess.run(
        command, shell=True, input=lines, env=ENVIRON, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout.count("\n"), "Traceback" in ran.stderr) == (2, False)
    assert 2 <= len(results(root)) < 200
