"""How far psync is above the floor: the same system calls from plain Python, with nothing around them."""

from __future__ import annotations

from benchmarks import category, queues, store, wake
from benchmarks.harness import Case, Figure

CASES = (
    Case("floor", "small", store.small, store.SMALL_FIGURES, ("plain",)),
    Case("floor", "hset", category.hset, category.HSET_FIGURES, ("plain",)),
    Case("floor", "latency", wake.latency, wake.LATENCY_FIGURES, ("plain",)),
    Case("floor", "pace", queues.pace, (Figure("put", "µs"), Figure("get and done", "µs")), ("plain",)),
)
