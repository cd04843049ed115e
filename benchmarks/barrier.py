"""How long a round of a barrier takes: processes that do nothing but wait for each other, again and again."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Case, Figure, Pace, crowd, idle_cpu, pace

SIZES = (4, 8, 16)


def _party(gate: Callable[[], Any], barrier: Any, rounds: int) -> Pace:
    barrier.open()
    barrier.wait()  # what a handle does once is not the question
    gate()
    took = pace(barrier.wait, [()] * rounds)
    barrier.close()
    return took


def rounds(bench: Bench) -> dict[str, float]:
    """Seconds between two rounds, as the parties see it."""
    figures: dict[str, float] = {}
    for parties in SIZES:
        barrier = bench.peer.Barrier(bench.fresh(f"of{parties}"), parties)
        turns = bench.few(4500, 300) // parties // 9 * 9  # `pace` makes nine batches: all have to come as often
        took = crowd(parties, _party, [barrier] * parties, [turns] * parties)
        middle = Pace(*(statistics.median(seen) for seen in zip(*took, strict=True)))
        figures |= middle.figures(f"round of {parties}")
    return figures


def idle(bench: Bench) -> dict[str, float]:
    """CPU time of a party that waits for another that does not come."""
    barrier = bench.peer.Barrier(bench.folder, 2)

    def wait() -> None:
        barrier.open()
        barrier.wait()

    return {"idle CPU of a party": idle_cpu(wait, bench.few(3, 1))}


CASES = (
    Case(
        "barrier",
        "rounds",
        rounds,
        tuple(Figure(f"round of {parties}", "µs") for parties in SIZES),
        ("plain", "multiprocessing", "redis", "tcpstore"),
    ),
    Case(
        "barrier",
        "idle",
        idle,
        (Figure("idle CPU of a party", "ms/s"),),
        ("plain", "multiprocessing", "redis", "tcpstore"),
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
)
