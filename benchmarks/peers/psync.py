"""psync itself, through its public names only."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psync

fork = multiprocessing.get_context("fork")

IMPORT = "import psync"
READY = "import psync; psync.PickleShareDB"
"""What has to be run until there is something to call: names are imported when they are first used."""


def _one_more(count: int) -> int:
    return count + 1


class Store:
    def __init__(self, folder: str) -> None:
        self.db = psync.PickleShareDB(folder)
        self.set = self.db.__setitem__
        self.get = self.db.__getitem__
        self.keys = self.db.keys
        self.clear = self.db.clear
        self.forget = self.db.uncache
        self.close = self.db.close

    def incr(self, key: str) -> None:
        self.db.modify(key, _one_more, 0)


class Category:
    def __init__(self, folder: str) -> None:
        self.db = psync.PickleShareDB(folder)
        self.fill = self.db.hupdate
        self.hset = self.db.hset
        self.hget = self.db.hget
        self.hdict = self.db.hdict
        self.hcompress = self.db.hcompress
        self.close = self.db.close


class Mailbox:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)
        box = psync.Mailbox(self.db, "letters")
        self.post = box.post
        self.get = box.get

    def fill(self, letters: dict[str, object]) -> None:
        for address, letter in letters.items():
            self.post(address, letter)

    def close(self) -> None:
        self.db.close()


class Signal:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)

    def wait(self, turn: int, timeout: float) -> float | None:
        try:
            return self.db.waitget(f"turn{turn}", timeout)  # type: ignore[no-any-return]
        except TimeoutError:
            return None

    def send(self, turn: int) -> None:
        self.db[f"turn{turn}"] = time.perf_counter()

    def send_elsewhere(self, turn: int) -> None:
        self.db[f"other{turn}"] = time.perf_counter()


class Flag:
    """The time at which the flag was set goes past it, as it does with multiprocessing."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.sent = fork.RawValue("d")

    def open(self) -> None:
        db = psync.PickleShareDB(self.folder)
        self.event = psync.Event(db, "event")
        self.other = psync.Event(db, "other")

    def wait(self, turn: int, timeout: float) -> float | None:
        return float(self.sent.value) if self.event.wait(timeout) else None

    def lower(self) -> None:
        self.event.clear()

    def send(self, turn: int) -> None:
        self.sent.value = time.perf_counter()
        self.event.set()

    def send_elsewhere(self, turn: int) -> None:
        self.other.set()


class Barrier:
    def __init__(self, folder: str, parties: int) -> None:
        self.folder = folder
        self.parties = parties

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)
        self.wait = psync.Barrier(self.db, "barrier", self.parties).wait

    def close(self) -> None:
        self.db.close()


class Lock:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)
        lock = psync.Lock(self.db, "lock")
        self.acquire = lock.acquire
        self.release = lock.release

    def close(self) -> None:
        self.db.close()


class Semaphore:
    def __init__(self, folder: str, value: int) -> None:
        self.folder = folder
        self.value = value

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)
        semaphore = psync.BoundedSemaphore(self.db, "semaphore", self.value)
        self.acquire = semaphore.acquire
        self.release = semaphore.release

    def close(self) -> None:
        self.db.close()


def import_pool() -> None:
    """What others' adapters import with themselves: psync's names are imported when they are first used."""
    _ = psync.Executor, psync.PickleShareDB


class Pool:
    def __init__(self, folder: str, workers: int) -> None:
        self.executor = psync.Executor(folder, max_workers=workers)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self.executor.map(function, items))

    def submit_all(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [future.result() for future in [self.executor.submit(function, item) for item in items]]

    def close(self) -> None:
        self.executor.shutdown()


class Queue:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)
        self.queue = psync.WorkQueue(self.db, "jobs")
        self.put = self.queue.put

    def take(self) -> bytes:
        task = self.queue.get()
        task.done()
        return task.value  # type: ignore[no-any-return]

    def each(self) -> Iterator[bytes]:
        while True:  # the loop ends whenever the queue is drained
            for task in self.queue:
                value = task.value
                task.done()
                yield value

    def fill(self, items: list[bytes]) -> None:
        self.queue.put_many(items)

    def close(self) -> None:
        self.db.close()
