"""What it costs to have calls made by other processes: calls that do nothing, and calls that take a while.

psync's executor keeps its calls in a directory: a killed worker costs one attempt of one call. In other pools it breaks
the pool, or the answer never comes (dask starts the worker again).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Case, Figure, once

MANY = ("psync", "multiprocessing", "processpool")
"""Those that get more calls, or they would be done before they have properly begun."""
WORKERS = (2, 4)
LONG = 0.01


def nothing(number: int) -> int:
    return number


def take_a_while(number: int) -> int:
    time.sleep(LONG)
    return number


def _amount(bench: Bench) -> int:
    many = bench.peer.__name__.rpartition(".")[2] in MANY
    return bench.few(6000, 1500) if many else bench.few(300, 100)


def _times(bench: Bench, run: Callable[[Callable[[Any], Any], range], list[Any]]) -> float:
    """Microseconds a call, until the last answer is here: the median of three runs."""
    took, count = [], _amount(bench)
    for _ in range(3):
        began = time.perf_counter()
        answers = run(nothing, range(count))
        took.append(1e6 * (time.perf_counter() - began) / count)
        if answers != list(range(count)):
            raise AssertionError("answers were lost, or came in another order")
    return sorted(took)[1]


def calls(bench: Bench) -> dict[str, float]:
    """Submitted one by one, or mapped as each pool does it by default (multiprocessing: a call at a time), to workers
    that are at work already."""
    figures = {}
    for workers in WORKERS:
        pool = bench.peer.Pool(bench.fresh(f"of{workers}"), workers)
        pool.map(nothing, range(10 * workers))
        figures[f"a call mapped, {workers} workers"] = _times(bench, pool.map)
        if hasattr(pool, "submit_all"):
            figures[f"a call submitted, {workers} workers"] = _times(bench, pool.submit_all)
        pool.close()
    return figures


def efficiency(bench: Bench) -> dict[str, float]:
    """Calls of 10 ms: which part of the workers' time they are."""
    figures = {}
    for workers in WORKERS:
        pool = bench.peer.Pool(bench.fresh(f"of{workers}"), workers)
        pool.map(nothing, range(10 * workers))
        count = bench.few(100, 40) * workers
        took = once(pool.map, take_a_while, range(count))
        figures[f"efficiency of {workers} workers, 10 ms calls"] = count * LONG / workers / took
        pool.close()
    return figures


def start(bench: Bench) -> dict[str, float]:
    """From nothing to the first answer: what a pool for one short job costs, once its modules are imported."""
    getattr(bench.peer, "import_pool", lambda: None)()
    pool = None

    def run() -> None:
        nonlocal pool
        pool = bench.peer.Pool(bench.folder, 2)
        pool.map(nothing, range(2))

    took = once(run)
    assert pool is not None
    pool.close()
    return {"start, and a first answer": 1e3 * took}


PEERS = ("multiprocessing", "processpool", "joblib", "dask")
CASES = (
    Case(
        "fan_out",
        "calls",
        calls,
        tuple(
            Figure(f"a call {how}, {workers} workers", "µs") for how in ("submitted", "mapped") for workers in WORKERS
        ),
        PEERS,
        rounds=2,
        quick_rounds=1,
    ),
    Case(
        "fan_out",
        "efficiency",
        efficiency,
        tuple(Figure(f"efficiency of {workers} workers, 10 ms calls", "", more=True) for workers in WORKERS),
        PEERS,
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
    Case(
        "fan_out",
        "start",
        start,
        (Figure("start, and a first answer", "ms"),),
        PEERS,
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
)
