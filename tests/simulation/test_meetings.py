"""Barriers: nobody passes alone, all pass then, and when somebody is missing for good all are told."""

from __future__ import annotations

from collections import Counter

import pytest

from psync.engine import MemoryEngine
from psync.errors import BrokenBarrierError
from psync.sync import Barrier, DoubleBarrier
from tests.simulation.actor import Actor, Stuck
from tests.simulation.explore import Scenario, explore, first_failure
from tests.simulation.planted_bugs import look_before_watching, never_announce, read_then_write
from tests.simulation.schedule import Schedule

ROUNDS = 3
PARTIES = 3


@pytest.fixture(autouse=True, params=[0, 8], ids=["in turn", "by slots"])
def slots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryEngine, "slots", request.param)


def rounds(schedule: Schedule) -> None:
    came, passed, told = Counter[int](), Counter[int](), Counter[int]()
    places: set[tuple[int, int]] = set()

    def work(engine: MemoryEngine, number: int) -> None:
        barrier = Barrier(engine, "epoch", PARTIES)
        for round_ in range(ROUNDS):
            came[round_] += 1
            try:
                place = barrier.wait()
            except BrokenBarrierError as error:
                told[round_] += 1
                assert error.who and all(one.startswith(dead_ones()) for one in error.who)
                return
            assert came[round_] == PARTIES, "all were there"
            assert (round_, place) not in places
            places.add((round_, place))
            passed[round_] += 1
            actors[number].mortal = True  # from now on the others know that it takes part

    actors: list[Actor] = []
    for number in range(PARTIES):
        actors.append(schedule.actor(lambda engine, number=number: work(engine, number), mortal=False))
    who = {actor: actor.engine.describe(actor.engine.owner()) for actor in actors}
    dead_ones = lambda: tuple(who[actor] for actor in actors if actor.dead)  # noqa: E731
    schedule.run()
    assert not set(passed) & set(told), "all of a round pass, or none"
    if not any(actor.dead for actor in actors):
        assert passed == {round_: PARTIES for round_ in range(ROUNDS)}


def test_nobody_passes_a_barrier_alone_and_all_are_told_who_died() -> None:
    explore(rounds, 1500, kills=2, turns=60)


def test_the_action_is_called_once_a_round_before_anybody_goes_on() -> None:
    def scenario(schedule: Schedule) -> None:
        came = acted = passed = 0

        def act() -> None:
            nonlocal acted
            acted += 1
            assert came == acted * PARTIES and passed == (acted - 1) * PARTIES
            schedule.engine.read("elsewhere")

        def work(engine: MemoryEngine) -> None:
            nonlocal came, passed
            barrier = Barrier(engine, "epoch", PARTIES, action=act)
            for round_ in range(2):
                came += 1
                barrier.wait()
                assert acted == round_ + 1
                passed += 1
                meeting.wait()

        for _ in range(PARTIES):
            schedule.actor(work)
        meeting = Meeting(schedule)
        schedule.run()
        assert acted == 2 and passed == 2 * PARTIES

    explore(scenario, 500)


class Meeting:
    """All actors meet here between two rounds, by looking at a number of the test's own."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._came = 0

    def wait(self) -> None:
        engine = self._schedule.engine
        self._came += 1
        due = -(-self._came // PARTIES) * PARTIES
        engine.announce("meeting")
        with engine.watch(["meeting"]) as watch:
            while self._came < due:
                watch.pause(None)


def test_who_aborts_tells_all() -> None:
    def scenario(schedule: Schedule) -> None:
        told: list[int] = []

        def work(engine: MemoryEngine) -> None:
            barrier = Barrier(engine, "epoch", PARTIES)
            for round_ in range(ROUNDS):
                try:
                    barrier.wait()
                except BrokenBarrierError:
                    told.append(round_)
                    assert barrier.broken
                    return

        def abort(engine: MemoryEngine) -> None:
            Barrier(engine, "epoch", PARTIES).abort()

        for _ in range(PARTIES):
            schedule.actor(work)
        schedule.actor(abort)
        schedule.run()
        assert len(told) in (0, PARTIES) and len(set(told)) <= 1
        assert Barrier(schedule.engine, "epoch", PARTIES).broken

    explore(scenario, 500)


def test_a_reset_tells_who_waits_and_makes_a_new_barrier_for_who_comes() -> None:
    def scenario(schedule: Schedule) -> None:
        came = resets = told = passed = 0

        def work(engine: MemoryEngine) -> None:
            nonlocal came, told, passed
            barrier = Barrier(engine, "epoch", PARTIES)
            while True:
                came += 1
                try:
                    barrier.wait()
                except BrokenBarrierError:
                    assert resets
                    told += 1
                    continue
                passed += 1
                return

        def reset(engine: MemoryEngine) -> None:
            nonlocal resets
            resets += 1
            Barrier(engine, "epoch", PARTIES).reset()

        for _ in range(PARTIES):
            schedule.actor(work)
        schedule.actor(reset)
        schedule.run()
        assert told < PARTIES and passed == PARTIES == came - told

    explore(scenario, 500)


def test_a_timeout_breaks_the_round_for_all_of_it_or_comes_too_late() -> None:
    def scenario(schedule: Schedule) -> None:
        passed = told = 0

        def work(engine: MemoryEngine) -> None:
            nonlocal passed, told
            for _ in range(schedule.random.randrange(8)):
                engine.read("elsewhere")
            try:
                Barrier(engine, "epoch", PARTIES, timeout=0.15).wait()
                passed += 1
            except BrokenBarrierError:
                told += 1

        for _ in range(PARTIES):
            schedule.actor(work)
        schedule.run()
        assert (passed, told) in ((PARTIES, 0), (0, PARTIES))

    explore(scenario, 500, pace=0.01, limit=2.0)


def in_and_out(schedule: Schedule) -> None:
    entering, leaving, entered, left, told = (Counter[int]() for _ in range(5))

    def work(engine: MemoryEngine, number: int) -> None:
        step = DoubleBarrier(engine, "step", PARTIES)
        for round_ in range(2):
            try:
                entering[round_] += 1
                step.enter()
                entered[round_] += 1
                assert entering[round_] == PARTIES
                assert not left[round_]
                actors[number].mortal = True
                engine.read("elsewhere")
                leaving[round_] += 1
                step.leave()
                left[round_] += 1
                assert leaving[round_] == PARTIES
            except BrokenBarrierError:
                told[round_] += 1
                assert any(actor.dead for actor in actors)
                return

    actors: list[Actor] = []
    for number in range(PARTIES):
        actors.append(schedule.actor(lambda engine, number=number: work(engine, number), mortal=False))
    schedule.run()
    if not any(actor.dead for actor in actors):
        assert left == {0: PARTIES, 1: PARTIES}


def test_all_are_inside_together_and_nobody_leaves_before_the_others_want_to() -> None:
    explore(in_and_out, kills=1, turns=70)


# -- what was planted is found -----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [rounds, in_and_out])
def test_what_is_read_and_then_written_is_found(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    read_then_write(monkeypatch)
    first_failure(scenario)


@pytest.mark.parametrize("scenario", [rounds, in_and_out])
def test_who_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    look_before_watching(monkeypatch)
    assert isinstance(first_failure(scenario)[1], Stuck)


def test_a_last_one_that_tells_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    never_announce(monkeypatch)
    assert isinstance(first_failure(rounds)[1], Stuck)


def test_a_barrier_that_does_not_miss_the_dead_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Barrier, "_look_for_dead", lambda self, number, me: None)
    assert isinstance(first_failure(rounds, kills=2, turns=60)[1], Stuck)
