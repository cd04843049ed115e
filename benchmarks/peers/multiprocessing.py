"""multiprocessing's own: all of it in memory, none of it survives the death of who holds it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from typing import Any

context = multiprocessing.get_context("fork")


class Signal:
    def __init__(self, folder: str) -> None:
        self.event = context.Event()
        self.other = context.Event()
        self.sent = context.RawValue("d")

    def open(self) -> None: ...

    def wait(self, turn: int, timeout: float) -> float | None:
        if not self.event.wait(timeout):
            return None
        self.event.clear()
        return float(self.sent.value)

    def send(self, turn: int) -> None:
        self.sent.value = time.perf_counter()
        self.event.set()

    def send_elsewhere(self, turn: int) -> None:
        self.other.set()


class Flag(Signal):
    def wait(self, turn: int, timeout: float) -> float | None:
        return float(self.sent.value) if self.event.wait(timeout) else None

    def lower(self) -> None:
        self.event.clear()


class Barrier:
    def __init__(self, folder: str, parties: int) -> None:
        self.barrier = context.Barrier(parties)
        self.wait = self.barrier.wait

    def open(self) -> None: ...

    def close(self) -> None: ...


class Lock:
    def __init__(self, folder: str) -> None:
        self.lock = context.Lock()
        self.acquire = self.lock.acquire
        self.release = self.lock.release

    def open(self) -> None: ...

    def close(self) -> None: ...


class Semaphore:
    def __init__(self, folder: str, value: int) -> None:
        self.semaphore = context.BoundedSemaphore(value)
        self.acquire = self.semaphore.acquire
        self.release = self.semaphore.release

    def open(self) -> None: ...

    def close(self) -> None: ...


class Pool:
    def __init__(self, folder: str, workers: int) -> None:
        self.pool = context.Pool(workers)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return self.pool.map(function, items, chunksize=1)

    def submit_all(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [answer.get() for answer in [self.pool.apply_async(function, (item,)) for item in items]]

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


class Queue:
    def __init__(self, folder: str) -> None:
        self.queue = context.Queue()
        self.put = self.queue.put
        self.take = self.queue.get

    def open(self) -> None: ...

    def close(self) -> None: ...
