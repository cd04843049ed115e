"""The contract of mutexes and guards: one holder at a time, and none that outlives its process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from psync.engine import Engine
from psync.engine.contract.engine import Mutex
from psync.engine.contract.values import Alive
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.contract.payloads import loaded, pickled
from tests.support import scaled

SOON = 2.0
"""Seconds that a busy machine may take for what is immediate."""


def block(engine: Engine, kind: str) -> AbstractContextManager[object]:
    if kind == "guard":
        return engine.guard("g")
    return engine.bucket("c/0f").held() if kind == "bucket" else engine.log(".psync/queue/q").held()


def is_free(mutex: Mutex) -> bool:
    """Whether it could be had at once; lets go of it again."""
    free = mutex.acquire(0)
    if free:
        mutex.release()
    return free


def bump(engine: Engine) -> None:
    """Read, let others run, write: loses counts unless something keeps the others out."""
    cell = engine.read("n")
    number = loaded(cell.payload) if cell else 0
    time.sleep(0)
    engine.write("n", pickled(number + 1))


def test_a_free_mutex_is_had_at_once(engine: Engine) -> None:
    mutex = engine.mutex("m")
    for timeout in (None, 0, 5.0):
        assert mutex.acquire(timeout) is True
        mutex.release()


def test_a_mutex_excludes_everybody_else(harness: Harness) -> None:
    mutex = harness.engine.mutex("m")
    assert mutex.acquire()
    assert not is_free(harness.other().mutex("m"))
    assert harness.crowd([lambda engine: is_free(engine.mutex("m"))]) == [False]
    assert threads([lambda: is_free(harness.engine.mutex("m"))]) == [False]
    assert is_free(harness.other().mutex("another"))
    mutex.release()
    assert is_free(harness.other().mutex("m"))
    assert harness.crowd([lambda engine: is_free(engine.mutex("m"))]) == [True]


def test_a_mutex_is_not_reentrant(engine: Engine) -> None:
    mutex = engine.mutex("m")
    assert mutex.acquire()
    assert mutex.acquire(0) is False
    assert mutex.acquire(0.02) is False
    assert engine.mutex("m").acquire(0) is False
    mutex.release()
    assert mutex.acquire(0) is True
    mutex.release()


def test_a_mutex_that_is_not_held_can_not_be_released(engine: Engine) -> None:
    for name in ("never", "once"):
        mutex = engine.mutex(name)
        if name == "once":
            assert mutex.acquire()
            mutex.release()
        with pytest.raises(RuntimeError):
            mutex.release()
        assert mutex.acquire(0)
        mutex.release()


def test_an_acquire_gives_up_after_its_timeout(harness: Harness) -> None:
    holder = harness.engine.mutex("m")
    assert holder.acquire()
    for handle in (harness.engine.mutex("m"), harness.other().mutex("m")):
        begun = time.monotonic()
        assert handle.acquire(0.1) is False
        assert 0.09 <= time.monotonic() - begun < SOON
    holder.release()


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_who_waits_gets_the_mutex_as_soon_as_it_is_free(harness: Harness, timeout: float | None) -> None:
    mine, theirs = harness.engine.mutex("m"), harness.other().mutex("m")
    assert mine.acquire()
    freed = []

    def wait() -> float:
        assert theirs.acquire(timeout) is True
        got = time.monotonic()
        theirs.release()
        return got - freed[0]

    def free() -> float:
        time.sleep(0.1)
        freed.append(time.monotonic())
        mine.release()
        return 0.0

    late = threads([wait, free])[0]
    assert 0 <= late < 0.5


@pytest.mark.parametrize("kind", ["mutex", "guard"])
@pytest.mark.parametrize("who", ["threads", "processes"])
def test_nobody_gets_in_beside_another(harness: Harness, kind: str, who: str) -> None:
    count = scaled(40 if kind == "mutex" else 10)

    def work(engine: Engine) -> None:
        for turn in range(count):
            if kind == "guard":
                with engine.guard("g"):
                    bump(engine)
            else:
                mutex = engine.mutex("m")
                assert mutex.acquire(30.0 if turn % 2 else None)
                bump(engine)
                mutex.release()

    if who == "threads":
        threads([lambda: work(harness.engine)] * 5)
    else:
        harness.crowd([work] * 5)
    cell = harness.engine.read("n")
    assert cell is not None and loaded(cell.payload) == 5 * count


def test_a_mutex_held_by_a_process_that_is_killed_is_free(harness: Harness) -> None:
    kept = []

    def hold(engine: Engine) -> bool:
        kept.append(engine.mutex("m"))
        return kept[-1].acquire()

    assert harness.killed(hold)
    assert is_free(harness.engine.mutex("m"))


def test_who_waits_for_a_mutex_learns_of_its_holders_death(harness: Harness) -> None:
    mine, asked, kept = harness.engine.mutex("m"), harness.engine.mutex("asked"), []
    assert asked.acquire()
    got: list[float] = []

    def wait() -> None:
        while is_free(mine):
            time.sleep(0.002)
        asked.release()
        assert mine.acquire(20.0)
        got.append(time.monotonic())
        mine.release()

    def hold(engine: Engine) -> float:
        kept.append(engine.mutex("m"))
        assert kept[-1].acquire(10.0) and engine.mutex("asked").acquire(10.0)  # now somebody waits
        time.sleep(0.1)
        return time.monotonic()

    _, died = threads([wait, lambda: harness.killed(hold)])
    assert isinstance(died, float) and -0.05 < got[0] - died < 0.9


def test_a_guard_held_by_a_process_that_is_killed_is_free(harness: Harness) -> None:
    kept = []

    def hold(engine: Engine) -> None:
        kept.append(engine.guard("g"))
        kept[-1].__enter__()

    harness.killed(hold)
    with harness.engine.guard("g"):
        pass


def test_a_guard_lets_go_when_its_block_raises(harness: Harness) -> None:
    with pytest.raises(ZeroDivisionError), harness.engine.guard("g"):
        raise ZeroDivisionError
    with harness.other().guard("g"), harness.other().guard("another"):
        pass


@pytest.mark.parametrize("kind", ["mutex", "guard", "bucket", "log"])
def test_other_names_go_on_while_one_is_held(harness: Harness, kind: str) -> None:
    engine, other = harness.engine, harness.other()
    engine.bucket("c/0f").append(b"")
    mutex = engine.mutex("m")

    def use_others() -> None:
        other.write("a", pickled(1))
        assert other.create("b", pickled(1)) and other.delete("b")
        assert other.bucket("c/0e").append(b"")
        assert other.log(".psync/queue/others").append([b"x"])
        assert is_free(other.mutex("others"))
        with other.guard("others"):
            pass
        assert other.read("c/0f") is not None and other.bucket("c/0f").tail() is not None  # readers never wait

    if kind == "mutex":
        assert mutex.acquire()
        threads([use_others], patience=10)
        mutex.release()
        return
    with block(engine, kind):
        threads([use_others], patience=10)


# -- what only processes do ------------------------------------------------------------------------


def in_child(job: Callable[[], bool]) -> bool:
    """What `job` says in a child forked right here."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = 0 if job() else 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1), f"the child ended with {code}"
    return code == 0


