"""A forked child owns, frees and keeps alive nothing that its parent holds; it is another party."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from psync import (
    Barrier,
    Condition,
    DoubleBarrier,
    Election,
    Group,
    Lock,
    PickleShareDB,
    ReadWriteLock,
    RLock,
    Semaphore,
)
from psync.engine.directory.buckets.transaction import MultiAppend
from tests.concurrency.simultaneous import FORK, together
from tests.support import files
from tests.sync.other_process import Channel, eventually, other_process, soon


class Holding(NamedTuple):
    """Something that a process can hold through a handle."""

    name: str
    make: Callable[[Any], Any]
    take: Callable[[Any], object]
    give: Callable[[Any], object]
    is_mine: Callable[[Any], bool]
    """Whether the process that asks holds it."""
    is_free: Callable[[Any], bool]
    """Whether another handle, of another process, could have it; what it takes goes back."""


def could_have(handle: Any) -> bool:
    had = bool(handle.acquire(timeout=0))
    if had:
        handle.release()
    return had


def could_lead(election: Election) -> bool:
    had = election.campaign(timeout=0)
    if had:
        election.resign()
    return had


def could_write(reader: Any) -> bool:
    return could_have(reader._lock.writer)


HOLDINGS = [
    Holding("Lock", lambda db: Lock(db, "x"), Lock.acquire, Lock.release, lambda lock: lock.token > 0, could_have),
    Holding("RLock", lambda db: RLock(db, "x"), RLock.acquire, RLock.release, lambda lock: lock.token > 0, could_have),
    Holding(
        "Condition",
        lambda db: Condition(db, "x"),
        lambda condition: condition.acquire(),
        lambda condition: condition.release(),
        lambda condition: condition._lock._is_owned(),
        could_have,
    ),
    Holding(
        "Election",
        lambda db: Election(db, "x"),
        Election.campaign,
        Election.resign,
        lambda election: election.is_leader(),
        could_lead,
    ),
    Holding(
        "writer",
        lambda db: ReadWriteLock(db, "x").writer,
        lambda writer: writer.acquire(),
        lambda writer: writer.release(),
        lambda writer: f"pid {os.getpid()} " in str(writer._lock.statistics().writer),
        could_have,
    ),
    Holding(
        "reader",
        lambda db: ReadWriteLock(db, "x").reader,
        lambda reader: reader.acquire(),
        lambda reader: reader.release(),
        lambda reader: f"pid {os.getpid()} " in str(reader._lock.statistics().readers),
        could_write,
    ),
    Holding(
        "Group",
        lambda db: Group(db, "x"),
        Group.join,
        Group.leave,
        lambda crew: f"pid {os.getpid()} " in str(crew.members()),
        lambda crew: len(crew) == 0,
    ),
]
SLOTS = Holding(
    "Semaphore",
    lambda db: Semaphore(db, "x"),
    Semaphore.acquire,
    Semaphore.release,
    lambda slots: f"pid {os.getpid()} " in str(slots.statistics().holders),
    could_have,
)
each_holding = pytest.mark.parametrize("holding", [*HOLDINGS, SLOTS], ids=lambda holding: holding.name)
each_owned = pytest.mark.parametrize("holding", HOLDINGS, ids=lambda holding: holding.name)


def by_fork(job: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            job()
        os._exit(0)
    return child


def by_multiprocessing(job: Callable[[], object]) -> int:
    child = FORK.Process(target=job)
    child.start()
    return child.pid or 0


ways = pytest.mark.parametrize("fork", [by_fork, by_multiprocessing], ids=["os.fork", "multiprocessing"])


@each_owned
def test_a_child_neither_holds_nor_frees_what_its_parent_holds(holding: Holding, root: Path) -> None:
    mine = holding.make(root)
    holding.take(mine)
    assert holding.is_mine(mine)

    def child() -> list[bool]:
        seen = [holding.is_mine(mine)]
        for handle in (mine, holding.make(root)):
            with pytest.raises(RuntimeError):
                holding.give(handle)
            seen.append(holding.is_free(handle))
        return seen

    assert together([child]) == [[False, False, False]]
    assert holding.is_mine(mine)
    holding.give(mine)
    assert holding.is_free(mine) and together([lambda: holding.is_free(mine)]) == [True]


@each_holding
@pytest.mark.parametrize("end", ["os._exit", "in order", "killed"])
def test_a_childs_end_frees_nothing_of_its_parents(holding: Holding, end: str, root: Path) -> None:
    mine = holding.make(root)
    holding.take(mine)

    def child(talk: Channel) -> None:
        holding.is_free(mine)  # so that it has been somebody here
        talk.say("here")
        talk.hear()
        if end == "os._exit":
            os._exit(0)

    with other_process(child) as other:
        other.hear()
        if end == "killed":
            other.kill()
        else:
            other.tell()
            other.join()
    assert holding.is_mine(mine)
    assert together([lambda: holding.is_free(holding.make(root))]) == [False]


@contextlib.contextmanager
def orphan(holding: Holding, fork: Callable[[Callable[[], object]], int], root: Path) -> Iterator[float]:
    """A process holds it, forks, and is killed; its child lives on through the block. When it was killed."""

    def hold_and_fork(talk: Channel) -> None:
        mine = holding.make(root)
        holding.take(mine)
        talk.say(fork(lambda: time.sleep(100)))
        time.sleep(100)

    with other_process(hold_and_fork) as parent:
        child = parent.hear()
        try:
            assert not together([lambda: holding.is_free(holding.make(root))])[0]
            yield parent.kill()
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)


@each_holding
@ways
def test_a_child_keeps_nothing_of_its_killed_parents_alive(holding: Holding, fork: Any, root: Path) -> None:
    with orphan(holding, fork, root) as struck:
        handle = holding.make(root)
        eventually(lambda: holding.is_free(handle))
        soon(f"{holding.name} was free after its holder's death, though a child lives, in", struck)


def test_a_child_that_is_another_party_meets_its_parent_at_a_barrier(root: Path) -> None:
    barrier, step = Barrier(root, "x", 2), DoubleBarrier(root, "x", 1)
    step.enter()

    def child(talk: Channel) -> None:
        talk.say((barrier.wait(), step.inside))
        talk.say(barrier.wait())

    with other_process(child) as other:
        place = barrier.wait()
        assert other.hear() == (1 - place, False)
        place = barrier.wait()
        assert other.hear() == 1 - place
    assert step.inside
    step.leave()


def test_a_fork_while_other_threads_wait_leaves_the_child_handles_that_work(root: Path) -> None:
    handles = [Lock(root, "x"), RLock(root, "x"), Semaphore(root, "x")]

    def hold(talk: Channel) -> None:
        with Lock(root, "x"), RLock(root, "x"), Semaphore(root, "x"):
            talk.say("held")
            talk.hear()

    def take(handle: Any) -> None:
        with handle:
            pass

    def child(talk: Channel) -> None:
        talk.hear()
        for handle in handles:
            assert handle.acquire(timeout=30)
        talk.say("had all")

    with other_process(hold) as holder:
        holder.hear()
        waiting = [threading.Thread(target=take, args=(handle,)) for handle in handles]
        for thread in waiting:
            thread.start()
        time.sleep(0.05)
        with other_process(child) as other:
            holder.tell()
            for thread in waiting:
                thread.join(30)
            other.tell()
            assert other.hear() == "had all"


@files
def test_a_fork_while_another_thread_makes_what_all_buckets_share_leaves_the_child_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11 guards a functools.cached_property by a lock, which the child would find taken for ever."""
    begun, forked, real = threading.Event(), threading.Event(), MultiAppend.__init__

    def slowly(self: MultiAppend, *arguments: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            forked.wait(30)
        real(self, *arguments)

    monkeypatch.setattr(MultiAppend, "__init__", slowly)
    db = PickleShareDB(root)
    thread = threading.Thread(target=db.hset, args=("c", "thread", 1))
    thread.start()
    assert begun.wait(30)

    def child(talk: Channel) -> None:
        db.hset("c", "child", 2)
        talk.say(db.hget("c", "child"))

    with other_process(child) as other:
        forked.set()
        assert other.hear() == 2
    thread.join()
    assert db.hdict("c") == {"thread": 1, "child": 2}


@files
def test_a_fork_while_another_thread_opens_a_lock_does_not_keep_it_locked(root: Path) -> None:
    """The child must not have a copy of a descriptor that nobody knows of yet."""

    def hold_and_fork(talk: Channel) -> None:
        lock, opened, forked = Lock(root, "x"), threading.Event(), threading.Event()
        open_file = os.open

        def open_slowly(path: Any, *rest: Any) -> int:
            fd = open_file(path, *rest)
            if str(path).endswith("lock%2Fx"):
                opened.set()
                forked.wait(0.3)  # in vain if a fork waits for us
            return fd

        os.open = open_slowly  # type: ignore[assignment]
        thread = threading.Thread(target=lock.acquire)
        thread.start()
        opened.wait()
        talk.say(by_fork(lambda: time.sleep(100)))
        forked.set()
        thread.join()
        talk.say("held")
        time.sleep(100)

    with other_process(hold_and_fork) as parent:
        child = parent.hear()
        assert parent.hear() == "held"
        try:
            parent.kill()
            assert Lock(root, "x").acquire(timeout=3)
        finally:
            os.kill(child, signal.SIGKILL)
