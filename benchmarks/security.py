"""What a key costs: psync with one beside psync without, the same operations in one process, turn by turn.

What is told is processor time, of pairs of turns that follow each other at once: a machine that others use, too, slows
both alike.

    python -m benchmarks.security [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from psync import PickleShareDB, Semaphore, WorkQueue
from psync.engine import private_directory, remove_directory

KEY = bytes(range(32))
SMALL = {"a": 1, "b": "x" * 60}
LARGE = b"x" * (1 << 20)


class Row(NamedTuple):
    what: str
    without: float
    """Microseconds of processor time, the median of all turns."""
    with_key: float
    most: float
    """Microseconds that a key may cost."""


class Uses:
    """The operations on one store."""

    def __init__(self, db: PickleShareDB) -> None:
        self._db = db
        self._queue = WorkQueue(db, "queue")
        self._semaphore = Semaphore(db, "semaphore", 3)
        db["small"], db["large"] = SMALL, LARGE
        db.hset("category", "item", 1)

    def read_small(self) -> None:
        self._db.uncache("small")
        self._db["small"]

    def read_unchanged(self) -> None:
        self._db["small"]

    def write_small(self) -> None:
        self._db["small"] = SMALL

    def read_large(self) -> None:
        self._db.uncache("large")
        self._db["large"]

    def write_large(self) -> None:
        self._db["large"] = LARGE

    def hset(self) -> None:
        self._db.hset("category", "item", 2)

    def hget(self) -> None:
        self._db.hget("category", "item")

    def put_get_done(self) -> None:
        self._queue.put(SMALL)
        self._queue.get().done()

    def semaphore(self) -> None:
        with self._semaphore:
            pass


SMALL_COST, MEGABYTE_COST = 10.0, 2000.0
CASES: list[tuple[str, Callable[[Uses], Any], int, float]] = [
    ("read 100 B", Uses.read_small, 60, SMALL_COST),
    ("read 100 B, unchanged", Uses.read_unchanged, 120, SMALL_COST),
    ("overwrite 100 B", Uses.write_small, 60, SMALL_COST),
    ("read 1 MB", Uses.read_large, 3, MEGABYTE_COST),
    ("overwrite 1 MB", Uses.write_large, 3, MEGABYTE_COST),
    ("hset", Uses.hset, 40, SMALL_COST),
    ("hget", Uses.hget, 60, SMALL_COST),
    ("put, get and done", Uses.put_get_done, 20, 2 * SMALL_COST),
    ("a semaphore, taken and released", Uses.semaphore, 20, 2 * SMALL_COST),
]


def turn(use: Callable[[], Any], count: int) -> float:
    """Microseconds of processor time a use: a key costs nothing else, and what others do meanwhile is not counted."""
    begun = time.process_time_ns()
    for _ in range(count):
        use()
    return (time.process_time_ns() - begun) / count / 1e3


def measure(plain: Uses, sealed: Uses, rounds: int) -> list[Row]:
    rows = []
    for what, use, count, most in CASES:
        pairs = []
        for number in range(rounds + 2):
            order = (plain, sealed) if number % 2 else (sealed, plain)
            took = {each is sealed: turn(lambda: use(each), count) for each in order}  # noqa: B023
            pairs.append((took[False], took[True]))
        without = statistics.median(pair[0] for pair in pairs[2:])
        costs = statistics.median(pair[1] - pair[0] for pair in pairs[2:])
        rows.append(Row(what, without, without + costs, most))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.security", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="pairs of turns for each operation (100)")
    rounds = parser.parse_args().rounds
    places = [private_directory() for _ in range(2)]
    try:
        with PickleShareDB(places[0]) as one, PickleShareDB(places[1], key=KEY) as other:
            rows = measure(Uses(one), Uses(other), rounds)
    finally:
        for place in places:
            remove_directory(place)
    print(f"{'':34}{'without':>10}{'with a key':>12}{'costs':>10}{'ratio':>8}{'may cost':>10}   (µs)")
    for row in rows:
        cost = row.with_key - row.without
        ratio = row.with_key / row.without
        print(f"{row.what:34}{row.without:10.1f}{row.with_key:12.1f}{cost:10.1f}{ratio:8.2f}{row.most:10.0f}")
    return 1 if any(row.with_key - row.without > row.most for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
