"""Who only looks sees what there is to be had, before anybody has tried: what the dead held is free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psync import Barrier, Condition, Election, Group, Lock, ReadWriteLock, Semaphore
from tests.sync.other_process import Channel, eventually, other_process


def test_permits_of_the_dead_are_free(root: Path) -> None:
    def hold(talk: Channel) -> None:
        slots = Semaphore(root, "x", 3)
        talk.say((slots.acquire(), slots.acquire(), slots.acquire()))
        talk.hear()

    slots = Semaphore(root, "x", 3)
    with other_process(hold) as other:
        assert other.hear() == (True, True, True)
        assert slots.get_value() == 0 and slots.locked() and len(slots.statistics().holders) == 1
        other.kill()
    assert slots.get_value() == 3 and not slots.locked()
    assert slots.statistics() == (3, ()) and repr(slots) == "<Semaphore 'x' 3 free, 0 held>"


def test_a_dead_reader_writer_or_waiting_writer_is_none(root: Path) -> None:
    def inside(role: str) -> Any:
        def hold(talk: Channel) -> None:
            assert getattr(ReadWriteLock(root, role), role).acquire()
            talk.say("inside")
            talk.hear()

        return hold

    for role in ("reader", "writer"):
        book = ReadWriteLock(root, role)
        with other_process(inside(role)) as other:
            other.hear()
            assert getattr(book, role).locked()
            other.kill()
        assert not book.reader.locked() and not book.writer.locked()
        assert book.statistics() == (None, (), ()) and "0 reading, 0 waiting to write" in repr(book)


def test_a_dead_waiter_does_not_wait(root: Path) -> None:
    def wait(talk: Channel) -> None:
        with Condition(root, "x") as _:
            pass
        condition = Condition(root, "x")
        with condition:
            condition.wait()

    condition = Condition(root, "x")
    with other_process(wait) as other:
        eventually(lambda: condition.statistics().waiting)
        other.kill()
    assert condition.statistics().waiting == () and "<Condition 'x' 0 waiting" in repr(condition)


def test_a_dead_party_does_not_wait(root: Path) -> None:
    barrier = Barrier(root, "x", 3)
    with other_process(lambda talk: barrier.wait()) as other:
        eventually(lambda: barrier.n_waiting == 1)
        other.kill()
    assert barrier.n_waiting == 0 and "0 of 3 waiting" in repr(barrier)
    assert not barrier.broken


def test_a_dead_holder_leader_or_member_is_none(root: Path) -> None:
    def hold(talk: Channel) -> None:
        handles = Lock(root, "x"), Election(root, "x"), Group(root, "x")
        talk.say((handles[0].acquire(), handles[1].campaign(), handles[2].join().number))
        talk.hear()

    with other_process(hold) as other:
        assert other.hear() == (True, True, 1)
        other.kill()
    assert not Lock(root, "x").locked() and Election(root, "x").leader() is None and not Group(root, "x").members()
