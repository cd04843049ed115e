"""How fast a hashed category grows, is read, compressed and read again: beside PickleShare, diskcache, LMDB, Redis."""

from __future__ import annotations

import random
import time

from benchmarks.harness import Bench, Case, Figure, once, pace

ROOT = "results"
COUNT = 100_000


def items(count: int) -> dict[str, object]:
    return {f"task{i:06}": f"the value of {i}" for i in range(count)}


def hset(bench: Bench) -> dict[str, float]:
    """New items by a handle that has written to every bucket before, at three sizes."""
    figures: dict[str, float] = {}
    for count, label in ((1_000, "1k"), (10_000, "10k"), (100_000, "100k")):
        category = bench.peer.Category(bench.fresh(label))
        category.fill(ROOT, items(count))
        for i in range(600):
            category.hset(ROOT, f"task{i:06}", "written again")
        new = [(ROOT, f"new{i:05}", "a new value") for i in range(bench.few(450, 270))]
        figures |= pace(category.hset, new).figures(f"hset at {label} items")
        category.close()
    return figures


def hundred_thousand(bench: Bench) -> dict[str, float]:
    """100k items: `hget` by handles that have seen nothing yet; `hdict` before and after `hcompress`, by new ones.

    Loading text costs every protocol the same, so there the ratio says what is done besides; `bytes` cost
    PickleShare's protocol 2 much more.
    """
    _filled(bench, items(COUNT))
    gets = []
    for i in range(bench.few(48, 24) * _can("hget", bench)):
        category = bench.peer.Category(bench.folder)
        gets.append(once(category.hget, ROOT, f"task{i * 2003:06}"))
        category.close()
    figures = {"hdict of 100k": _hdict(bench)}
    if gets:
        figures["hget at 100k, fresh handle"] = 1e6 * sorted(gets)[len(gets) // 2]
    if _can("hcompress", bench):
        figures["hcompress of 100k"] = _hcompress(bench)
        figures["hdict of 100k after hcompress"] = _hdict(bench)
    return figures


def hundred_bytes(bench: Bench) -> dict[str, float]:
    """100k items of 100 B of bytes: `hdict` after `hcompress`."""
    chance = random.Random(1)
    _filled(bench, {f"task{i:06}": chance.randbytes(100) for i in range(COUNT)})
    if _can("hcompress", bench):
        _hcompress(bench)
    return {"hdict of 100k x 100 B after hcompress": _hdict(bench)}


def _filled(bench: Bench, content: dict[str, object]) -> None:
    category = bench.peer.Category(bench.folder)
    category.fill(ROOT, content)
    category.close()


def _can(verb: str, bench: Bench) -> bool:
    category = bench.peer.Category(bench.folder)
    category.close()
    return hasattr(category, verb)


def _hcompress(bench: Bench) -> float:
    category = bench.peer.Category(bench.folder)
    took = once(category.hcompress, ROOT)
    category.close()
    return 1e3 * took


def _hdict(bench: Bench) -> float:
    took = []
    for _ in range(bench.few(5, 3)):
        category = bench.peer.Category(bench.folder)
        began = time.perf_counter()
        found = category.hdict(ROOT)
        took.append(time.perf_counter() - began)
        if len(found) != COUNT:
            raise AssertionError("hdict did not find every item")
        category.close()
    return 1e3 * sorted(took)[len(took) // 2]


HSET_FIGURES = tuple(Figure(f"hset at {size} items", "µs") for size in ("1k", "10k", "100k"))
CASES = (
    Case("category", "hset", hset, HSET_FIGURES, ("plain", "pickleshare", "diskcache", "lmdb", "redis"), rounds=5),
    Case(
        "category",
        "hundred_thousand",
        hundred_thousand,
        (
            Figure("hget at 100k, fresh handle", "µs"),
            Figure("hdict of 100k", "ms"),
            Figure("hcompress of 100k", "ms"),
            Figure("hdict of 100k after hcompress", "ms"),
        ),
        ("plain", "pickleshare", "lmdb", "redis"),
        rounds=5,
    ),
    Case(
        "category",
        "hundred_bytes",
        hundred_bytes,
        (Figure("hdict of 100k x 100 B after hcompress", "ms"),),
        ("plain", "pickleshare", "lmdb", "redis"),
        rounds=5,
        quick_rounds=2,
    ),
)
