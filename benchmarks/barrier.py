"""How long a round of a barrier takes: processes that do nothing but wait for each other, again and again."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Case, Figure, crowd, per_item

SIZES = (4, 8, 16)


def _party(gate: Callable[[], Any], barrier: Any, rounds: int) -> float:
    barrier.open()
    barrier.wait()  # what a handle does once is not the question
    gate()
    took = per_item(barrier.wait, [()] * rounds)
    barrier.close()
    return took


def rounds(bench: Bench) -> dict[str, float]:
    """Seconds between two rounds, as the parties see it."""
    figures = {}
    for parties in SIZES:
        barrier = bench.peer.Barrier(bench.fresh(f"of{parties}"), parties)
        turns = bench.few(4500, 450) // parties // 9 * 9  # `per_item` makes nine batches: all have to come as often
        took = crowd(parties, _party, [barrier] * parties, [turns] * parties)
        figures[f"round of {parties}"] = 1e6 * statistics.median(took)
    return figures


CASES = (
    Case(
        "barrier",
        "rounds",
        rounds,
        tuple(Figure(f"round of {parties}", "µs") for parties in SIZES),
        ("multiprocessing", "redis", "tcpstore"),
    ),
)
