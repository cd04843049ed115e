"""What many processes or threads do to one key at once comes out as if they had taken turns."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from tests.concurrency.simultaneous import Finish, SharedNumbers, in_threads, together
from tests.support import everywhere, scaled

SIZES = (10, 1_000, 4_000, 4_100, 20_000, 100_000)


# -- one writer, many readers ------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize(
    ("sizes", "times"),
    [(SIZES[:3], 15_000), (SIZES[3:], 400), (SIZES, 1_000)],
    ids=["small", "big", "small and big in turn"],
)
def test_a_rewritten_key_is_never_read_torn_stale_or_missing(root: Path, sizes: tuple[int, ...], times: int) -> None:
    with PickleShareDB(root) as db:
        db["key"] = (0, b"")
    finish, written = Finish(workers=1, watchers=5), SharedNumbers(1)
    readers = [partial(read_all_the_time, root, written, finish) for _ in range(5)]
    _, *seen = together([partial(rewrite, root, sizes, max(300, scaled(times)), written, finish), *readers])
    assert sum(seen) > 20, "hardly a version was seen"


def rewrite(root: Path, sizes: tuple[int, ...], times: int, written: SharedNumbers, finish: Finish) -> None:
    with finish.one(), PickleShareDB(root) as db:
        for number, size in zip(range(1, times + 1), itertools.cycle(sizes), strict=False):
            db["key"] = (number, b"%9d." % number * (size // 10))
            written[0] = number
            if number % 50 == 0:
                time.sleep(0.001)  # so that the readers come to their turn


def read_all_the_time(root: Path, written: SharedNumbers, finish: Finish) -> int:
    """How many versions this reader saw. Every other value is read twice, so that its cache answers too."""
    versions = set()
    last = 0
    with PickleShareDB(root) as db:
        while finish.ahead():
            at_least = max(written[0], last)
            last, ballast = db["key"]
            assert last >= at_least, f"version {last} was read after {at_least}"
            assert ballast == b"%9d." % last * (len(ballast) // 10), f"version {last} is torn"
            versions.add(last)
    return len(versions)


@everywhere
@pytest.mark.parametrize("size", [50, 3_000])
def test_the_cache_never_serves_a_value_that_another_process_has_replaced(root: Path, size: int) -> None:
    with PickleShareDB(root) as db:
        db["key"] = (0, b"x" * size)
    finish, written = Finish(workers=1, watchers=2), SharedNumbers(1)
    write = partial(rewrite_with_pauses, root, size, max(2_000, scaled(25_000)), written, finish)
    _, *outdated = together([write, *[partial(count_outdated, root, written, finish)] * 2])
    assert outdated == [[], []]


def rewrite_with_pauses(root: Path, size: int, times: int, written: SharedNumbers, finish: Finish) -> None:
    """Each value stands for some microseconds: to be read from a cache, and for many to be read as they are written."""
    with finish.one(), PickleShareDB(root) as db:
        for number in range(1, times + 1):
            db["key"] = (number, b"x" * size)
            written[0] = number
            end = time.perf_counter_ns() + number % 7 * 10_000
            while time.perf_counter_ns() < end:
                pass


def count_outdated(root: Path, written: SharedNumbers, finish: Finish) -> list[str]:
    wrong = []
    last = 0
    with PickleShareDB(root) as db:
        while finish.ahead():
            at_least = max(written[0], last)
            last, _ = db["key"]
            if last < at_least:
                wrong.append(f"{last} was read when {at_least} had been")
    return wrong


# -- read, think, write ------------------------------------------------------------------------


def count_up(db: PickleShareDB, times: int) -> None:
    for _ in range(times):
        db.modify("counter", lambda number: number + 1, default=0)


@everywhere
def test_modify_by_eight_processes_loses_no_increment(root: Path) -> None:
    times = scaled(1_000)

    def run() -> None:
        with PickleShareDB(root) as db:
            count_up(db, times)

    together([run] * 8)
    with PickleShareDB(root) as db:
        assert db["counter"] == 8 * times


@pytest.mark.parametrize("handles", ["one handle", "a handle each"])
def test_modify_by_eight_threads_loses_no_increment(root: Path, handles: str) -> None:
    times = scaled(500)
    stores = [PickleShareDB(root) for _ in range(1 if handles == "one handle" else 8)]
    in_threads([partial(count_up, stores[number % len(stores)], times) for number in range(8)])
    assert stores[0]["counter"] == 8 * times
    for store in stores:
        store.close()


def test_modify_by_threads_of_several_processes_loses_no_increment(root: Path) -> None:
    times = scaled(200)

    def run() -> None:
        with PickleShareDB(root) as db:
            in_threads([partial(count_up, db, times)] * 4)

    together([run] * 4)
    with PickleShareDB(root) as db:
        assert db["counter"] == 16 * times


def test_a_modify_that_raises_changes_nothing_and_lets_the_others_go_on(root: Path) -> None:
    times = scaled(300)

    def fail_often() -> int:
        failed = 0
        with PickleShareDB(root) as db:
            for _ in range(times):
                try:
                    db.modify("counter", lambda number: number // 0)
                except ZeroDivisionError:
                    failed += 1
        return failed

    def count() -> None:
        with PickleShareDB(root) as db:
            count_up(db, times)

    with PickleShareDB(root) as db:
        db["counter"] = 0
        assert together([count, count, fail_often, fail_often])[2:] == [times, times]
        assert db["counter"] == 2 * times


# -- one winner --------------------------------------------------------------------------------

Race = Callable[[PickleShareDB, int, int], list[Any]]
"""(store, who, how many keys) -> what this one won."""


def add(db: PickleShareDB, who: int, count: int) -> list[Any]:
    return [number for number in shuffled(count, who) if db.add(f"key/{number}", who)]


def pop(db: PickleShareDB, who: int, count: int) -> list[Any]:
    had = [db.pop(f"key/{number}", None) for number in shuffled(count, who)]
    return [number for number in had if number is not None]


def delete(db: PickleShareDB, who: int, count: int) -> list[Any]:
    won = []
    for number in shuffled(count, who):
        try:
            del db[f"key/{number}"]
        except KeyError:
            continue
        won.append(number)
    return won


def pop_any(db: PickleShareDB, who: int, count: int) -> list[Any]:
    won = []
    while True:
        try:
            key, number = db.popitem()
        except KeyError:
            return won
        assert key == f"key/{number}"
        won.append(number)


def shuffled(count: int, who: int) -> list[int]:
    return random.Random(who % 3).sample(range(count), count)  # some meet at the same key, others pass each other


def race_of_processes(root: Path, run: Race, count: int) -> list[Any]:
    def take_part(who: int) -> list[Any]:
        with PickleShareDB(root) as db:
            return run(db, who, count)

    return list(itertools.chain(*together([partial(take_part, who) for who in range(8)])))


def race_of_threads(root: Path, run: Race, count: int) -> list[Any]:
    with PickleShareDB(root) as db:
        return list(itertools.chain(*in_threads([partial(run, db, who, count) for who in range(8)])))


RACES = pytest.mark.parametrize("race", [race_of_processes, race_of_threads], ids=["processes", "threads"])


@RACES
def test_each_key_is_added_by_one(root: Path, race: Callable[..., list[Any]]) -> None:
    count = scaled(150)
    assert sorted(race(root, add, count)) == list(range(count))


@RACES
@pytest.mark.parametrize("verb", [pop, delete, pop_any], ids=["pop", "del", "popitem"])
def test_each_key_is_taken_by_one(root: Path, race: Callable[..., list[Any]], verb: Race) -> None:
    count = scaled(150)
    with PickleShareDB(root) as db:
        for number in range(count):
            db[f"key/{number}"] = number
    assert sorted(race(root, verb, count)) == list(range(count))
    with PickleShareDB(root) as db:
        assert db.keys() == []


@RACES
def test_setdefault_gives_everybody_the_same_value(root: Path, race: Callable[..., list[Any]]) -> None:
    count = scaled(150)

    def settle(db: PickleShareDB, who: int, count: int) -> list[Any]:
        return [(number, db.setdefault(f"key/{number}", who)) for number in shuffled(count, who)]

    answers = Counter(race(root, settle, count))
    assert len(answers) == count and set(answers.values()) == {8}
    with PickleShareDB(root) as db:
        assert all(db[f"key/{number}"] == who for number, who in answers)
