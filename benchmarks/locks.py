"""What it costs to take and release a lock or a semaphore, alone and while four processes want the same lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Case, Figure, Pace, crowd, fork, pace


def _pairs(shared: Any, count: int) -> Pace:
    """For an `acquire` and a `release` that nobody else is in the way of."""
    shared.open()
    acquire, release = shared.acquire, shared.release

    def pair() -> None:
        acquire()
        release()

    pair()  # what a handle does once is not the question
    took = pace(pair, [()] * count)
    shared.close()
    return took


def _amount(bench: Bench) -> int:
    quick_one = bench.peer.__name__.rpartition(".")[2] in ("psync", "multiprocessing", "plain")
    return bench.few(45_000, 18_000) if quick_one else bench.few(4_500, 1_800)


def lock(bench: Bench) -> dict[str, float]:
    return _pairs(bench.peer.Lock(bench.folder), _amount(bench)).figures("lock pair")


def semaphore(bench: Bench) -> dict[str, float]:
    """One of four permits."""
    return _pairs(bench.peer.Semaphore(bench.folder, 4), _amount(bench)).figures("semaphore pair")


WORK = range(1000)
"""Its sum takes about ten microseconds."""


def _rival(gate: Callable[[], Any], lock: Any, counter: Any, seconds: float) -> int:
    """How often it had the lock until the time was up. Each time it adds one to what all share, and works for a moment
    both with the lock and without: a loop that does nothing else measures a lock that is never given away."""
    lock.open()
    lock.acquire()
    lock.release()
    acquire, release = lock.acquire, lock.release
    gate()
    taken, deadline = 0, time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        acquire()
        before = counter.value
        sum(WORK)
        counter.value = before + 1  # who is not alone loses some
        release()
        taken += 1
        sum(WORK)
    lock.close()
    return taken


def rivals(bench: Bench) -> dict[str, float]:
    """Four processes that take the lock as often as they can."""
    shared = bench.peer.Lock(bench.folder)
    counter = fork.RawValue("q")
    seconds = 0.5 * bench.few(4, 1)
    taken = crowd(4, _rival, [shared] * 4, [counter] * 4, [seconds] * 4)
    return {
        "lock by 4 processes": sum(taken) / seconds,
        "least to most served": min(taken) / max(taken),
        "not alone": sum(taken) - counter.value,
    }


CASES = (
    Case(
        "locks",
        "lock",
        lock,
        (Figure("lock pair", "µs"),),
        ("plain", "multiprocessing", "filelock", "fasteners", "diskcache", "redis"),
    ),
    Case(
        "locks",
        "rivals",
        rivals,
        (
            Figure("lock by 4 processes", "/s", more=True),
            Figure("least to most served", "", None),
            Figure("not alone", "", None),
        ),
        ("plain", "multiprocessing", "filelock", "fasteners", "diskcache", "redis"),
        rounds=5,
    ),
    Case(
        "locks",
        "semaphore",
        semaphore,
        (Figure("semaphore pair", "µs"),),
        ("multiprocessing", "diskcache", "redis"),
    ),
)
