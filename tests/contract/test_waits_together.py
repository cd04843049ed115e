"""Waits on a network file system: one of those who wait in a process asks, for all of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import Event, PickleShareDB, WorkQueue
from psync.engine import DirectoryEngine
from psync.engine.directory.fs import nfs_lookup
from psync.engine.directory.notify.nfs_poll import MAX_SLEEP_S, ROUNDS_PER_S
from psync.sync.queue.consumer import MAX_POLLS_PER_S
from tests.contract.harness import DirectoryHarness, threads
from tests.contract.payloads import item, pickled
from tests.contract.test_watch import BUCKET, CHANGES, LOG
from tests.support import scaled

WAITERS = 50
WATCHED = scaled(1)
"""Seconds for which requests are counted."""


@pytest.fixture
def harness(root: Path) -> Iterator[DirectoryHarness]:
    made = DirectoryHarness(root, sharing="network")
    made.engine.write("a", pickled(1))
    made.engine.bucket(BUCKET).append(item(1, 1))
    made.engine.log(LOG).append([b"x"])
    made.engine.log(LOG).take(7)
    yield made
    made.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_wakes_all_who_sleep_for_it(harness: DirectoryHarness, change: str) -> None:
    name, make = CHANGES[change]
    other, begun, asleep = harness.other(), threading.Event(), threading.Barrier(6)

    def wait(names: list[str], until: threading.Event) -> float:
        with harness.engine.watch(names) as watch:
            watch.pause(0.01)
            asleep.wait()
            while not until.is_set():
                watch.pause(4 * MAX_SLEEP_S)
        return time.monotonic()

    changed, woken = [], threading.Event()

    def work() -> None:
        asleep.wait()
        time.sleep(0.3)  # so that whatever was new when they came is not any more
        begun.set()
        changed.append(time.monotonic())
        make(other)

    def others() -> list[float]:
        found = threads([lambda: wait([name], begun)] * 2 + [lambda: wait(["elsewhere", name], begun)])
        woken.set()
        harness.engine.write("somewhere", pickled(1))
        return found

    jobs: list[Callable[[], Any]] = [others, work, *[lambda: wait(["somewhere"], woken)] * 2]
    ended, *_ = threads(jobs)
    assert max(ended) - changed[0] < MAX_SLEEP_S / 2, "somebody only found it by looking again"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a server would be asked: each opening, each read, each question for a status."""
    made: list[str] = []

    def counting(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    for module, name in ((os, "pread"), (os, "open"), (nfs_lookup, "_revalidate_attributes")):
        counting(module, name)
    return made


WAITS: dict[str, tuple[int, Callable[[PickleShareDB, WorkQueue, int], object]]] = {
    "for one event": (1, lambda db, queue, number: Event(db, "go").wait()),
    "for keys of one folder, one each": (1, lambda db, queue, number: db.waitget(f"wanted/{number}", 100)),
    "for one key": (1, lambda db, queue, number: db.waitget("wanted/key", 100)),
    "for tasks": (6, lambda db, queue, number: queue.get()),
}
"""How many requests a round may take, and how to wait."""


@pytest.mark.parametrize("waiters", [1, WAITERS])
@pytest.mark.parametrize("what", WAITS)
def test_so_many_who_wait_ask_as_often_as_one(root: Path, requests: list[str], what: str, waiters: int) -> None:
    a_round, wait = WAITS[what]
    db = PickleShareDB(DirectoryEngine(root, sharing="network"))
    queue, event = WorkQueue(db, "jobs"), Event(db, "go")
    event.set()
    event.clear()
    db["wanted/other"] = 1
    waiting = [threading.Thread(target=wait, args=(db, queue, number)) for number in range(waiters)]
    for thread in waiting:
        thread.start()
    try:
        time.sleep(1.0)
        before, begun = len(requests), time.monotonic()
        time.sleep(WATCHED)
        asked, took = len(requests) - before, time.monotonic() - begun
    finally:
        event.set()
        queue.put_many(range(waiters))
        db.update({f"wanted/{number}": 1 for number in ("key", *range(waiters))})
        for thread in waiting:
            thread.join()
        db.close()
    print(f"{waiters} who wait {what} ask {asked / took:.1f} times a second")
    assert asked <= a_round * (ROUNDS_PER_S * took + 2)


def test_of_many_workers_each_looks_the_less_often(root: Path, requests: list[str]) -> None:
    many = 4 * MAX_POLLS_PER_S
    with PickleShareDB(DirectoryEngine(root, sharing="network")) as db:
        for number in range(many):
            db.engine.create(f".psync/queue/jobs/holders/{number:016x}", pickled(None))
        queue = WorkQueue(db, "jobs")
        waiting = threading.Thread(target=queue.get)
        waiting.start()
        time.sleep(0.5)
        before, begun = len(requests), time.monotonic()
        time.sleep(WATCHED)
        asked, took = len(requests) - before, time.monotonic() - begun
        queue.put(1)
        waiting.join()
    assert asked <= 6 * (MAX_POLLS_PER_S / many * took + 1)
