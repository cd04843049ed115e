"""Who meets others at a barrier, a condition or a latch, and is killed: the others learn of it at once, and of whom."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from psync import Barrier, BrokenBarrierError, Condition, DoubleBarrier, Lock
from tests.sync.other_process import Channel, OtherProcess, eventually, other_process, others, soon


def comes_each_time_it_is_told(root: Path, parties: int) -> Callable[[Channel], None]:
    """Says what became of each wait: its place, or the error, and when."""

    def come(talk: Channel) -> None:
        barrier = Barrier(root, "x", parties)
        while True:
            timeout = talk.hear()
            try:
                talk.say((barrier.wait(timeout), time.monotonic()))
            except BrokenBarrierError as error:
                talk.say((error, time.monotonic()))

    return come


def meet_once(parties: list[OtherProcess]) -> None:
    for party in parties:
        party.tell()
    assert {party.hear()[0] for party in parties} == set(range(len(parties)))


def until_waiting(barrier: Barrier, count: int) -> None:
    eventually(lambda: barrier.n_waiting >= count)


def assert_names(error: object, dead: OtherProcess) -> None:
    assert isinstance(error, BrokenBarrierError), error
    whom = rf"pid {dead.pid} on {re.escape(socket.gethostname())}, since \d\d\d\d-"
    assert error.barrier == "x" and len(error.who) == 1 and re.match(whom, error.who[0])
    assert re.search(whom, str(error)) and "reset()" in str(error)


@pytest.mark.parametrize("met_before", [False, True], ids=["in the first round", "in a later round"])
@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "a zombie"])
def test_a_barrier_breaks_when_one_that_waits_in_it_is_killed(root: Path, met_before: bool, reaped: bool) -> None:
    barrier = Barrier(root, "x", 4)
    with others(*[comes_each_time_it_is_told(root, 4)] * 4) as parties:
        if met_before:
            meet_once(parties)
        for party in parties[:3]:
            party.tell()
        until_waiting(barrier, 3)
        struck = parties[0].kill(reaped=reaped)
        for party in parties[1:3]:
            error, when = party.hear()
            soon("a barrier broke after the death of one that waited in", struck, when)
            assert_names(error, parties[0])
            assert "a party ended while it waited" in str(error)
        assert barrier.broken and "a party ended" in (barrier.statistics().broken or "")
        parties[3].tell()  # who comes later learns of it, too
        assert_names(parties[3].hear()[0], parties[0])


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "a zombie"])
def test_a_barrier_breaks_when_one_that_came_last_time_is_killed_before_it_comes(root: Path, reaped: bool) -> None:
    with others(*[comes_each_time_it_is_told(root, 3)] * 3) as parties:
        meet_once(parties)
        assert len(Barrier(root, "x", 3).statistics().missing) == 3
        parties[0].tell()
        until_waiting(Barrier(root, "x", 3), 1)
        assert len(Barrier(root, "x", 3).statistics().missing) == 2
        struck = parties[2].kill(reaped=reaped)
        error, when = parties[0].hear()
        soon("a barrier broke after the death of one that was expected in", struck, when)
        assert_names(error, parties[2])
        parties[1].tell()
        assert_names(parties[1].hear()[0], parties[2])


def test_one_that_was_killed_between_rounds_is_missed_by_who_comes_after(root: Path) -> None:
    with others(*[comes_each_time_it_is_told(root, 2)] * 2) as parties:
        meet_once(parties)
        parties[1].kill()
        begun = time.monotonic()
        parties[0].tell()
        error, when = parties[0].hear()
        soon("one that came learnt of a death before that in", begun, when)
        assert_names(error, parties[1])


def test_a_barrier_that_was_broken_by_a_death_works_again_after_a_reset(root: Path) -> None:
    with others(*[comes_each_time_it_is_told(root, 2)] * 2) as parties:
        meet_once(parties)
        parties[0].tell()
        until_waiting(Barrier(root, "x", 2), 1)
        parties[1].kill()
        assert_names(parties[0].hear()[0], parties[1])
        Barrier(root, "x", 2).reset()
        with other_process(comes_each_time_it_is_told(root, 2)) as substitute:
            for _ in range(3):
                meet_once([parties[0], substitute])


def test_a_substitute_that_came_in_time_fills_the_place_of_one_that_was_killed(root: Path) -> None:
    """Who is missed is missed only as long as the round can't be filled without it."""
    with others(*[comes_each_time_it_is_told(root, 3)] * 3) as parties:
        meet_once(parties)
        parties[2].kill()
        with others(*[comes_each_time_it_is_told(root, 3)] * 1) as (substitute,):
            substitute.tell()
            until_waiting(Barrier(root, "x", 3), 1)
            parties[0].tell()
            until_waiting(Barrier(root, "x", 3), 2)
            parties[1].tell()
            assert {party.hear()[0] for party in (parties[0], parties[1], substitute)} == {0, 1, 2}


