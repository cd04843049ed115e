"""Ten thousand operations of every kind leave no descriptor, thread or file, and hardly any memory."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from psync import Barrier, Counter, Lock, Mailbox, PickleShareDB, WorkQueue
from tests.crash.children import in_child
from tests.support import scaled

pytestmark = pytest.mark.crash
ROUNDS = scaled(480)
GROWTH = 5 << 20
"""Bytes."""


@pytest.fixture
def tracer() -> None:
    """Not needed here."""


def round_of_all(root: Path, level: Any) -> tuple[PickleShareDB, Callable[[int], int]]:
    """The store, and what does one of each in it, and returns how many operations that is."""
    db = PickleShareDB(root, durability=level)
    jobs, box, lock = WorkQueue(db, "jobs"), Mailbox(db, "box"), Lock(db, "door")
    counter, alone = Counter(db, "count"), Barrier(db, "alone", 1)

    def act(number: int) -> int:
        key = f"box/{number % 10}"
        db[key] = number
        db.add(f"{key} new", number)
        db.modify(key, lambda old: old + 1)
        del db[f"{key} new"]
        db.hset("cat", number % 20, number)
        db.hadd("cat", "once", number)
        db.hdel("cat", number % 20)
        jobs.put(number)
        jobs.put_many([number, number], priority=number % 2)
        for task in jobs.get_many(3):
            task.done(number % 7)
        jobs.put(number, id="again")
        box.post(number % 30, number)
        box.get(number % 30)
        with lock:
            counter.add()
        alone.wait()
        if number % 60 == 0:
            db.hcompress("cat")
            box.compact()
            for id in list(jobs.results.addresses()):
                jobs.results.take(id)
            with PickleShareDB(root) as other:
                assert other[key] == number + 1
                other.sweep()
        return 21

    return db, act


def standing(root: Path) -> tuple[int, int, int, int]:
    """Descriptors, threads, temporary files, bytes of memory."""
    gc.collect()
    litter = sum(len(os.listdir(root / ".psync" / folder)) for folder in ("tmp", "quarantine", "pending")
                 if (root / ".psync" / folder).exists())  # fmt: skip
    memory = psutil.Process().memory_info().rss
    return len(os.listdir("/proc/self/fd")), threading.active_count(), litter, memory


@pytest.mark.parametrize("level", ["process", "power"])
def test_ten_thousand_operations_leak_nothing(level: str, root: Path) -> None:
    def work() -> tuple[Any, Any, int]:
        (db, act), done = round_of_all(root, level), 0
        for number in range(ROUNDS // 4):
            act(number)  # all that is loaded and remembered once
        db.close()
        before = standing(root)
        for number in range(ROUNDS // 4, ROUNDS + ROUNDS // 4):
            done += act(number)
        db.close()
        return before, standing(root), done

    before, after, done = in_child(work)
    print(f"{done} operations: {before} became {after}")
    assert done >= 10_000 or ROUNDS < 480
    descriptors, threads, litter, memory = (now - then for now, then in zip(after, before, strict=True))
    assert (descriptors, threads, litter) == (0, 0, 0)
    assert memory < GROWTH, f"{memory} bytes more after {done} operations"
