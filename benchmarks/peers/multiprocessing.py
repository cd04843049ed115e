"""multiprocessing's own: an `Event` to wait for, a `Queue` in memory without acknowledgement."""

from __future__ import annotations

import multiprocessing
import time

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


class Queue:
    def __init__(self, folder: str) -> None:
        self.queue = context.Queue()
        self.put = self.queue.put
        self.take = self.queue.get

    def open(self) -> None: ...

    def close(self) -> None: ...
