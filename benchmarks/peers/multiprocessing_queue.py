"""multiprocessing's `Queue` as something to wait for."""

from __future__ import annotations

import multiprocessing
import queue
import time

context = multiprocessing.get_context("fork")


class Signal:
    def __init__(self, folder: str) -> None:
        self.queue = context.Queue()
        self.other = context.Queue()

    def open(self) -> None: ...

    def wait(self, turn: int, timeout: float) -> float | None:
        try:
            return float(self.queue.get(timeout=timeout))
        except queue.Empty:
            return None

    def send(self, turn: int) -> None:
        self.queue.put(time.perf_counter())

    def send_elsewhere(self, turn: int) -> None:
        self.other.put(time.perf_counter())
