"""How fast jobs go through a queue where none is lost, one at a time: beside queues in memory, in SQLite, in Redis.

psync's `get` claims a task and `done` acknowledges it; its loop (`batch`) claims as many at once as it may. Of the
peers only `redis_strict`, `persistqueue` and `dirq` do the same; the others forget an item the moment they hand it out,
which is less work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Case, Figure, crowd, idle_cpu
from benchmarks.harness import pace as pace_of

ITEM = b"x" * 100
STOP = b"stop"
QUICK_ONES = ("psync", "multiprocessing", "plain")
"""Those that get more items, or they would be done before they have properly begun."""


def _amount(bench: Bench) -> int:
    quick_one = bench.peer.__name__.rpartition(".")[2] in QUICK_ONES
    return bench.few(60_000, 20_000) if quick_one else bench.few(8_000, 3_000)


def pace(bench: Bench) -> dict[str, float]:
    """One process puts items in, and then takes them out again."""
    queue = bench.peer.Queue(bench.folder)
    queue.open()
    count = _amount(bench) // 4
    put = pace_of(queue.put, [(ITEM,)] * count)
    taken = pace_of(queue.take, [()] * count)
    queue.close()
    return put.figures("put") | taken.figures("get and done")


def _produce(gate: Callable[[], Any], queue: Any, part: int, count: int, consumers: int) -> tuple[float, float, int]:
    queue.open()
    gate()
    began = time.perf_counter()
    for _ in range(count):
        queue.put(ITEM)
    for _ in range(consumers):
        queue.put(STOP)
    return began, time.perf_counter(), 0


def _consume(gate: Callable[[], Any], queue: Any, part: int, count: int, consumers: int) -> tuple[float, float, int]:
    queue.open()
    gate()
    began, taken = time.perf_counter(), 0
    while queue.take() != STOP:
        taken += 1
    return began, time.perf_counter(), taken


def _consume_in_a_loop(
    gate: Callable[[], Any], queue: Any, part: int, count: int, consumers: int
) -> tuple[float, float, int]:
    queue.open()
    gate()
    began, taken = time.perf_counter(), 0
    for item in queue.each() if hasattr(queue, "each") else iter(queue.take, None):
        if item == STOP:
            break
        taken += 1
    return began, time.perf_counter(), taken


def _either_in_a_loop(
    gate: Callable[[], Any], queue: Any, part: int, count: int, consumers: int
) -> tuple[float, float, int]:
    return (_produce if part == 0 else _consume_in_a_loop)(gate, queue, part, count, consumers)


def _either(gate: Callable[[], Any], queue: Any, part: int, count: int, consumers: int) -> tuple[float, float, int]:
    return (_produce if part == 0 else _consume)(gate, queue, part, count, consumers)


def flow(bench: Bench) -> dict[str, float]:
    """One producer and 1 or 4 consumers begin together; until the last consumer has had its last item."""
    return _flow(bench, _either)


def batch(bench: Bench) -> dict[str, float]:
    """The same, but each consumer loops over the queue, and so may be handed several items at once."""
    return _flow(bench, _either_in_a_loop, ", in a loop")


def _flow(bench: Bench, work: Callable[..., Any], how: str = "") -> dict[str, float]:
    figures = {}
    count = _amount(bench)
    for consumers in (1, 4):
        queue = bench.peer.Queue(bench.fresh(f"flow{consumers}"))
        parties = consumers + 1
        times = crowd(parties, work, [queue] * parties, range(parties), [count] * parties, [consumers] * parties)
        if sum(taken for _, _, taken in times) != count:
            raise AssertionError("items were lost, or came twice")
        took = max(end for _, end, _ in times) - min(began for began, _, _ in times)
        figures[f"1 producer, {consumers} consumer{'s' * (consumers > 1)}{how}"] = count / took
    return figures


def idle(bench: Bench) -> dict[str, float]:
    """CPU time of a consumer that waits for what does not come. (Where a library's own `get` does not wait, how often
    one looks again decides, so those are left out.)"""
    queue = bench.peer.Queue(bench.folder)

    def wait() -> None:
        queue.open()
        queue.take()

    return {"idle CPU of a consumer": idle_cpu(wait, bench.few(3, 1))}


CASES = (
    Case(
        "queues",
        "pace",
        pace,
        (Figure("put", "µs"), Figure("get and done", "µs")),
        ("plain", "multiprocessing", "huey", "diskcache", "redis", "redis_strict", "persistqueue", "dirq"),
    ),
    Case(
        "queues",
        "flow",
        flow,
        (Figure("1 producer, 1 consumer", "/s", more=True), Figure("1 producer, 4 consumers", "/s", more=True)),
        ("multiprocessing", "huey", "diskcache", "redis", "redis_strict", "dirq"),
    ),
    Case(
        "queues",
        "batch",
        batch,
        tuple(
            Figure(f"{flow}, in a loop", "/s", more=True)
            for flow in ("1 producer, 1 consumer", "1 producer, 4 consumers")
        ),
        ("multiprocessing",),
    ),
    Case(
        "queues",
        "idle",
        idle,
        (Figure("idle CPU of a consumer", "ms/s"),),
        ("multiprocessing", "redis", "redis_strict", "persistqueue"),
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
)
