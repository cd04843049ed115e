"""How fast values are stored and read, listed and counted: beside PickleShare, diskcache, LMDB, Redis."""

from __future__ import annotations

import os
import pickle
import random
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Case, Figure, crowd, once, pace, per_item

SMALL = [bytes([65 + i]) * 100 for i in range(16)]
SETTLED = 0.05
"""Seconds after which a file's time stamp is old enough to be trusted by a cache."""


def small(bench: Bench) -> dict[str, float]:
    """100 B values, one by one. Each of the four has a folder and handles of its own; directory entries are warm."""
    names = [f"key{i:04}" for i in range(bench.few(1000, 400))]
    figures: dict[str, float] = {}

    folder = bench.fresh("overwrite")
    store = bench.peer.Store(folder)
    for i, name in enumerate(names):
        store.set(name, SMALL[i % 16])
    jobs = [(name, SMALL[(i + 5) % 16]) for i, name in enumerate(names)]
    figures |= pace(store.set, jobs).figures("overwrite 100 B")

    newcomers = [(f"new{i:04}", SMALL[i % 16]) for i in range(len(names))]
    figures |= pace(store.set, newcomers).figures("new key 100 B")
    store.close()

    time.sleep(SETTLED)
    rest = []
    for part in range(8):
        store = bench.peer.Store(folder)
        store.get(newcomers[part][0])  # what a handle does once, at its first read, is not the question
        rest.append(pace(store.get, [(name,) for name in names[part::8]], batches=3))
        store.close()
    figures |= sorted(rest)[len(rest) // 2].figures("fresh get 100 B")

    store = bench.peer.Store(folder)
    for name in names:
        store.get(name)
    figures |= pace(store.get, [(name,) for name in names]).figures("unchanged get 100 B")
    store.close()
    return figures


def rows(count: int = 7400) -> list[tuple[str, int, float, bytes]]:
    """A list of tuples of str, int, float and 100 B of bytes: about 1 MB when pickled.

    What these values are made of decides: many small objects cost both sides the same, `bytes` cost PickleShare's
    protocol 2 much more than protocol 5.
    """
    chance = random.Random(1)
    return [(f"row number {i}", i * 7919, i / 7, chance.randbytes(100)) for i in range(count)]


def big(bench: Bench) -> dict[str, float]:
    """The same megabyte written over itself, and read with nothing cached."""
    value = rows()
    store = bench.peer.Store(bench.folder)
    store.set("big", value)
    sets, gets = [], []
    for _ in range(bench.few(9, 5)):
        sets.append(once(store.set, "big", value))
        store.forget()
        gets.append(once(store.get, "big"))
    store.forget()
    if store.get("big") != value:
        raise AssertionError("the megabyte came back different")
    store.close()
    return {"1 MB set": 1e3 * sorted(sets)[len(sets) // 2], "1 MB get": 1e3 * sorted(gets)[len(gets) // 2]}


def tree(count: int, folders: int = 100) -> Callable[[str], None]:
    """Writes `count` values in so many folders: plain pickles, the same files for whoever lists them."""

    def build(path: str) -> None:
        stored = pickle.dumps(SMALL[0], protocol=2)
        for folder in range(folders):
            os.mkdir(os.path.join(path, f"f{folder:03}"), 0o700)
            for i in range(count // folders):
                with open(os.path.join(path, f"f{folder:03}", f"key{i:05}"), "wb") as file:
                    file.write(stored)

    return build


def keys(bench: Bench) -> dict[str, float]:
    """All names below a hundred folders, and those of one folder."""
    figures = {}
    for count, label in ((10_000, "10k"), (100_000, "100k")):
        store = bench.peer.Store(bench.fixture(label, tree(count)))
        took = []
        for _ in range(4 if count == 10_000 else bench.few(2, 1)):
            began = time.perf_counter()
            found = len(store.keys())
            took.append(time.perf_counter() - began)
            if found < count:  # PickleShare also lists what psync keeps for itself
                raise AssertionError("not every key was listed")
        figures[f"keys() at {label}"] = 1e3 * min(took)
        if count == 10_000:
            if len(store.keys("f042/*")) != 100:
                raise AssertionError("the glob missed some")
            globs = [(f"f{i:03}/*",) for i in range(0, 100, 3)]
            figures["glob in one of 100 folders"] = 1e3 * per_item(store.keys, globs)
        store.close()
    return figures


def clear(bench: Bench) -> dict[str, float]:
    """`clear()` of 10k keys; PickleShare's is quadratic (it lists all keys again for each), so it gets 300."""
    count = 300 if bench.peer.__name__.endswith("pickleshare") else 10_000
    store = bench.peer.Store(bench.folder)
    for i in range(count):
        store.set(f"key{i:05}", SMALL[0])
    took = once(store.clear)
    if store.keys():
        raise AssertionError("clear() left keys")
    store.close()
    return {"clear() of 300 keys" if count == 300 else "clear() of 10k keys": 1e3 * took}


MIXED_KEYS = [f"key{i:03}" for i in range(200)]


def _mixer(gate: Callable[[], Any], bench: Bench, seed: int, seconds: float) -> tuple[int, int, float]:
    """Reads and writes until the time is up: how many went well, how many did not, and how long it took."""
    store = bench.peer.Store(bench.folder)
    chance = random.Random(seed)
    plan = [(chance.random() < 0.8, chance.choice(MIXED_KEYS), chance.choice(SMALL)) for _ in range(5000)]
    good = bad = 0
    gate()
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        start = (good + bad) % len(plan)
        for reads, key, value in plan[start : start + 50]:
            try:
                if not reads:
                    store.set(key, value)
                else:
                    got = store.get(key)
                    if got != got[:1] * 100:
                        raise ValueError("torn")
            except Exception:  # counted, whatever it is
                bad += 1
            else:
                good += 1
    return good, bad, time.perf_counter() - began


def mixed(bench: Bench) -> dict[str, float]:
    """Four processes on the same 200 keys, eight reads to two writes."""
    store = bench.peer.Store(bench.folder)
    for key in MIXED_KEYS:
        store.set(key, SMALL[0])
    store.close()
    seconds = bench.few(2, 1)
    done = crowd(4, _mixer, [bench] * 4, range(4), [seconds] * 4)
    return {
        "4 processes, 80 % reads": sum(good / took for good, _, took in done),
        "errors of 4 processes": sum(bad for _, bad, _ in done),
    }


def _counter(gate: Callable[[], Any], bench: Bench, count: int) -> tuple[float, float]:
    store = bench.peer.Store(bench.folder)
    gate()
    began = time.perf_counter()
    for _ in range(count):
        store.incr("counter")
    return began, time.perf_counter()


def modify(bench: Bench) -> dict[str, float]:
    """Four processes add one to the same number, again and again."""
    each = bench.few(4000, 1000)
    times = crowd(4, _counter, [bench] * 4, [each] * 4)
    store = bench.peer.Store(bench.folder)
    counted = store.get("counter")
    took = max(end for _, end in times) - min(start for start, _ in times)
    return {"modify of one key by 4 processes": 4 * each / took, "lost counts": 4 * each - int(counted)}


SMALL_FIGURES = (
    Figure("overwrite 100 B", "µs"),
    Figure("new key 100 B", "µs"),
    Figure("fresh get 100 B", "µs"),
    Figure("unchanged get 100 B", "µs"),
)
CASES = (
    Case(
        "store",
        "small",
        small,
        SMALL_FIGURES,
        ("plain", "pickleshare", "diskcache", "sqlitedict", "lmdb", "redis"),
        rounds=9,
        quick_rounds=3,
        quick_disk=True,
    ),
    Case(
        "store",
        "big",
        big,
        (Figure("1 MB set", "ms"), Figure("1 MB get", "ms")),
        ("plain", "pickleshare", "diskcache", "lmdb", "redis"),
    ),
    Case(
        "store",
        "keys",
        keys,
        (Figure("keys() at 10k", "ms"), Figure("keys() at 100k", "ms"), Figure("glob in one of 100 folders", "ms")),
        ("plain", "pickleshare"),
        rounds=5,
        quick_rounds=2,
        shared=True,
        disk=False,
    ),
    Case(
        "store",
        "clear",
        clear,
        (Figure("clear() of 10k keys", "ms"), Figure("clear() of 300 keys", "ms", None)),
        ("plain", "pickleshare", "diskcache", "lmdb"),
        rounds=3,
        quick_rounds=1,
    ),
    Case(
        "store",
        "mixed",
        mixed,
        (Figure("4 processes, 80 % reads", "/s", more=True), Figure("errors of 4 processes", "", None)),
        ("plain", "pickleshare", "diskcache", "lmdb", "redis"),
        rounds=5,
        quick_rounds=2,
    ),
    Case(
        "store",
        "modify",
        modify,
        (Figure("modify of one key by 4 processes", "/s", more=True), Figure("lost counts", "", None)),
        ("plain", "pickleshare", "diskcache", "lmdb", "redis"),
        rounds=5,
        quick_rounds=2,
    ),
)
