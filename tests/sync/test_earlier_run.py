"""A run that was killed as a whole leaves nothing that stops the next one, which has the same names."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import (
    Barrier,
    BoundedSemaphore,
    BrokenBarrierError,
    Condition,
    Counter,
    DoubleBarrier,
    Election,
    Event,
    Group,
    Latch,
    Lock,
    PickleShareDB,
    ReadWriteLock,
    RLock,
    Semaphore,
)
from tests.support import scaled
from tests.sync.kinds import EXCLUSIVE, Exclusive
from tests.sync.other_process import Channel, OtherProcess, eventually, first_to_report, others, soon

CREW = 4


def kill_at_once(crew: list[OtherProcess]) -> None:
    """All stand still, so that none of them learns of another's death; then all die."""
    for one in crew:
        one.stop()
    for one in crew:
        one.kill()


# -- killed at any moment --------------------------------------------------------------------------


def work(root: Path, rounds: int) -> Callable[[Channel], None]:
    """Every primitive that can be held or waited at, round after round."""

    def run(talk: Channel) -> None:
        barrier, step = Barrier(root, "meet", CREW), DoubleBarrier(root, "step", CREW)
        lock, again, book = Lock(root, "one"), RLock(root, "again"), ReadWriteLock(root, "book")
        slots, few = Semaphore(root, "seats", 2), BoundedSemaphore(root, "few", 3)
        chief, crew, start = Election(root, "chief"), Group(root, "crew"), Latch(root, "start", CREW)
        changed = Condition(root, "changed")
        talk.say("begun")
        with crew:
            start.count_down()
            start.wait()
            for _ in range(rounds):
                barrier.wait()
                with lock, again, again, slots:
                    pass
                with few, book.reader:
                    pass
                with book.writer, changed:
                    changed.wait(timeout=0)
                    changed.notify_all()
                with chief:
                    pass
                with step:
                    assert len(crew.wait_for(CREW, timeout=30)) == CREW
            barrier.wait()
        talk.say("done")
        talk.hear()

    return run


