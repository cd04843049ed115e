"""How fast jobs go through a queue where none is lost, one at a time: beside queues in memory, in SQLite, in Redis.

psync's `get` claims a task and `done` acknowledges it; its loop (`batch`) claims as many at once as it may. Of the
peers only `redis_strict`, `persistqueue` and `dirq` do the same; the others forget an item the moment they hand it out,
which is less work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Case, Figure, crowd, once, per_item

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
    put = per_item(queue.put, [(ITEM,)] * count)
    taken = per_item(queue.take, [()] * count)
    queue.close()
    return {"put": 1e6 * put, "get and done": 1e6 * taken}


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


def _filled(bench: Bench, depth: int) -> Callable[[str], None]:
    def build(path: str) -> None:
        queue = bench.peer.Queue(path)
        queue.open()
        for _ in range(0, depth, 1000):
            queue.fill([ITEM] * 1000)
        queue.close()

    return build


def _one_in_one_out(queue: Any) -> None:
    queue.put(ITEM)
    queue.take()


def depth(bench: Bench) -> dict[str, float]:
    """What one item more and one less costs in a queue that holds many, and the first `get` of a newcomer."""
    figures = {}
    for count, label in ((1_000, "1k"), (100_000, "100k"), (1_000_000, "1M")):
        if count > 100_000 and not bench.peer.__name__.endswith("psync"):
            continue  # filling theirs takes minutes
        queue = bench.peer.Queue(bench.fixture(label, _filled(bench, count)))
        queue.open()
        figures[f"first get at {label}"] = 1e3 * once(queue.take)
        queue.put(ITEM)

        _one_in_one_out(queue)
        figures[f"put, get and done at {label}"] = 1e6 * per_item(_one_in_one_out, [(queue,)] * bench.few(1800, 900))
        queue.close()
    return figures


CASES = (
    Case(
        "queues",
        "pace",
        pace,
        (Figure("put", "µs"), Figure("get and done", "µs")),
        ("multiprocessing", "huey", "diskcache", "redis", "redis_strict", "persistqueue", "dirq"),
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
        "depth",
        depth,
        tuple(Figure(f"put, get and done at {size}", "µs") for size in ("1k", "100k", "1M"))
        + tuple(Figure(f"first get at {size}", "ms") for size in ("1k", "100k", "1M")),
        ("diskcache",),
        rounds=5,
        quick_rounds=2,
    ),
)
