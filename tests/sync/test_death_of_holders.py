"""Who is killed while it holds something lets go of it: the others go on at once. Who only stands still does not."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from psync import Condition, Election, Group, Lock, LockTimeout, ReadWriteLock, RLock, Semaphore
from tests.sync.kinds import EXCLUSIVE, Exclusive
from tests.sync.other_process import Channel, OtherProcess, eventually, first_to_report, other_process, others, soon


class Held(NamedTuple):
    """What one process holds, and what that keeps another from."""

    name: str
    first: Exclusive
    then: Exclusive


READER = Exclusive("reader", lambda db: ReadWriteLock(db, "x").reader)
WRITER = Exclusive("writer", lambda db: ReadWriteLock(db, "x").writer)
HELD = [
    *[Held(kind.name, kind, kind) for kind in EXCLUSIVE],
    Held("a writer, before a reader", WRITER, READER),
    Held("a reader, before a writer", READER, WRITER),
]
each_held = pytest.mark.parametrize("held", HELD, ids=lambda held: held.name)


def holding(kind: Exclusive, root: Path) -> Callable[[Channel], None]:
    def hold(talk: Channel) -> None:
        handle = kind.make(root)
        assert kind.take(handle)
        talk.say("held")
        talk.hear()
        kind.give(handle)
        talk.say("let go")
        talk.hear()

    return hold


def coming(kind: Exclusive, root: Path, timeout: float | None) -> Callable[[Channel], None]:
    def come(talk: Channel) -> None:
        handle = kind.make(root)
        talk.say("coming")
        assert kind.take(handle, timeout=timeout)
        talk.say(time.monotonic())
        talk.hear()

    return come


@each_held
@pytest.mark.parametrize(
    ("timeout", "reaped"), [(None, True), (60.0, False)], ids=["for ever, gone", "60 seconds, a zombie"]
)
def test_what_a_killed_process_held_is_free_for_who_waits(
    held: Held, timeout: float | None, reaped: bool, root: Path
) -> None:
    with other_process(holding(held.first, root)) as holder:
        holder.hear()
        with other_process(coming(held.then, root, timeout)) as comer:
            comer.hear()
            assert comer.is_silent(0.1)
            struck = holder.kill(reaped=reaped)
            soon(f"{held.name} was had after its holder's death in", struck, comer.hear())


@each_held
def test_what_a_killed_process_held_is_free_for_who_only_tries_once(held: Held, root: Path) -> None:
    mine = held.then.make(root)
    with other_process(holding(held.first, root)) as holder:
        holder.hear()
        assert not held.then.take(mine, timeout=0)
        holder.kill(reaped=False)
        assert held.then.take(mine, timeout=0)


@each_held
def test_a_stopped_process_goes_on_holding(held: Held, root: Path) -> None:
    mine = held.then.make(root)
    with other_process(holding(held.first, root)) as holder:
        holder.hear()
        holder.stop()
        assert not held.then.take(mine, timeout=0.5)
        holder.go_on()
        holder.tell()
        holder.hear()
        assert held.then.take(mine, timeout=30)


def test_a_killed_writer_that_only_waited_keeps_no_reader_out(root: Path) -> None:
    lock = ReadWriteLock(root, "x")

    def wait(talk: Channel) -> None:
        talk.say("waiting")
        lock.writer.acquire()

    assert lock.reader.acquire()
    with other_process(wait) as writer:
        writer.hear()
        eventually(lambda: lock.statistics().waiting_writers)
        struck = writer.kill()
        assert another_reads(root)
        soon("a reader came in after a waiting writer's death in", struck)
    lock.reader.release()


def another_reads(root: Path) -> bool:
    def come(talk: Channel) -> None:
        talk.say(ReadWriteLock(root, "x").reader.acquire(timeout=30))

    with other_process(come) as reader:
        return bool(reader.hear())


def test_all_permits_of_a_killed_process_come_back_and_no_more(root: Path) -> None:
    slots = Semaphore(root, "x", 4)
    assert slots.acquire()

    def hold(talk: Channel) -> None:
        mine = Semaphore(root, "x", 4)
        assert mine.acquire() and mine.acquire() and mine.acquire()
        talk.say("held")
        talk.hear()

    with other_process(hold) as holder:
        holder.hear()
        assert not slots.acquire(blocking=False)
        holder.kill()
    assert [slots.acquire(blocking=False) for _ in range(4)] == [True, True, True, False]


def test_a_signal_that_a_killed_process_took_is_not_given_again(root: Path) -> None:
    """A semaphore that begins at 0: some release what others acquire."""
    signals = Semaphore(root, "x", 0)

    def take(talk: Channel) -> None:
        talk.say(Semaphore(root, "x", 0).acquire())
        talk.hear()

    with other_process(take) as taker:
        signals.release()
        assert taker.hear()
        taker.kill()
    assert not signals.acquire(timeout=0.3)
    signals.release()
    assert signals.acquire(timeout=0)


# -- who leads, who is here ------------------------------------------------------------------------


def test_a_killed_leader_leads_no_more_and_one_of_the_others_does(root: Path) -> None:
    def campaign(talk: Channel) -> None:
        election = Election(root, "chief")
        talk.say("here")
        assert election.campaign()
        talk.say((time.monotonic(), election.token))
        talk.hear()

    election = Election(root, "chief")
    with others(*[campaign] * 3) as candidates:
        for candidate in candidates:
            candidate.hear()
        tokens, struck = [], time.monotonic()
        while candidates:
            leader = first_to_report(candidates)
            since, token = leader.hear()
            soon("another one led in", struck, since)
            assert f"pid {leader.pid} on " in (election.leader() or "")
            tokens.append(token)
            candidates.remove(leader)
            struck = leader.kill()
    assert election.leader() is None
    assert tokens == sorted(set(tokens)) and len(tokens) == 3


def test_a_killed_member_is_no_member(root: Path) -> None:
    crew = Group(root, "crew")
    crew.join("me")

    def join(talk: Channel) -> None:
        talk.say(Group(root, "crew").join("other").number)
        talk.hear()

    with others(join, join) as members:
        numbers = [member.hear() for member in members]
        assert [member.information for member in crew.wait_for(3, timeout=30)] == ["me", "other", "other"]
        members[0].stop()
        assert len(crew) == 3
        struck = members[0].kill(reaped=False)
        assert [member.number for member in crew.members()] == [1, numbers[1]]
        soon("a dead member was left out in", struck)
        members[1].kill()
        assert [member.information for member in crew.members()] == ["me"]
    assert crew.join().number == 1 and len(crew.statistics().members) == 1


# -- what one is told ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lock, RLock])
def test_a_lock_timeout_names_the_holder(kind: Any, root: Path) -> None:
    lock = kind(root, "door")

    def hold(talk: Channel) -> None:
        with kind(root, "door"):
            talk.say("held")
            talk.hear()

    with other_process(hold) as holder:
        holder.hear()
        with pytest.raises(LockTimeout) as raised, lock.hold(timeout=0.02):
            pass
        assert names(str(raised.value), holder) and "'door'" in str(raised.value)
        assert raised.value.lock == "door" and raised.value.waited == 0.02 and names(raised.value.holder, holder)
        assert names(lock.holder(), holder) and names(repr(lock), holder) and names(lock.statistics().holder, holder)
        holder.kill()
        assert lock.holder() is None and lock.statistics() == (False, None) and not lock.locked()


def names(text: str | None, other: OtherProcess) -> bool:
    return re.search(rf"pid {other.pid} on {re.escape(socket.gethostname())}, since \d\d\d\d-", text or "") is not None


def test_everybody_who_uses_a_semaphore_or_waits_for_a_condition_is_named(root: Path) -> None:
    slots, changed = Semaphore(root, "x"), Condition(root, "x")

    def stay(talk: Channel) -> None:
        assert Semaphore(root, "x").acquire()
        condition = Condition(root, "x")
        with condition:
            talk.say("here")
            condition.wait()

    with other_process(stay) as other:
        other.hear()
        eventually(lambda: changed.statistics().waiting)
        assert [names(who, other) for who in (*slots.statistics().holders, *changed.statistics().waiting)] == [True] * 2