@pytest.mark.parametrize("seed", range(scaled(4)))
def test_a_crew_killed_at_any_moment_is_followed_by_one_that_works_at_once(root: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        with others(*[work(root, 100_000)] * CREW) as crew:
            for one in crew:
                assert one.hear() == "begun"
            time.sleep(chance.uniform(0.0, 0.15))
            if chance.random() < 0.5:
                kill_at_once(crew)
            else:
                for one in crew:
                    one.kill()
        if chance.random() < 0.3:
            PickleShareDB(root).sweep()
    begun = time.monotonic()
    with others(*[work(root, 10)] * CREW) as crew:
        assert [(one.hear(), one.hear()) for one in crew] == [("begun", "done")] * CREW
        soon("a crew after killed ones did ten rounds of everything in", begun)


# -- killed at a chosen moment ---------------------------------------------------------------------


def assert_all_meet(root: Path, kind: Any = Barrier) -> None:
    def meet(talk: Channel) -> None:
        barrier = kind(root, "x", CREW)
        for _ in range(3):
            if kind is Barrier:
                barrier.wait(timeout=30)
            else:
                barrier.enter(timeout=30)
                barrier.leave(timeout=30)
        talk.say("met")

    begun = time.monotonic()
    with others(*[meet] * CREW) as crew:
        assert [one.hear() for one in crew] == ["met"] * CREW
    soon("the next crew met three times in", begun)


@pytest.mark.parametrize("rounds", [0, 1, 2])
@pytest.mark.parametrize("waiting", [1, CREW - 1])
def test_killed_in_the_middle_of_a_round(root: Path, rounds: int, waiting: int) -> None:
    def meet(talk: Channel) -> None:
        barrier = Barrier(root, "x", CREW)
        for _ in range(rounds):
            barrier.wait()
        talk.say("between rounds")
        talk.hear()
        barrier.wait()

    with others(*[meet] * CREW) as crew:
        for one in crew:
            one.hear()
        for one in crew[:waiting]:
            one.tell()
        eventually(lambda: Barrier(root, "x", CREW).n_waiting >= waiting)
        kill_at_once(crew)
    barrier = Barrier(root, "x", CREW)
    assert not barrier.broken
    assert_all_meet(root)


def test_killed_one_after_the_other_so_that_the_last_ones_saw_the_barrier_break(root: Path) -> None:
    def meet(talk: Channel) -> None:
        with contextlib.suppress(BrokenBarrierError):
            Barrier(root, "x", CREW).wait()
        talk.hear()

    with others(*[meet] * (CREW - 1)) as crew:
        eventually(lambda: Barrier(root, "x", CREW).n_waiting >= CREW - 1)
        crew[0].kill()
        eventually(lambda: Barrier(root, "x", CREW).broken)
        for one in crew[1:]:
            one.kill()
    assert not Barrier(root, "x", CREW).broken
    assert_all_meet(root)


def test_killed_while_the_last_one_runs_the_action(root: Path) -> None:
    def meet(talk: Channel) -> None:
        Barrier(root, "x", CREW, action=lambda: (talk.say("acting"), time.sleep(100))).wait()

    with others(*[meet] * CREW) as crew:
        first_to_report(crew)
        kill_at_once(crew)
    assert_all_meet(root)


@pytest.mark.parametrize("leaving", [0, 1, CREW - 1])
def test_killed_inside_a_double_barrier(root: Path, leaving: int) -> None:
    def step(talk: Channel) -> None:
        step = DoubleBarrier(root, "x", CREW)
        step.enter()
        talk.say("inside")
        talk.hear()
        step.leave()

    with others(*[step] * CREW) as crew:
        for one in crew:
            assert one.hear() == "inside"
        for one in crew[:leaving]:
            one.tell()
        eventually(lambda: len(DoubleBarrier(root, "x", CREW).statistics().waiting) >= leaving)
        kill_at_once(crew)
    assert_all_meet(root, DoubleBarrier)


def test_the_next_run_may_be_of_another_number_of_parties(root: Path) -> None:
    def meet(parties: int) -> Callable[[Channel], None]:
        def run(talk: Channel) -> None:
            talk.say("here")
            talk.say(Barrier(root, "x", parties).wait(timeout=30))

        return run

    with others(meet(3), meet(3)) as crew:
        eventually(lambda: Barrier(root, "x", 3).n_waiting >= 2)
        kill_at_once(crew)
    with others(meet(2), meet(2)) as crew:
        assert sorted((one.hear(), one.hear())[1] for one in crew) == [0, 1]


READER = Exclusive("reader", lambda db: ReadWriteLock(db, "x").reader)


@pytest.mark.parametrize("kind", [*EXCLUSIVE, READER], ids=lambda kind: kind.name)
def test_killed_inside(root: Path, kind: Exclusive) -> None:
    """With some who waited to get in, too."""

    def hold(talk: Channel) -> None:
        handle = kind.make(root)
        talk.say("coming")
        kind.take(handle)
        talk.say("held")
        talk.hear()

    with others(*[hold] * CREW) as crew:
        for one in crew:
            assert one.hear() == "coming"
        first_to_report(crew)
        kill_at_once(crew)
    begun = time.monotonic()
    handle = ReadWriteLock(root, "x").writer if kind is READER else kind.make(root)
    assert handle.acquire(timeout=30) if kind.name != "Election" else handle.campaign(timeout=30)
    soon(f"{kind.name} was had by the next run in", begun)


def test_killed_while_they_waited_for_a_condition(root: Path) -> None:
    def wait(talk: Channel) -> None:
        condition = Condition(root, "x")
        with condition:
            talk.say("waiting")
            condition.wait()
            talk.say("awake")

    with others(*[wait] * CREW) as crew:
        eventually(lambda: len(Condition(root, "x").statistics().waiting) >= CREW)
        kill_at_once(crew)
    with others(wait) as (one,):
        assert one.hear() == "waiting"
        condition = Condition(root, "x")
        with condition:
            condition.notify()
        assert one.hear() == "awake"


def test_a_latch_that_was_never_opened_begins_anew_and_one_that_was_stays_open(root: Path) -> None:
    def count(name: str, steps: int) -> Callable[[Channel], None]:
        def run(talk: Channel) -> None:
            talk.say(Latch(root, name, 3).count_down(steps))
            talk.hear()

        return run

    with others(count("closed", 2), count("open", 3)) as crew:
        assert [one.hear() for one in crew] == [1, 0]
        kill_at_once(crew)
    Latch(root, "open", 3).wait(timeout=0)
    assert Latch(root, "closed", 3).count_down() == 2


def test_what_is_a_fact_and_nobodys_stays_as_it_was(root: Path) -> None:
    def leave_facts(talk: Channel) -> None:
        Event(root, "x").set()
        talk.say(Counter(root, "x").add(5))
        talk.hear()

    with others(leave_facts) as crew:
        assert crew[0].hear() == 5
        kill_at_once(crew)
    assert Event(root, "x").wait(timeout=0) and Counter(root, "x").value == 5
