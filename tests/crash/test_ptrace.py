"""The tracer strikes exactly the call it was told to, and nothing before or after it."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from tests.crash import ptrace
from tests.crash.ptrace import Fail, Kill, Pause, Short, Torn, run

pytestmark = pytest.mark.crash


def names(calls: list[str]) -> list[str]:
    return [call.partition("(")[0] for call in calls]


def test_only_the_calls_of_the_function_are_counted(root: Path) -> None:
    seen = run(os.rmdir, ready=lambda: os.mkdir(root / "a") or root / "a")
    assert seen.calls == [f"rmdir({root}/a)"]


def test_a_kill_before_a_call_prevents_it_and_a_kill_after_it_does_not(root: Path) -> None:
    def act() -> None:
        os.mkdir(root / "a")
        os.mkdir(root / "b")

    assert run(act, fault=Kill(2)).killed
    assert os.listdir(root) == ["a"]
    os.rmdir(root / "a")
    assert str(run(act, fault=Kill(2, after=True))) == f"call 2, mkdir({root}/b)"
    assert sorted(os.listdir(root)) == ["a", "b"]


def test_a_point_that_is_not_reached_strikes_nothing(root: Path) -> None:
    seen = run(lambda: os.mkdir(root / "a"), fault=Kill(2))
    assert not seen.struck
    assert not seen.killed
    assert (root / "a").exists()


def test_a_refused_call_is_not_made_and_says_the_errno(root: Path) -> None:
    seen = run(lambda: os.mkdir(root / "a"), fault=Fail(1, errno.EDQUOT))
    assert isinstance(seen.error, OSError)
    assert seen.error.errno == errno.EDQUOT
    assert not (root / "a").exists()


def test_a_refused_close_closes(root: Path) -> None:
    def act() -> None:
        folder = os.open(root, os.O_RDONLY)
        with pytest.raises(OSError, match="Input/output"):
            os.close(folder)
        os.fstat(folder)

    seen = run(act, fault=Fail(2, errno.EIO))
    assert isinstance(seen.error, OSError)
    assert seen.error.errno == errno.EBADF


def test_a_refused_unlock_unlocks(root: Path) -> None:
    (root / "file").touch()

    def act() -> None:
        mine, other = os.open(root / "file", os.O_RDWR), os.open(root / "file", os.O_RDWR)
        fcntl.flock(mine, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="Input/output"):
            fcntl.flock(mine, fcntl.LOCK_UN)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    seen = run(act, fault=Fail(4, errno.EIO))
    assert seen.struck
    assert seen.error is None


@pytest.mark.parametrize(("last", "left"), [(False, 4096), (True, 12288)])
def test_a_torn_write_ends_where_a_page_of_the_file_ends(root: Path, last: bool, left: int) -> None:
    file = root / "file"
    for start in (0, 100):
        file.write_bytes(b"-" * start)

        def act(start: int = start) -> None:
            descriptor = os.open(file, os.O_WRONLY)
            os.pwrite(descriptor, b"x" * 13_000, start)

        assert run(act, fault=Torn(2, last=last)).killed
        assert file.stat().st_size == left


def test_a_write_within_a_page_is_not_torn(root: Path) -> None:
    def act() -> None:
        descriptor = os.open(root / "file", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"x" * 4000)

    seen = run(act, fault=Torn(2))
    assert not seen.struck
    assert (root / "file").stat().st_size == 4000


def test_a_short_write_says_how_short_it_was(root: Path) -> None:
    written: list[int] = []

    def act() -> None:
        descriptor = os.open(root / "file", os.O_WRONLY | os.O_CREAT)
        written.append(os.write(descriptor, b"x" * 10_000))

    assert run(act, after=lambda thing, error: written, fault=Short(2)).report == [8192]
    assert (root / "file").stat().st_size == 8192


def test_a_pause_lets_others_look_before_the_call(root: Path) -> None:
    seen: list[list[str]] = []
    held_up = run(lambda: os.mkdir(root / "a"), fault=Pause(1, lambda: seen.append(os.listdir(root))))
    assert held_up.struck
    assert held_up.error is None
    assert seen == [[]]
    assert os.listdir(root) == ["a"]


def test_the_calls_of_a_thread_are_seen() -> None:
    def act() -> None:
        thread = threading.Thread(target=lambda: os.stat("/"))
        thread.start()
        thread.join()

    assert "newfstatat" in names(run(act).calls)


def test_the_calls_of_a_child_are_seen_and_a_kill_takes_both(root: Path) -> None:
    def act() -> None:
        child = os.fork()
        if not child:
            os.mkdir(root / "a")
            os._exit(0)
        os.waitpid(child, 0)

    calls = run(act).calls
    os.rmdir(root / "a")
    assert run(act, fault=Kill(names(calls).index("mkdir") + 1)).killed
    assert os.listdir(root) == []


def test_a_child_that_hangs_is_killed_and_said_to_have_hung() -> None:
    began = time.monotonic()
    seen = run(lambda: time.sleep(60), seconds=1)
    assert seen.hung
    assert time.monotonic() - began < 10


def test_a_child_that_can_not_get_ready_is_no_result() -> None:
    with pytest.raises(ptrace.ChildBroke, match="ZeroDivisionError"):
        run(print, ready=lambda: 1 // 0)


def test_a_point_is_reached_in_a_few_milliseconds(root: Path) -> None:
    began = time.monotonic()
    for _ in range(20):
        run(lambda: os.stat(root), fault=Kill(1))
    assert (time.monotonic() - began) / 20 < 0.2
