"""What happens when things grow: from a thousand keys, items, letters and tasks to a million, from 2 processes to 64.

A fixture of a million is made once for all rounds, and only for those that can be asked for it in reasonable time.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import SUBJECT, Bench, Case, Figure, crowd, once, per_item
from benchmarks.queues import ITEM
from benchmarks.store import tree

SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1M": 1_000_000}
CROWDS = (2, 4, 8, 16, 32, 64)
VALUE = b"v" * 100


def sizes(bench: Bench, *million: str) -> dict[str, int]:
    """Those for this run: a million only for whom `million` names, and not in a quick run."""
    who = bench.peer.__name__.rpartition(".")[2]
    most = bench.few(1_000_000 if who in million else 100_000, 10_000)
    return {label: count for label, count in SIZES.items() if count <= most}


def points(curve: str, unit: str, sizes: dict[str, int] = SIZES, more: bool | None = False) -> tuple[Figure, ...]:
    return tuple(Figure(f"{curve} at {label}", unit, more, curve, at) for label, at in sizes.items())


# -- what there is -----------------------------------------------------------------------------


def keys(bench: Bench) -> dict[str, float]:
    """One key more, over itself, and read by another handle, in folders that hold a thousand each."""
    figures = {}
    for label, count in sizes(bench, SUBJECT, "plain", "pickleshare").items():
        folder = bench.fixture(label, tree(count, count // 1000))
        store = bench.peer.Store(folder)
        # its own keys: not everybody reads what the others wrote
        mine = os.path.basename(bench.folder).replace(" ", "-")
        names = [f"f{i * 7919 % (count // 1000):03}/{mine}-{i}" for i in range(bench.few(450, 180))]
        figures[f"new key at {label}"] = 1e6 * per_item(store.set, [(name, VALUE) for name in names])
        figures[f"overwrite at {label}"] = 1e6 * per_item(store.set, [(name, VALUE) for name in names])
        store.close()
        store = bench.peer.Store(folder)
        figures[f"get at {label}"] = 1e6 * per_item(store.get, [(name,) for name in names])
        store.close()
    return figures


ROOT = "results"


def _items(count: int, part: str = "task") -> dict[str, object]:
    return {f"{part}{i:07}": f"the value of {i}" for i in range(count)}


def _category(bench: Bench, count: int) -> Callable[[str], None]:
    def build(path: str) -> None:
        category = bench.peer.Category(path)
        category.fill(ROOT, _items(count))
        category.close()

    return build


def items(bench: Bench) -> dict[str, float]:
    """One item more in a category, and one read, by a handle that has been at every bucket before."""
    figures = {}
    for label, count in sizes(bench, SUBJECT, "plain").items():
        category = bench.peer.Category(bench.fixture(label, _category(bench, count)))
        mine = os.path.basename(bench.folder)
        for key in _items(1200, f"before {mine} "):
            category.hset(ROOT, key, "a new value")
        new = [(ROOT, key, "a new value") for key in _items(bench.few(450, 180), f"new {mine} ")]
        figures[f"hset at {label}"] = 1e6 * per_item(category.hset, new)
        if hasattr(category, "hget"):
            chance = random.Random(count)
            for key in _items(1200, f"before {mine} "):
                category.hget(ROOT, key)
            asked = [(ROOT, f"task{chance.randrange(count):07}") for _ in range(bench.few(450, 180))]
            figures[f"hget at {label}"] = 1e6 * per_item(category.hget, asked)
        category.close()
    return figures


def _letters(bench: Bench, count: int) -> Callable[[str], None]:
    def build(path: str) -> None:
        box = bench.peer.Mailbox(path)
        box.open()
        box.fill(_items(count))
        box.close()

    return build


def letters(bench: Bench) -> dict[str, float]:
    """One letter more, and one read."""
    figures = {}
    for label, count in sizes(bench, SUBJECT).items():
        box = bench.peer.Mailbox(bench.fixture(label, _letters(bench, count)))
        box.open()
        mine = os.path.basename(bench.folder)
        for address in _items(1200, f"before {mine} "):
            box.post(address, "a letter")
        new = list(_items(bench.few(450, 180), f"new {mine} "))
        figures[f"post at {label}"] = 1e6 * per_item(box.post, [(address, "a letter") for address in new])
        figures[f"read at {label}"] = 1e6 * per_item(box.get, [(address,) for address in new])
        box.close()
    return figures


def _filled(bench: Bench, depth: int) -> Callable[[str], None]:
    def build(path: str) -> None:
        queue = bench.peer.Queue(path)
        queue.open()
        for _ in range(0, depth, 1000):
            queue.fill([ITEM] * 1000)
        queue.close()

    return build


def tasks(bench: Bench) -> dict[str, float]:
    """What one task more and one less costs in a queue that holds many, and the first `get` of a newcomer."""
    figures = {}
    for label, count in sizes(bench, SUBJECT, "plain").items():
        queue = bench.peer.Queue(bench.fixture(label, _filled(bench, count)))
        queue.open()
        figures[f"first get at {label}"] = 1e3 * once(queue.take)
        queue.put(ITEM)

        def one_in_one_out(queue: Any = queue) -> None:
            queue.put(ITEM)
            queue.take()

        one_in_one_out()
        figures[f"put, get and done at {label}"] = 1e6 * per_item(one_in_one_out, [()] * bench.few(1800, 900))
        queue.close()
    return figures


# -- what was done -----------------------------------------------------------------------------

DONE = {"10k": 10_000, "30k": 30_000, "100k": 100_000, "300k": 300_000, "1M": 1_000_000}


def worker(bench: Bench) -> dict[str, float]:
    """A worker's memory, and its pace, after so many tasks."""
    figures, done = {}, 0
    queue = bench.peer.Queue(bench.folder)
    queue.open()
    for label, count in DONE.items():
        if count > bench.few(1_000_000, 30_000):
            break
        crowd(1, _put, [bench.folder], [bench], [count - done])
        figures[f"pace of a worker after {label}"] = 1e6 * per_item(queue.take, [()] * (count - done), batches=1)
        figures[f"memory of a worker after {label}"] = _resident()
        done = count
    queue.close()
    return figures


