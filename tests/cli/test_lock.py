"""``psync lock DIR NAME -- command``: one at a time, signals and exit codes as with flock(1), and free when it ends."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from psync import Lock, ReadWriteLock
from tests.cli.shell import ENVIRON, psync
from tests.support import files

PSYNC = [sys.executable, "-m", "psync"]
PATIENCE = 60
NAP = "import sys, time; print('in', flush=True); time.sleep(100)"


@contextlib.contextmanager
def start(*arguments: str | Path, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A command that runs; killed at the end of the block, if it does still."""
    command = [*PSYNC, *map(str, arguments)]
    pipe = subprocess.PIPE
    running: subprocess.Popen[str] = subprocess.Popen(command, env=ENVIRON, stdout=pipe, stderr=pipe, text=True, **more)
    with running:
        try:
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def holder(root: Path, *options: str, program: str = NAP) -> Iterator[subprocess.Popen[str]]:
    """Somebody who holds the lock ``door`` by the time the block begins."""
    with start("lock", root, "door", *options, "--", sys.executable, "-c", program) as held:
        assert held.stdout
        assert held.stdout.readline() == "in\n", held.stderr
        yield held


def is_free(root: Path) -> bool:
    ran = psync("lock", root, "door", "--timeout", "0", "--", "true")
    assert ran.code in (0, 124)
    return ran.code == 0


# -- holding ---------------------------------------------------------------------------------------


def test_the_command_runs_with_its_input_output_and_exit_code(root: Path) -> None:
    ran = psync("lock", root, "door", "--", "sh", "-c", "cat; echo $0 $1 >&2; exit 7", "--", "-x", typed="typed")
    assert ran == (7, "typed", "-- -x\n")
    assert psync("lock", root, "door", "--", "sh", "-c", "kill -9 $$").code == 128 + signal.SIGKILL
    assert psync("lock", root, "door", "--", "true").code == 0


def test_the_token_grows(root: Path) -> None:
    tokens = [psync("lock", root, "door", "--", "sh", "-c", "echo $PSYNC_TOKEN").out for _ in range(3)]
    with Lock(root, "door"):
        pass
    tokens.append(psync("lock", root, "door", "--", "sh", "-c", "echo $PSYNC_TOKEN").out)
    numbers = [int(token) for token in tokens]
    assert numbers == sorted({*numbers})
    assert psync("lock", "-s", root, "door", "--", "sh", "-c", "echo ${PSYNC_TOKEN-none}").out == "none\n"


@files
def test_one_at_a_time(root: Path) -> None:
    work = "read n < number; n=$((n + 1)); sleep 0.02; echo $n > number"
    (root / "number").write_text("0\n")
    loop = f'for i in 1 2 3; do {sys.executable} -m psync lock . door -- sh -c "$0" || exit 1; done'
    crew = [subprocess.Popen(["bash", "-c", loop, work], env=ENVIRON, cwd=root) for _ in range(3)]
    assert [one.wait(PATIENCE) for one in crew] == [0] * 3
    assert (root / "number").read_text() == "9\n"


def test_who_can_not_have_it_in_time_hears_who_has_it(root: Path) -> None:
    with holder(root) as held:
        begun = time.monotonic()
        ran = psync("lock", root, "door", "--timeout", "0.3", "--", "echo", "never")
        assert (ran.code, ran.out) == (124, "")
        assert time.monotonic() - begun >= 0.3
        assert ran.err.startswith("psync lock: the lock 'door' was not free within 0.3 seconds; it is held by pid ")
        assert f" {held.pid} " in ran.err
        assert ran.err.count("\n") == 1
        assert not Lock(root, "door").acquire(blocking=False), "it is not the lock that Python programs know"


def test_a_python_program_keeps_it_out(root: Path) -> None:
    lock = Lock(root, "door")
    with lock:
        ran = psync("lock", root, "door", "--timeout", "0", "--", "true")
        assert ran.code == 124
        assert f"held by pid {os.getpid()} " in ran.err
    assert is_free(root)


