"""Events, conditions and latches: whoever should go on goes on, without waiting for a look by itself."""

from __future__ import annotations

import pytest

from psync.engine import MemoryEngine
from psync.sync import Condition, Event, Latch, Lock
from tests.simulation.actor import Actor, Stuck
from tests.simulation.explore import Scenario, explore, first_failure
from tests.simulation.planted_bugs import look_before_watching, never_announce, read_then_write
from tests.simulation.schedule import Schedule


def ping_pong(schedule: Schedule) -> None:
    said: list[str] = []

    def ping(engine: MemoryEngine) -> None:
        for _ in range(3):
            said.append("ping")
            Event(engine, "ping").set()
            Event(engine, "pong").wait()
            Event(engine, "pong").clear()

    def pong(engine: MemoryEngine) -> None:
        for _ in range(3):
            Event(engine, "ping").wait()
            Event(engine, "ping").clear()
            said.append("pong")
            Event(engine, "pong").set()

    schedule.actor(ping)
    schedule.actor(pong)
    schedule.run()
    assert said == ["ping", "pong"] * 3


def test_two_events_pass_a_turn_to_and_fro() -> None:
    explore(ping_pong, 1000)


def test_an_event_lets_all_go_on_who_wait_and_who_come_later() -> None:
    def scenario(schedule: Schedule) -> None:
        up = False

        def wait(engine: MemoryEngine) -> None:
            assert Event(engine, "ready").wait() and up

        def raise_it(engine: MemoryEngine) -> None:
            nonlocal up
            up = True
            Event(engine, "ready").set()

        for _ in range(3):
            schedule.actor(wait)
        schedule.actor(raise_it, mortal=False)
        schedule.run()

    explore(scenario, 1000, kills=1, turns=15)


def test_who_sleeps_when_an_event_is_set_goes_on_though_it_is_cleared_at_once() -> None:
    def scenario(schedule: Schedule) -> None:
        should: set[Actor] = set()
        did: set[Actor] = set()

        def wait(engine: MemoryEngine, number: int) -> None:
            if Event(engine, "ready").wait(timeout=10.0):
                did.add(waiters[number])

        def flash(engine: MemoryEngine) -> None:
            for _ in range(2):
                asleep = {waiter for waiter in waiters if waiter.sleeping}
                Event(engine, "ready").set()
                Event(engine, "ready").clear()
                should.update(asleep)

        waiters = [schedule.actor(lambda engine, number=number: wait(engine, number)) for number in range(2)]
        schedule.actor(flash)
        schedule.run()
        assert should <= did

    explore(scenario, 1000, limit=10.0)


def hand_out(schedule: Schedule) -> None:
    """One token for each; who takes one tells the next, who may die before it takes its own, told in vain."""
    tokens: list[int] = []

    def take(engine: MemoryEngine, number: int) -> None:
        changed = Condition(engine, "changed")
        with changed:
            changed.wait_for(lambda: tokens)
            takers[number].mortal = False
            tokens.pop()
            changed.notify()

    def give(engine: MemoryEngine) -> None:
        changed = Condition(engine, "changed")
        with changed:
            tokens.extend(range(3))
            changed.notify()

    takers = [schedule.actor(lambda engine, number=number: take(engine, number)) for number in range(3)]
    schedule.actor(give, mortal=False)
    schedule.run()
    assert len(tokens) == sum(taker.dead for taker in takers)


def test_each_notice_lets_one_go_on_who_lives() -> None:
    explore(hand_out, 1500, kills=2, turns=40)


def two_conditions(schedule: Schedule) -> None:
    """A place for one thing, with a lock and two conditions, as in every book."""
    place: list[int] = []
    got: list[int] = []

    def put(engine: MemoryEngine, first: int) -> None:
        lock = Lock(engine, "place")
        empty, full = Condition(engine, "empty", lock), Condition(engine, "full", lock)
        for number in range(first, first + 3):
            with lock:
                while place:
                    empty.wait()
                place.append(number)
                full.notify()

    def take(engine: MemoryEngine) -> None:
        lock = Lock(engine, "place")
        empty, full = Condition(engine, "empty", lock), Condition(engine, "full", lock)
        for _ in range(3):
            with lock:
                while not place:
                    full.wait()
                got.append(place.pop())
                assert not place
                empty.notify()

    for job in (take, lambda engine: put(engine, 0), take, lambda engine: put(engine, 3)):
        schedule.actor(job)
    schedule.run()
    assert sorted(got) == [*range(6)]


def test_two_conditions_of_one_lock_lose_and_double_nothing() -> None:
    explore(two_conditions, 1000)


def test_as_many_waits_are_true_as_notices_were_given_whatever_times_out() -> None:
    def scenario(schedule: Schedule) -> None:
        waiting = given = taken = 0

        def wait(engine: MemoryEngine) -> None:
            nonlocal waiting, taken
            changed = Condition(engine, "changed")
            for seconds in (0.05, 0.15):
                with changed:
                    waiting += 1
                    notified = changed.wait(seconds)
                    waiting -= 1
                    taken += notified

        def notify(engine: MemoryEngine) -> None:
            nonlocal given
            changed = Condition(engine, "changed")
            for _ in range(3):
                with changed:
                    given += waiting > given - taken
                    changed.notify()

        for job in (wait, notify, wait):
            schedule.actor(job)
        schedule.run()
        assert taken == given

    explore(scenario, 500, pace=0.01, limit=2.0)


def count_down(schedule: Schedule) -> None:
    steps = 0

    def count(engine: MemoryEngine) -> None:
        nonlocal steps
        for _ in range(2):
            steps += 1
            Latch(engine, "ready", 4).count_down()

    def wait(engine: MemoryEngine) -> None:
        Latch(engine, "ready", 4).wait()
        assert steps == 4
        Latch(engine, "ready", 4).wait()

    for job in (wait, count, wait, count):
        schedule.actor(job, mortal=job is wait)
    schedule.run()


def test_nobody_passes_a_latch_early_and_everybody_passes_it_then() -> None:
    explore(count_down, kills=1, turns=30)


# -- what was planted is found -----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [ping_pong, hand_out, two_conditions, count_down])
def test_who_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    look_before_watching(monkeypatch)
    assert isinstance(first_failure(scenario)[1], Stuck)


def test_what_is_read_and_then_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read_then_write(monkeypatch)
    first_failure(count_down)


def test_a_notice_that_tells_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    never_announce(monkeypatch)
    assert isinstance(first_failure(hand_out)[1], Stuck)


def test_a_notice_that_dies_with_its_receiver_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Condition, "_pass_over_the_dead", lambda self: None)
    assert isinstance(first_failure(hand_out, kills=2, turns=40)[1], Stuck)
