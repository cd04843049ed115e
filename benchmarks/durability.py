"""What durability costs, and what sharing an fsync saves: tasks put a second by four processes, with and without it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import psync
from benchmarks.harness import Bench, Case, Figure, crowd

PROCESSES = 4


def _putting(gate: Callable[[], Any], folder: str, level: Any, alone: bool, seconds: float) -> int:
    """How many tasks it put until the time was up; `alone`: while nobody else may put any, so no fsync is shared."""
    queue = psync.WorkQueue(folder, f"{level} {alone}", durability=level)
    put, held = queue.put, queue._log.held if alone else contextlib.nullcontext
    put("first")
    gate()
    count, deadline = 0, time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        with held():
            put(count)
        count += 1
    queue.engine.close()
    return count


def puts(bench: Bench) -> dict[str, float]:
    """Small tasks, put by four processes into one queue as fast as they can."""
    seconds = 0.5 * bench.few(4, 1)

    def rate(level: str, alone: bool) -> float:
        args = ([bench.folder] * PROCESSES, [level] * PROCESSES, [alone] * PROCESSES, [seconds] * PROCESSES)
        return sum(crowd(PROCESSES, _putting, *args)) / seconds

    shared, alone = rate("file", False), rate("file", True)
    return {
        "put, process": rate("process", False),
        "put, file": shared,
        "put, file, no fsync shared": alone,
        "put, power": rate("power", False),
        "gained by sharing": shared / alone,
    }


CASES = (
    Case(
        "durability",
        "puts",
        puts,
        (
            Figure("put, process", "/s", more=True),
            Figure("put, file", "/s", more=True),
            Figure("put, file, no fsync shared", "/s", None),
            Figure("put, power", "/s", more=True),
            Figure("gained by sharing", "×", more=True),
        ),
        rounds=5,
        quick_disk=True,
    ),
)