def _put(gate: Callable[[], Any], folder: str, bench: Bench, count: int) -> None:
    queue = bench.peer.Queue(folder)
    queue.open()
    for start in range(0, count, 1000):
        queue.fill([ITEM] * min(1000, count - start))
    queue.close()


def _resident() -> float:
    """Megabytes that this process has in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


ROUNDS = {"1k": 1_000, "10k": 10_000, "100k": 100_000}


def _meet(gate: Callable[[], Any], barrier: Any, most: int) -> dict[str, float]:
    barrier.open()
    barrier.wait()
    gate()
    figures, done = {}, 0
    for label, count in ROUNDS.items():
        if count <= most:
            figures[f"round of 2 after {label}"] = 1e6 * per_item(barrier.wait, [()] * (count - done), batches=1)
            done = count
    barrier.close()
    return figures


def rounds(bench: Bench) -> dict[str, float]:
    """A round of two parties, after many."""
    barrier = bench.peer.Barrier(bench.folder, 2)
    first, _ = crowd(2, _meet, [barrier] * 2, [bench.few(100_000, 10_000)] * 2)
    return dict(first)


# -- who takes part ----------------------------------------------------------------------------


def _party(gate: Callable[[], Any], barrier: Any, rounds: int) -> float:
    barrier.open()
    barrier.wait()
    gate()
    took = per_item(barrier.wait, [()] * rounds, batches=3)
    barrier.close()
    return took


def _rival(gate: Callable[[], Any], lock: Any, count: int) -> tuple[float, float]:
    lock.open()
    lock.acquire()
    lock.release()
    gate()
    began = time.perf_counter()
    for _ in range(count):
        lock.acquire()
        lock.release()
    ended = time.perf_counter()
    lock.close()
    return began, ended


def processes(bench: Bench) -> dict[str, float]:
    """A round of a barrier, and a lock that all want, among 2 to 64 processes on as many processors as there are."""
    figures = {}
    for count in CROWDS[: bench.few(6, 3)]:
        barrier = bench.peer.Barrier(bench.fresh(f"barrier{count}"), count)
        seen = crowd(count, _party, [barrier] * count, [bench.few(1200, 480) // count // 3 * 3] * count)
        figures[f"round of a barrier at {count}"] = 1e6 * statistics.median(seen)
        if hasattr(bench.peer, "Lock"):
            lock = bench.peer.Lock(bench.fresh(f"lock{count}"))
            each = bench.few(9_600, 4_800) // count // (8 if bench.peer.__name__.endswith("redis") else 1)
            times = crowd(count, _rival, [lock] * count, [each] * count)
            took = max(ended for _, ended in times) - min(began for began, _ in times)
            figures[f"lock among so many at {count}"] = 1e6 * took / (count * each)
    return figures


PARTIES = {str(count): count for count in CROWDS}
CASES = (
    Case(
        "growth",
        "keys",
        keys,
        (*points("new key", "µs"), *points("overwrite", "µs"), *points("get", "µs")),
        ("plain", "pickleshare"),
        rounds=1,
        quick_rounds=1,
        shared=True,
        disk=False,
    ),
    Case(
        "growth",
        "items",
        items,
        (*points("hset", "µs"), *points("hget", "µs")),
        ("plain", "pickleshare", "diskcache"),
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
    Case(
        "growth",
        "letters",
        letters,
        (*points("post", "µs"), *points("read", "µs")),
        ("diskcache",),
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
    Case(
        "growth",
        "tasks",
        tasks,
        (*points("put, get and done", "µs"), *points("first get", "ms")),
        ("plain", "diskcache"),
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
    Case(
        "growth",
        "worker",
        worker,
        tuple(
            Figure(f"{curve} of a worker after {label}", unit, None, f"{curve} of a worker, by tasks done", at)
            for curve, unit in (("memory", "MB"), ("pace", "µs"))
            for label, at in DONE.items()
        ),
        rounds=1,
        quick_rounds=1,
        disk=False,
    ),
    Case(
        "growth",
        "rounds",
        rounds,
        tuple(
            Figure(f"round of 2 after {label}", "µs", False, "round of 2, by rounds done", at)
            for label, at in ROUNDS.items()
        ),
        ("multiprocessing",),
        rounds=1,
        quick_rounds=1,
        disk=False,
    ),
    Case(
        "growth",
        "processes",
        processes,
        (*points("round of a barrier", "µs", PARTIES), *points("lock among so many", "µs", PARTIES)),
        ("plain", "multiprocessing", "redis"),
        rounds=1,
        quick_rounds=1,
        disk=False,
    ),
)
