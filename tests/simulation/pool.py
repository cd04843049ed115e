"""Threads that are used again, each with a baton: who is handed its baton runs, and all others stand still."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType


class Worker:
    """One thread. It does its job once it is handed the baton, which the job may hand on, and wait for, meanwhile."""

    def __init__(self, cpu: int) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.job: Callable[[], None] | None = None
        self._cpu = cpu
        self._thread = threading.Thread(target=self._work, name="an actor", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        os.sched_setaffinity(0, {self._cpu})  # of this thread; the baton changes hands twice as fast on one CPU
        while True:
            self.baton.acquire()
            if self.job is None:
                return
            self.job()

    def end(self) -> None:
        self.job = None
        self.baton.release()
        self._thread.join()


class Pool:
    """As many workers as were ever needed at once. They end with the ``with`` block."""

    def __init__(self) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        self._cpu = cpus[os.getpid() % len(cpus)]
        self._workers: list[Worker] = []

    def workers(self, count: int) -> list[Worker]:
        while len(self._workers) < count:
            self._workers.append(Worker(self._cpu))
        return self._workers[:count]

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()