def test_it_is_shared_by_those_who_say_so(root: Path) -> None:
    with holder(root, "--shared") as one, holder(root, "-s"):
        assert psync("lock", "-s", root, "door", "--", "true").code == 0
        ran = psync("lock", root, "door", "--timeout", "0.1", "--", "true")
        assert ran.code == 124
        assert f"held by pid {one.pid} " in ran.err
        assert not ReadWriteLock(root, "door").writer.acquire(blocking=False)
    assert is_free(root)
    with holder(root) as alone:
        ran = psync("lock", "-s", "--timeout", "0.1", root, "door", "--", "true")
        assert ran.code == 124
        assert f"held by pid {alone.pid} " in ran.err
    assert psync("lock", "-s", "--timeout", "10", root, "door", "--", "true").code == 0


# -- ending ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--shared"]], ids=["alone", "shared"])
def test_a_holder_that_was_killed_holds_nothing_and_its_command_is_gone(root: Path, options: list[str]) -> None:
    program = "import os, time; print('in', flush=True); print(os.getpid(), flush=True); time.sleep(100)"
    with holder(root, *options, program=program) as held:
        assert held.stdout
        pid = int(held.stdout.readline())
        held.kill()
        held.wait(PATIENCE)
        assert is_free(root)
        deadline = time.monotonic() + PATIENCE
        while running(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not running(pid), "the command goes on without the lock"


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_the_command_left_running_does_not_hold_it(root: Path) -> None:
    ran = psync("lock", root, "door", "--", "sh", "-c", "sleep 100 > /dev/null 2>&1 & echo $!")
    try:
        assert ran.code == 0
        assert is_free(root)
    finally:
        os.kill(int(ran.out), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_the_commands(root: Path, number: signal.Signals) -> None:
    tell = f"""
import signal, sys, time
def told(number, frame):
    print("told", number, flush=True)
    sys.exit(3)
signal.signal({int(number)}, told)
print("in", flush=True)
time.sleep(100)
"""
    with holder(root, program=tell) as held:
        held.send_signal(number)
        out, err = held.communicate(timeout=PATIENCE)
        assert (held.returncode, out, err) == (3, f"told {int(number)}\n", "")
    assert is_free(root)


def test_a_key_of_the_terminal_reaches_the_command_once(root: Path) -> None:
    program = """
import signal, time
told = []
signal.signal(signal.SIGINT, lambda number, frame: told.append(number))
print("in", flush=True)
while not told:
    time.sleep(0.02)
time.sleep(0.5)
print("told", len(told), flush=True)
"""
    pid, terminal = pty.fork()
    if not pid:
        os.execve(sys.executable, [*PSYNC, "lock", str(root), "door", "--", sys.executable, "-c", program], ENVIRON)
    try:
        said = b""
        while b"in" not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while b"told" not in said or not said.endswith(b"\n"):
            said += os.read(terminal, 1000)
        assert b"told 1\r\n" in said
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_a_command_that_a_signal_ends_ends_as_the_shell_has_it(root: Path) -> None:
    with holder(root, program="import os; print('in', flush=True); os.execlp('sleep', 'sleep', '100')") as held:
        held.terminate()
        assert held.wait(PATIENCE) == 128 + signal.SIGTERM


def has_open(pid: int, name: str) -> bool:
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed just now
            if os.readlink(each).endswith(name):
                return True
    return False


@files
def test_one_who_waits_can_be_told_to_stop(root: Path) -> None:
    with holder(root), start("lock", root, "door", "--", "echo", "never") as waiting:
        while not has_open(waiting.pid, "door"):
            time.sleep(0.05)
        waiting.send_signal(signal.SIGINT)
        assert waiting.communicate(timeout=PATIENCE) == ("", "")
    assert waiting.returncode == 130


def test_a_command_that_is_not_there_or_can_not_be_run(root: Path) -> None:
    ran = psync("lock", root, "door", "--", "no-such-command", "x")
    assert ran == (127, "", "no-such-command: No such file or directory\n")
    ran = psync("lock", root, "door", "--", "/")
    assert ran == (126, "", "/: Permission denied\n")
    assert is_free(root)
