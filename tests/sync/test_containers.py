"""Two containers that share a directory, host name, boot and each other's pids: who lives is never taken for dead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from psync import Barrier, Lock
from psync.engine.contract.values import Alive
from psync.engine.system.process_identity import examine, myself
from tests.support import ENGINE
from tests.sync.containers import Container, way
from tests.sync.other_process import eventually, soon

at_once = pytest.mark.skipif(bool(ENGINE), reason="in another container a lease tells who is dead")


@pytest.fixture(scope="module")
def command() -> list[str]:
    found = way()
    if isinstance(found, str):
        print(found)
        pytest.skip(found)
    return found


@pytest.fixture
def pair(command: list[str], root: Path) -> Iterator[list[Container]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Container(command, root)) for _ in range(2)]


def test_they_look_the_same_but_for_their_namespaces(pair: list[Container]) -> None:
    first, second = (dict(one.facts) for one in pair)
    assert first.pop("namespace") != second.pop("namespace")
    assert first == second and first["pid"] == 1 and first["host"] == os.uname().nodename


def test_a_living_holder_in_another_container_keeps_what_it_holds(pair: list[Container], root: Path) -> None:
    first, second = pair
    assert first.do("keep('lock', Lock(db, 'x')) and lock.acquire()")
    assert first.do("keep('seats', Semaphore(db, 'x')) and seats.acquire()")
    assert first.do("keep('book', ReadWriteLock(db, 'x')) and book.writer.acquire()")
    assert first.do("keep('crew', Group(db, 'x')) and crew.join().number") == 1
    assert first.do("keep('jobs', WorkQueue(db, 'x')) and jobs.put('task') and jobs.get().value") == "task"
    second.do("PickleShareDB(db).sweep()")
    assert "held by pid 1 on " in second.do("repr(Lock(db, 'x'))")
    assert second.do("Lock(db, 'x').acquire(timeout=0.4)") is False
    assert second.do("Semaphore(db, 'x').acquire(timeout=0.4)") is False
    assert second.do("ReadWriteLock(db, 'x').reader.acquire(timeout=0.4)") is False
    assert second.do("len(Group(db, 'x'))") == 1
    assert second.do("[WorkQueue(db, 'x').recover(), WorkQueue(db, 'x').statistics().running]") == [0, 1]
    assert not Lock(root, "x").acquire(timeout=0.1)  # nor does somebody outside take it away


@at_once
def test_what_a_dead_one_held_comes_back_to_the_other_container(pair: list[Container], root: Path) -> None:
    first, second = pair
    first.do("keep('lock', Lock(db, 'x')) and lock.acquire()")
    first.do("keep('seats', Semaphore(db, 'x')) and seats.acquire()")
    first.do("keep('book', ReadWriteLock(db, 'x')) and book.writer.acquire()")
    first.do("keep('crew', Group(db, 'x')) and crew.join().number")
    first.do("keep('jobs', WorkQueue(db, 'x')) and jobs.put('task') and jobs.get().value")
    begun = time.monotonic()
    first.kill()
    assert second.do("Lock(db, 'x').acquire(timeout=30)")
    assert second.do("Semaphore(db, 'x').acquire(timeout=30)")
    assert second.do("ReadWriteLock(db, 'x').reader.acquire(timeout=30)")
    assert second.do("len(Group(db, 'x'))") == 0
    assert second.do("WorkQueue(db, 'x').get(timeout=30).attempt") == 2
    soon("all that a dead container held was had by another one in", begun)


def test_they_meet_at_a_barrier_with_each_other_and_with_the_host(pair: list[Container], root: Path) -> None:
    for container in pair:
        container.do("keep('barrier', Barrier(db, 'x', 3))")
    barrier = Barrier(root, "x", 3)
    for _ in range(3):
        for container in pair:
            container.tell("barrier.wait(timeout=30)")
        assert {barrier.wait(timeout=30), *(container.hear() for container in pair)} == {0, 1, 2}


@at_once
def test_a_barrier_breaks_when_the_party_in_the_other_container_dies_and_only_then(
    pair: list[Container], root: Path
) -> None:
    first, second = pair
    for container in pair:
        container.do("keep('barrier', Barrier(db, 'x', 3))")
        container.tell("barrier.wait(timeout=30)")
    eventually(lambda: Barrier(root, "x", 3).n_waiting == 2)
    time.sleep(0.6)  # they look at each other, and see that both live
    assert Barrier(root, "x", 3).n_waiting == 2
    begun = time.monotonic()
    first.kill()
    with pytest.raises(AssertionError, match=r"a party ended while it waited: pid 1 on "):
        second.hear()
    soon("a barrier broke after a death in another container in", begun)


def test_a_process_of_another_pid_namespace_is_never_proved_dead_by_its_pid() -> None:
    me = myself(0.0)
    assert examine(me) is Alive.YES
    for pid in (1, me.pid, 4_000_000):
        assert examine(me._replace(namespace=me.namespace + 1, pid=pid)) is Alive.UNKNOWN
        assert examine(me._replace(boot="another", pid=pid)) is Alive.UNKNOWN
    assert examine(me._replace(ticks=me.ticks + 1)) is Alive.NO
    assert examine(me._replace(pid=4_190_000)) is Alive.NO
