"""``psync barrier DIR NAME --parties N``: a meeting of processes that each come once, as in a SLURM array job."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from psync import Barrier
from tests.cli.shell import ENVIRON, psync

PATIENCE = 60


def come(root: Path, parties: int = 3, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "psync", "barrier", str(root), "meet", "--parties", str(parties), *options]
    return subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def waiting_processes(root: Path, count: int, parties: int = 3, *options: str) -> Iterator[list[subprocess.Popen[str]]]:
    coming = [come(root, parties, *options) for _ in range(count)]
    try:
        yield coming
    finally:
        for one in coming:
            one.kill()
            one.communicate()


def end_of(one: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = one.communicate(timeout=PATIENCE)
    return one.returncode, out, err


def until_waiting(root: Path, count: int, parties: int = 3) -> None:
    barrier = Barrier(root, "meet", parties)
    deadline = time.monotonic() + PATIENCE
    while barrier.n_waiting != count:
        assert time.monotonic() < deadline, barrier
        time.sleep(0.02)


def test_processes_that_end_when_they_have_passed_meet_again_and_again(root: Path) -> None:
    for _ in range(3):
        with waiting_processes(root, 2) as coming:
            until_waiting(root, 2)
            assert [one.poll() for one in coming] == [None, None]
            with waiting_processes(root, 1) as last:
                assert [end_of(one) for one in coming + last] == [(0, "", "")] * 3


def test_the_next_round_may_begin_before_those_of_the_last_one_have_ended(root: Path) -> None:
    with waiting_processes(root, 6, 2) as coming:
        assert [end_of(one) for one in coming] == [(0, "", "")] * 6


def test_a_process_that_stays_meets_others_that_come_once_each(root: Path) -> None:
    barrier = Barrier(root, "meet", 3)
    for _ in range(3):
        with waiting_processes(root, 2) as coming:
            barrier.wait(PATIENCE)
            assert [end_of(one) for one in coming] == [(0, "", "")] * 2
        assert len(barrier.statistics().missing) == 1, "who has left is missed"
    with waiting_processes(root, 1) as coming:
        until_waiting(root, 1)
        time.sleep(0.6)  # longer than it takes to look for the dead
        assert coming[0].poll() is None
        barrier.abort()


def test_the_next_run_may_be_of_another_number(root: Path) -> None:
    for parties in 2, 1, 3:
        with waiting_processes(root, parties, parties) as coming:
            assert [end_of(one)[0] for one in coming] == [0] * parties
    with waiting_processes(root, 1) as coming:
        until_waiting(root, 1)
        ran = psync("barrier", root, "meet", "--parties", "2")
        assert (ran.code, ran.out) == (2, "")
        assert "is at work for 3 parties, not 2: use the same number everywhere" in ran.err


def test_one_who_waits_too_long_breaks_it_for_all_and_exits_124(root: Path) -> None:
    with waiting_processes(root, 1) as others:
        until_waiting(root, 1)
        ran = psync("barrier", root, "meet", "--parties", "3", "--timeout", "0.5")
        why = "psync barrier: barrier 'meet' was broken in round 0 because somebody waited 0.5 seconds, when only 2 of "
        assert (ran.code, ran.out, ran.err) == (124, "", f"{why}3 had come\n")
        assert end_of(others[0]) == (1, "", f"{why}3 had come\n")
    with waiting_processes(root, 3) as again:
        assert [end_of(one)[0] for one in again] == [0] * 3, "a broken barrier stays broken for the next parties"


def test_one_who_is_killed_while_it_waits_is_named(root: Path) -> None:
    for number in signal.SIGKILL, signal.SIGTERM:
        with waiting_processes(root, 2) as coming:
            until_waiting(root, 2)
            coming[0].send_signal(number)
            code, out, err = end_of(coming[1])
            assert (code, out) == (1, "")
            assert "because a party ended while it waited: pid" in err or "a process that is gone" in err
            assert f"pid {coming[0].pid} on " in err
            assert err.count("\n") == 1
            assert coming[0].wait(PATIENCE) == -number


def test_an_interrupted_one_exits_130_and_is_named(root: Path) -> None:
    with waiting_processes(root, 2) as coming:
        until_waiting(root, 2)
        coming[0].send_signal(signal.SIGINT)
        assert end_of(coming[0]) == (130, "", "")
        code, _, err = end_of(coming[1])
        assert code == 1
        assert f"because it was aborted by pid {coming[0].pid} on " in err


def test_one_that_stays_hears_of_a_death_among_those_that_stay(root: Path) -> None:
    """Leaving makes nobody else's death unnoticed."""
    barrier = Barrier(root, "meet", 3)
    program = f"""
from psync import Barrier
barrier = Barrier({str(root)!r}, "meet", 3)
barrier.wait(60)
print("met", flush=True)
input()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], env=ENVIRON, stdin=pipe, stdout=pipe, text=True) as stays:
        with waiting_processes(root, 1) as coming:
            barrier.wait(PATIENCE)
            assert end_of(coming[0])[0] == 0
        assert stays.stdout
        assert stays.stdout.readline() == "met\n"
        stays.kill()
        stays.wait()
    begun = time.monotonic()
    try:
        barrier.wait(PATIENCE)
    except Exception as error:
        assert "a party ended before it came" in str(error)
    else:
        raise AssertionError("nobody was missed")
    assert time.monotonic() - begun < PATIENCE / 2
