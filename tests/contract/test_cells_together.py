"""The contract of cells where several work at once: one winner, nothing lost, nothing torn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from psync.engine import Engine
from tests.contract.harness import Harness, Job, threads
from tests.contract.payloads import loaded, pickle_of, pickled
from tests.support import scaled

CROWD = 8
Run = Callable[[Sequence[Job]], list[Any]]


@pytest.fixture(params=["threads", "processes"])
def at_once(request: pytest.FixtureRequest, harness: Harness) -> Run:
    """Runs jobs all at once: in threads that share one engine, or in processes."""
    if request.param == "processes":
        return harness.crowd
    return lambda jobs: threads([lambda job=job: job(harness.engine) for job in jobs])


def test_of_many_who_create_a_name_one_wins(harness: Harness, at_once: Run) -> None:
    def job(number: int) -> Job:
        return lambda engine: [engine.create(f"f/{turn}", pickled(number)) for turn in range(scaled(40))]

    wins = at_once([job(number) for number in range(CROWD)])
    for turn, won in enumerate(zip(*wins, strict=True)):
        cell = harness.engine.read(f"f/{turn}")
        assert sum(won) == 1 and cell is not None and loaded(cell.payload) == won.index(True)


def test_of_many_who_delete_a_name_one_wins(harness: Harness, at_once: Run) -> None:
    for turn in range(scaled(40)):
        harness.engine.write(f"f/{turn}", pickled(turn))
    wins = at_once([lambda engine: [engine.delete(f"f/{turn}") for turn in range(scaled(40))]] * CROWD)
    assert all(sum(won) == 1 for won in zip(*wins, strict=True))
    assert list(harness.engine.list()) == []


def test_of_many_who_pop_a_name_one_gets_the_value(harness: Harness, at_once: Run) -> None:
    for turn in range(scaled(40)):
        harness.engine.write(f"f/{turn}", pickled(turn))
    got = at_once([lambda engine: [engine.pop(f"f/{turn}") for turn in range(scaled(40))]] * CROWD)
    for turn, cells in enumerate(zip(*got, strict=True)):
        assert [loaded(cell.payload) for cell in cells if cell is not None] == [turn]


def test_of_many_who_move_a_name_one_wins(harness: Harness, at_once: Run) -> None:
    for turn in range(scaled(40)):
        harness.engine.write(f"f/{turn}", pickled(turn))

    def job(number: int) -> Job:
        return lambda engine: [engine.move(f"f/{turn}", f"g{number}/{turn}") for turn in range(scaled(40))]

    wins = at_once([job(number) for number in range(CROWD)])
    for turn, won in enumerate(zip(*wins, strict=True)):
        assert sum(won) == 1
        cell = harness.engine.read(f"g{won.index(True)}/{turn}")
        assert cell is not None and loaded(cell.payload) == turn
    assert len(list(harness.engine.list())) == scaled(40)


def test_of_many_who_move_to_one_name_one_wins_and_the_others_keep_theirs(harness: Harness, at_once: Run) -> None:
    for number in range(CROWD):
        for turn in range(scaled(25)):
            harness.engine.write(f"f{number}/{turn}", pickled(number))

    def job(number: int) -> Job:
        return lambda engine: [engine.move(f"f{number}/{turn}", f"g/{turn}") for turn in range(scaled(25))]

    wins = at_once([job(number) for number in range(CROWD)])
    for turn, won in enumerate(zip(*wins, strict=True)):
        cell = harness.engine.read(f"g/{turn}")
        assert sum(won) == 1 and cell is not None and loaded(cell.payload) == won.index(True)
        left = [harness.engine.read(f"f{number}/{turn}") is None for number in range(CROWD)]
        assert left == list(won)


@pytest.mark.parametrize("padding", [0, 6000])
def test_no_update_is_lost(harness: Harness, at_once: Run, padding: int) -> None:
    def count(old: bytes | None) -> bytes:
        return pickled((loaded(old)[0] + 1 if old else 1, b"." * padding))

    at_once([lambda engine: [engine.update("n", count) for _ in range(scaled(50))]] * 6)
    cell = harness.engine.read("n")
    assert cell is not None and loaded(cell.payload)[0] == 6 * scaled(50)


def test_no_update_is_lost_between_two_pops(harness: Harness, at_once: Run) -> None:
    def counting(engine: Engine) -> int:
        for _ in range(scaled(60)):
            engine.update("n", lambda old: pickled(loaded(old) + 1 if old else 1))
        return 0

    def popping(engine: Engine) -> int:
        cells = [engine.pop("n") for _ in range(scaled(120))]
        return sum(loaded(cell.payload) for cell in cells if cell is not None)

    popped = at_once([counting, counting, counting, popping, popping])
    rest = harness.engine.pop("n")
    assert sum(popped) + (loaded(rest.payload) if rest else 0) == 3 * scaled(60)


def test_what_many_move_and_pop_ends_up_in_one_place(harness: Harness, at_once: Run) -> None:
    count = scaled(150)

    def create(who: int) -> Job:
        return lambda engine: [(who, turn) for turn in range(count) if engine.create("a", pickled((who, turn)))]

    def move(who: int) -> Job:
        return lambda engine: sum(engine.move("a", f"moved/{who}/{turn}") for turn in range(count))

    def pop(engine: Engine) -> object:
        cells = [engine.pop("a") for _ in range(count)]
        return [loaded(cell.payload) for cell in cells if cell is not None]

    made1, made2, moved1, moved2, popped1, popped2 = at_once([create(1), create(2), move(1), move(2), pop, pop])
    names = list(harness.engine.list())
    left = [loaded(cell.payload) for cell in map(harness.engine.read, names) if cell is not None]
    assert sorted(popped1 + popped2 + left) == sorted(made1 + made2)
    assert len(set(names) - {"a"}) == moved1 + moved2


def test_who_created_and_who_deleted_add_up(harness: Harness, at_once: Run) -> None:
    def mixed(engine: Engine) -> tuple[int, int]:
        created = deleted = 0
        for turn in range(scaled(60)):
            created += engine.create("a", pickled(turn))
            deleted += engine.delete("a")
        return created, deleted

    results = at_once([mixed] * 4)
    created, deleted = (sum(result[which] for result in results) for which in (0, 1))
    assert created - deleted == (harness.engine.read("a") is not None)


def test_a_name_that_is_only_overwritten_is_never_torn_mixed_or_missing(harness: Harness, at_once: Run) -> None:
    payloads = [pickle_of(size, seed) for size in (30, 3000, 4077, 4096, 9000, 200_000) for seed in (1, 2)]
    good = set(payloads)
    harness.engine.write("a", payloads[0])

    def writing(engine: Engine) -> int:
        for turn in range(scaled(150)):
            engine.write("a", payloads[turn % len(payloads)])
        return 0

    def reading(engine: Engine) -> int:
        known, wrong = None, 0
        for _ in range(scaled(300)):
            known = engine.read("a", known)
            wrong += known is None or known.payload not in good
        return wrong

    assert at_once([writing, writing, reading, reading]) == [0, 0, 0, 0]


def test_a_reader_never_goes_back_in_time(harness: Harness, at_once: Run) -> None:
    harness.engine.write("n", pickled(0))

    def counting(engine: Engine) -> bool:
        for turn in range(1, scaled(400) + 1):
            engine.write("n", pickled(turn))
        return True

    def watching(engine: Engine) -> bool:
        seen, known = [], None
        for _ in range(scaled(400)):
            known = engine.read("n", known)
            seen.append(loaded(known.payload) if known else -1)
        return seen == sorted(seen) and seen[0] >= 0

    assert all(at_once([counting, watching, watching]))


def test_a_listing_shows_all_that_stayed_while_others_came_and_went(harness: Harness, at_once: Run) -> None:
    stay = {f"f/{number}/stays" for number in range(30)}
    for name in stay:
        harness.engine.write(name, pickled(1))

    def churning(engine: Engine) -> bool:
        for turn in range(scaled(100)):
            engine.write(f"f/{turn % 30}/{turn}", pickled(1))
            engine.delete(f"f/{turn % 30}/{turn}")
        return True

    def listing(engine: Engine) -> bool:
        return all(stay <= set(engine.list("f")) for _ in range(scaled(20)))

    assert all(at_once([churning, churning, listing, listing]))


def test_an_update_keeps_writers_of_its_name_out_and_leaves_other_names_alone(engine: Engine) -> None:
    inside, leave = threading.Event(), threading.Event()
    order = []

    def slow(old: bytes | None) -> bytes:
        inside.set()
        assert leave.wait(10)
        order.append("update")
        return pickled("updated")

    def write() -> None:
        assert inside.wait(10)
        engine.write("other", pickled(1))  # would hang if all names waited
        threading.Timer(0.1, leave.set).start()
        engine.write("a", pickled("written"))
        order.append("write")

    engine.write("a", pickled(0))
    threads([lambda: engine.update("a", slow), write])
    cell = engine.read("a")
    assert order == ["update", "write"] and cell is not None and loaded(cell.payload) == "written"
