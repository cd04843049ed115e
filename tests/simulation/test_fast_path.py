"""Parties of a barrier that arrive by their slots, and whatever makes them go back to the other way meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest

from psync.engine import MemoryEngine
from psync.engine.contract.register import SlotsRead
from psync.engine.memory.register import MemorySlots
from psync.errors import BrokenBarrierError
from psync.sync import Barrier
from psync.sync.barrier import fast_path
from psync.sync.barrier.fast_path import Arrival, FastPath
from psync.sync.barrier.state import Round, advanced
from tests.simulation.actor import Actor, Stuck
from tests.simulation.explore import Scenario, explore, first_failure
from tests.simulation.schedule import Schedule

PARTIES = 3
ROUNDS = 6


@pytest.fixture(autouse=True)
def slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryEngine, "slots", 8)


class Book:
    """Who came to each round, who passed, and who was told that it is broken."""

    def __init__(self) -> None:
        self.came, self.passed, self.told = Counter[int](), Counter[int](), Counter[int]()
        self.places: set[tuple[int, int]] = set()

    def wait(self, barrier: Barrier, round_: int, timeout: float | None = None) -> bool:
        self.came[round_] += 1
        try:
            place = barrier.wait(timeout)
        except BrokenBarrierError:
            self.told[round_] += 1
            return False
        assert self.came[round_] == PARTIES, "nobody passes alone"
        assert (round_, place) not in self.places
        self.places.add((round_, place))
        self.passed[round_] += 1
        return True

    def check(self) -> None:
        assert not set(self.passed) & set(self.told), "all of a round pass, or none"


def some_steps(engine: MemoryEngine, count: int) -> None:
    for _ in range(count):
        engine.read("elsewhere")


def test_who_was_together_before_comes_by_seats_and_locks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: Counter[str] = Counter()

    def scenario(schedule: Schedule) -> None:
        book = Book()

        def work(engine: MemoryEngine) -> None:
            for round_ in range(ROUNDS):
                assert book.wait(Barrier(engine, "epoch", PARTIES), round_)

        for _ in range(PARTIES):
            schedule.actor(work)
        schedule.run()
        assert book.passed == {round_: PARTIES for round_ in range(ROUNDS)}
        steps.update(Counter(verb for _, _, verb, _ in schedule._trace if verb in ("update", "put a word beside")))
        steps["schedules"] += 1

    explore(scenario, 500)
    seated = (ROUNDS - 1) * PARTIES * steps["schedules"]
    assert steps["put a word beside"] > 0.5 * seated  # who learns late that a round is over does not know its seat


def aborted(schedule: Schedule) -> None:
    book = Book()

    def work(engine: MemoryEngine) -> None:
        barrier = Barrier(engine, "epoch", PARTIES)
        for round_ in range(ROUNDS):
            if not book.wait(barrier, round_):
                assert barrier.broken
                return
            engine.announce("met")

    def abort(engine: MemoryEngine) -> None:
        with engine.watch(["met"]) as watch:
            while book.passed[0] < PARTIES:  # who is told lives then, should whoever aborts be killed
                watch.pause(None)
        some_steps(engine, schedule.random.randrange(60))
        Barrier(engine, "epoch", PARTIES).abort()

    for _ in range(PARTIES):
        schedule.actor(work, mortal=False)
    schedule.actor(abort)
    schedule.run()
    book.check()
    assert all(count == PARTIES for count in (book.passed + book.told).values())


def test_who_aborts_tells_all_or_comes_between_two_rounds() -> None:
    explore(aborted, 2000)


def test_who_is_killed_as_it_closes_the_seats_leaves_all_of_them_counted() -> None:
    explore(aborted, 2000, kills=1, turns=80)


def left_and_replaced(schedule: Schedule) -> None:
    book = Book()
    last = schedule.random.randrange(1, ROUNDS)
    left = False

    def stay(engine: MemoryEngine) -> None:
        barrier = Barrier(engine, "epoch", PARTIES)
        for round_ in range(ROUNDS):
            assert book.wait(barrier, round_)

    def leave(engine: MemoryEngine) -> None:
        nonlocal left
        barrier = Barrier(engine, "epoch", PARTIES)
        for round_ in range(last):
            assert book.wait(barrier, round_)
        barrier.leave()
        left = True
        engine.announce("left")

    def come_instead(engine: MemoryEngine) -> None:
        with engine.watch(["left"]) as watch:
            while not left:
                watch.pause(None)
        barrier = Barrier(engine, "epoch", PARTIES)
        for round_ in range(last, ROUNDS):
            assert book.wait(barrier, round_)

    for job in (stay, stay, leave, come_instead):
        schedule.actor(job)
    schedule.run()
    assert book.passed == {round_: PARTIES for round_ in range(ROUNDS)}


def test_somebody_leaves_and_another_comes_in_its_place() -> None:
    explore(left_and_replaced, 2000)


def mixed(schedule: Schedule) -> None:
    """One has an action, so it always comes in turn; or sometimes."""
    book = Book()
    acted = 0
    always = schedule.random.random() < 0.5

    def act() -> None:
        nonlocal acted
        acted += 1

    def work(engine: MemoryEngine, action: Callable[[], object] | None) -> None:
        barriers = [Barrier(engine, "epoch", PARTIES, action=action), Barrier(engine, "epoch", PARTIES)]
        for round_ in range(ROUNDS):
            assert book.wait(barriers[not always and schedule.random.random() < 0.5], round_)

    schedule.actor(lambda engine: work(engine, act))
    for _ in range(PARTIES - 1):
        schedule.actor(lambda engine: work(engine, None))
    schedule.run()
    assert book.passed == {round_: PARTIES for round_ in range(ROUNDS)}


def test_one_that_comes_in_turn_closes_the_seats_of_all() -> None:
    explore(mixed, 2000)


def too_late(schedule: Schedule) -> None:
    book = Book()

    def work(engine: MemoryEngine) -> None:
        barrier = Barrier(engine, "epoch", PARTIES)
        for round_ in range(ROUNDS):
            some_steps(engine, schedule.random.choice((0, 0, 0, 20)))
            if not book.wait(barrier, round_, timeout=0.15):
                return

    for _ in range(PARTIES):
        schedule.actor(work)
    schedule.run()
    book.check()


def test_a_timeout_breaks_the_round_for_all_of_it_or_comes_too_late() -> None:
    explore(too_late, 1500, pace=0.01, limit=20.0)


def reset(schedule: Schedule) -> None:
    came = told = passed = 0

    def work(engine: MemoryEngine) -> None:
        nonlocal came, told, passed
        barrier = Barrier(engine, "epoch", PARTIES)
        for _ in range(ROUNDS):
            while True:
                came += 1
                try:
                    barrier.wait()
                except BrokenBarrierError:
                    told += 1
                    continue
                passed += 1
                break

    def reset(engine: MemoryEngine) -> None:
        for _ in range(2):
            some_steps(engine, schedule.random.randrange(40))
            Barrier(engine, "epoch", PARTIES).reset()

    for _ in range(PARTIES):
        schedule.actor(work)
    schedule.actor(reset)
    schedule.run()
    assert passed == PARTIES * ROUNDS == came - told


def test_a_reset_tells_who_waits_and_loses_nobody_else() -> None:
    explore(reset, 1500)


def one_is_killed(schedule: Schedule) -> None:
    book = Book()

    def work(engine: MemoryEngine, number: int) -> None:
        barrier = Barrier(engine, "epoch", PARTIES)
        for round_ in range(ROUNDS):
            if not book.wait(barrier, round_):
                assert any(actor.dead for actor in actors)
                return
            actors[number].mortal = True  # from now on the others know that it takes part

    actors: list[Actor] = []
    for number in range(PARTIES):
        actors.append(schedule.actor(lambda engine, number=number: work(engine, number), mortal=False))
    schedule.run()
    book.check()


def test_all_are_told_of_one_that_was_killed() -> None:
    explore(one_is_killed, 2000, kills=2, turns=120)


def test_one_that_is_stopped_and_goes_on_counts_once() -> None:
    explore(left_and_replaced, 1000, stops=2, turns=120)
    explore(mixed, 1000, stops=2, turns=120)


# -- what was planted is found -----------------------------------------------------------------------

SCENARIOS: list[Scenario] = [aborted, left_and_replaced, mixed]


def test_slots_that_are_read_before_they_are_closed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    close, look = MemorySlots.close, MemorySlots.look
    early: dict[int, SlotsRead] = {}

    def late(self: MemorySlots, number: int) -> None:
        early[id(self)] = look(self)
        close(self, number)

    def old(self: MemorySlots) -> SlotsRead:
        return early.pop(id(self), None) or look(self)

    monkeypatch.setattr(MemorySlots, "close", late)
    monkeypatch.setattr(MemorySlots, "look", old)
    first_failure(mixed)


def test_a_look_whose_closing_is_older_than_its_words_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    words = MemorySlots.words

    def torn(self: MemorySlots, slots: Sequence[int]) -> tuple[Sequence[int], int]:
        _, closed = words(self, slots)
        return words(self, slots)[0], closed

    monkeypatch.setattr(MemorySlots, "words", torn)
    first_failure(mixed)


@pytest.mark.parametrize("last", [1 << 40, -1], ids=["it counts", "it does not"])
def test_who_does_not_ask_whether_it_counts_is_found(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    def guess(now: Round, words: Mapping[int, int]) -> Round:
        after = advanced(now, words)
        return after._replace(came=tuple((owner, last, place) for owner, _, place in after.came))

    monkeypatch.setattr(fast_path, "advanced", guess)
    first_failure(mixed)


def test_a_word_that_is_put_without_a_look_behind_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    arrive, put = FastPath.arrive, MemorySlots.put

    def look_first(self: FastPath, parties: int) -> Arrival | None:
        waiting: list[Callable[[], None]] = []
        with monkeypatch.context() as patch:
            patch.setattr(MemorySlots, "put", lambda *what: waiting.append(lambda: put(*what)))
            came = arrive(self, parties)
        for each in waiting:
            each()
        return came

    monkeypatch.setattr(FastPath, "arrive", look_first)
    first_failure(mixed)


def test_one_that_is_last_and_tells_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastPath, "arrive", _never_last(FastPath.arrive))
    assert isinstance(first_failure(mixed)[1], Stuck)


def _never_last(arrive: Callable[[FastPath, int], Arrival | None]) -> Callable[[FastPath, int], Arrival | None]:
    def late(self: FastPath, parties: int) -> Arrival | None:
        came = arrive(self, parties)
        return None if came is None else came._replace(last=False)

    return late