def test_a_stopped_party_is_waited_for(root: Path) -> None:
    with others(*[comes_each_time_it_is_told(root, 3)] * 3) as parties:
        meet_once(parties)
        parties[0].stop()  # before it comes
        parties[1].tell()
        until_waiting(Barrier(root, "x", 3), 1)
        parties[1].stop()  # while it waits
        parties[2].tell()
        assert parties[2].is_silent(0.8)
        for party in parties[:2]:
            party.go_on()
        parties[0].tell()
        assert {party.hear()[0] for party in parties} == {0, 1, 2}


def test_a_barrier_breaks_when_the_one_that_runs_the_action_is_killed(root: Path) -> None:
    def act(talk: Channel) -> None:
        def action() -> None:
            talk.say("acting")
            time.sleep(100)

        talk.hear()
        Barrier(root, "x", 2, action=action).wait()

    with other_process(comes_each_time_it_is_told(root, 2)) as party, other_process(act) as actor:
        party.tell()
        until_waiting(Barrier(root, "x", 2), 1)
        actor.tell()  # so it comes last
        assert actor.hear() == "acting"
        assert party.is_silent(0.3)
        struck = actor.kill()
        error, when = party.hear()
        soon("a barrier broke after the death of one that ran the action in", struck, when)
        assert_names(error, actor)


def test_who_dies_inside_a_double_barrier_is_missed_at_the_way_out(root: Path) -> None:
    def work(talk: Channel) -> None:
        step = DoubleBarrier(root, "x", 3)
        step.enter()
        talk.say("inside")
        talk.hear()
        try:
            talk.say((step.leave(), time.monotonic()))
        except BrokenBarrierError as error:
            talk.say((error, time.monotonic()))
        talk.hear()

    with others(*[work] * 3) as parties:
        assert [party.hear() for party in parties] == ["inside"] * 3
        parties[0].tell()
        eventually(lambda: len(DoubleBarrier(root, "x", 3).statistics().waiting) >= 1)
        struck = parties[1].kill()
        error, when = parties[0].hear()
        soon("a double barrier broke after a death inside in", struck, when)
        assert_names(error, parties[1])
        parties[2].tell()
        assert_names(parties[2].hear()[0], parties[1])


# -- conditions ------------------------------------------------------------------------------------


def waits(root: Path) -> Callable[[Channel], None]:
    def wait(talk: Channel) -> None:
        condition = Condition(root, "x")
        with condition:
            talk.say("waiting")
            condition.wait()
        talk.say(time.monotonic())
        talk.hear()

    return wait


def in_the_row(root: Path, *waiters: OtherProcess) -> None:
    """All of them wait, in any order."""
    for waiter in waiters:
        assert waiter.hear() == "waiting"
    eventually(lambda: len(Condition(root, "x").statistics().waiting) >= len(waiters))


def test_a_notification_passes_over_one_that_was_killed_while_it_waited(root: Path) -> None:
    condition = Condition(root, "x")
    with other_process(waits(root)) as dead:
        in_the_row(root, dead)
        with other_process(waits(root)) as living:
            assert living.hear() == "waiting"
            eventually(lambda: len(condition.statistics().waiting) >= 2)
            dead.kill(reaped=False)
            with condition:
                condition.notify()
                begun = time.monotonic()
            soon("a notification came past a dead one in", begun, living.hear())
    assert condition.statistics().waiting == ()


def test_a_notification_of_one_that_is_killed_before_it_goes_on_goes_to_the_next(root: Path) -> None:
    condition = Condition(root, "x")
    with other_process(waits(root)) as first:
        in_the_row(root, first)
        with other_process(waits(root)) as second:
            assert second.hear() == "waiting"
            eventually(lambda: len(condition.statistics().waiting) >= 2)
            first.stop()
            with condition:
                condition.notify()
            assert second.is_silent(0.8), "a stopped process's notification was given away"
            struck = first.kill()
            soon("a dead one's notification came to the next in", struck, second.hear())


def test_one_that_is_killed_with_the_lock_after_its_wait_leaves_it_free(root: Path) -> None:
    def wait_and_stay(talk: Channel) -> None:
        condition = Condition(root, "x", Lock(root, "its lock"))
        with condition:
            talk.say("waiting")
            condition.wait()
            talk.say("awake")
            talk.hear()

    condition = Condition(root, "x", Lock(root, "its lock"))
    with other_process(wait_and_stay) as other:
        in_the_row(root, other)
        with condition:
            condition.notify_all()
        assert other.hear() == "awake"
        assert not condition.acquire(blocking=False)
        struck = other.kill()
        assert condition.acquire(timeout=30)
        soon("a condition's lock was had after its holder's death in", struck)
        condition.release()