def test_a_forked_child_neither_holds_nor_frees_its_parents_mutex(disk: DirectoryHarness) -> None:
    engine = disk.engine
    mutex = engine.mutex("m")
    assert mutex.acquire()

    def child() -> bool:
        held = engine.mutex("m").acquire(0) or mutex.acquire(0.05)
        engine.close()
        return not held

    assert in_child(child)
    assert not is_free(disk.other().mutex("m"))
    mutex.release()
    assert is_free(disk.other().mutex("m"))


@pytest.mark.parametrize("kind", ["mutex", "guard", "bucket", "log"])
def test_what_a_killed_parent_held_is_free_though_its_child_lives(disk: DirectoryHarness, kind: str) -> None:
    disk.engine.bucket("c/0f").append(b"")
    reading, writing = os.pipe()
    kept: list[Any] = []

    def hold_and_fork(engine: Engine) -> int:
        if kind == "mutex":
            kept.append(engine.mutex("x"))
            assert engine.mutex("x").acquire()
        else:
            kept.append(block(engine, kind))
            kept[-1].__enter__()
        engine.owner()
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until the test ends
            os._exit(0)
        return engine.owner()

    owner = disk.killed(hold_and_fork)
    os.close(reading)
    try:

        def take() -> None:
            if kind == "mutex":
                assert disk.engine.mutex("x").acquire(5.0)
                disk.engine.mutex("x").release()
            elif kind == "guard":
                with disk.engine.guard("g"):
                    pass
            elif kind == "bucket":
                assert disk.engine.bucket("c/0f").append(b"")
            else:
                assert disk.engine.log(".psync/queue/q").append([b"x"])

        threads([take], patience=10)
        end = time.monotonic() + 5.0
        while disk.engine.alive(owner) is not Alive.NO and time.monotonic() < end:
            time.sleep(0.01)  # the child has to come to run before it can let go of what it inherited
        assert disk.engine.alive(owner) is Alive.NO
    finally:
        os.close(writing)
