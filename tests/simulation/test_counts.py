"""Semaphores and counters: never more than so many inside, nothing lost, and what the dead held comes back."""

from __future__ import annotations

import pytest

from psync.engine import MemoryEngine
from psync.sync import BoundedSemaphore, Counter, Semaphore
from tests.simulation.actor import Stuck
from tests.simulation.explore import Scenario, explore, first_failure
from tests.simulation.occupancy import Occupancy
from tests.simulation.planted_bugs import look_before_watching, never_announce, read_then_write
from tests.simulation.schedule import Schedule


def two_at_a_time(schedule: Schedule, kind: type[Semaphore] = Semaphore) -> None:
    room = Occupancy(schedule)

    def work(engine: MemoryEngine) -> None:
        slots = kind(engine, "seats", 2)
        for _ in range(2):
            with slots, room.entered(engine):
                assert len(room) <= 2

    for _ in range(4):
        schedule.actor(work)
    schedule.run()
    slots = kind(schedule.engine, "seats", 2)
    assert [slots.acquire(blocking=False) for _ in range(3)] == [True, True, False], "all came back, and no more"


@pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore])
def test_no_more_are_inside_than_there_are_permits_and_those_of_the_dead_come_back(kind: type[Semaphore]) -> None:
    explore(lambda schedule: two_at_a_time(schedule, kind), 2000, kills=2, turns=60)


def test_a_permit_that_somebody_gave_up_on_is_there_for_the_others() -> None:
    def scenario(schedule: Schedule) -> None:
        room = Occupancy(schedule)

        def work(engine: MemoryEngine) -> None:
            slots = BoundedSemaphore(engine, "seats", 1)
            for seconds in (0.02, 0.06):
                begun = engine.now()
                if slots.acquire(timeout=seconds):
                    with room.entered(engine):
                        assert len(room) == 1
                    slots.release()
                else:
                    assert engine.now() >= begun + seconds
            with slots, room.entered(engine):
                assert len(room) == 1

        for _ in range(3):
            schedule.actor(work)
        schedule.run()

    explore(scenario, 500, kills=1, pace=0.01, limit=3.0, turns=60)


def signals(schedule: Schedule) -> None:
    """Some release what others acquire."""
    released = acquired = 0

    def give(engine: MemoryEngine) -> None:
        nonlocal released
        for number in 1, 2:
            released += number
            Semaphore(engine, "signals", 0).release(number)

    def take(engine: MemoryEngine) -> None:
        nonlocal acquired
        for _ in range(3):
            assert Semaphore(engine, "signals", 0).acquire()
            acquired += 1
            assert acquired <= released

    for job in (give, take, give, take):
        schedule.actor(job)
    schedule.run()
    assert acquired == released == 6


def test_who_waits_for_a_permit_gets_each_that_is_released() -> None:
    explore(signals, 1000)


def test_a_bounded_semaphore_refuses_as_many_releases_as_were_too_many() -> None:
    def scenario(schedule: Schedule) -> None:
        refused = []

        def work(engine: MemoryEngine) -> None:
            slots = BoundedSemaphore(engine, "seats", 2)
            slots.acquire()
            for _ in range(2):
                try:
                    slots.release()
                except ValueError:
                    refused.append(1)

        for _ in range(2):
            schedule.actor(work)
        schedule.run()
        slots = BoundedSemaphore(schedule.engine, "seats", 2)
        assert slots.get_value() == len(refused) == 2

    explore(scenario, 500)


def all_count(schedule: Schedule) -> None:
    begun = added = 0
    answers: list[int] = []

    def add(engine: MemoryEngine) -> None:
        nonlocal begun, added
        for _ in range(3):
            begun += 1
            answers.append(Counter(engine, "done").add())
            added += 1

    def wait(engine: MemoryEngine) -> None:
        assert Counter(engine, "done").wait_for(6) >= 6
        assert begun >= 6

    for job in (wait, add, add, add, wait):
        schedule.actor(job, mortal=job is wait)
    schedule.run()
    assert sorted(answers) == [*range(1, 10)] and Counter(schedule.engine, "done").value == added == 9


def test_a_counter_loses_nothing_and_wakes_who_waits_for_its_value() -> None:
    explore(all_count, 2000, kills=1)


def test_a_killed_add_is_counted_once_or_not_at_all() -> None:
    def scenario(schedule: Schedule) -> None:
        begun = added = 0

        def add(engine: MemoryEngine) -> None:
            nonlocal begun, added
            for _ in range(3):
                begun += 1
                Counter(engine, "done").add()
                added += 1

        for _ in range(3):
            schedule.actor(add)
        schedule.run()
        assert added <= Counter(schedule.engine, "done").value <= begun

    explore(scenario, 1000, kills=2, turns=15)


# -- what was planted is found -----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [two_at_a_time, signals, all_count])
def test_what_is_read_and_then_written_is_found(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    read_then_write(monkeypatch)
    first_failure(scenario)


@pytest.mark.parametrize("scenario", [two_at_a_time, signals, all_count])
def test_who_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    look_before_watching(monkeypatch)
    assert isinstance(first_failure(scenario)[1], Stuck)


@pytest.mark.parametrize("scenario", [two_at_a_time, signals])
def test_a_release_that_tells_nobody_is_found(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    never_announce(monkeypatch)
    assert isinstance(first_failure(scenario)[1], Stuck)


class Hasty(Semaphore):
    """Tells of the permit first, and then frees it."""

    def release(self, n: int = 1) -> None:
        self._engine.announce(self._freed)
        announce, self._freed = self._freed, "nobody watches this"
        super().release(n)
        self._freed = announce


def test_a_semaphore_that_announces_before_it_changes_is_found() -> None:
    assert isinstance(first_failure(lambda schedule: two_at_a_time(schedule, Hasty))[1], Stuck)


class Generous(Semaphore):
    """Looks whether there is a permit, and takes one, in two changes."""

    def _take(self) -> bool:
        if not self._shared.look().free:
            return False
        self._shared.change(lambda permits: permits._replace(free=permits.free - 1))
        return True


def test_a_semaphore_that_looks_before_it_takes_is_found() -> None:
    assert not isinstance(first_failure(lambda schedule: two_at_a_time(schedule, Generous))[1], Stuck)
