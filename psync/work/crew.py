"""The workers that an executor starts itself: as many processes as it is allowed, each replaced when it dies.

They end when they are dismissed, or when the process that started them does.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess, parent_process
from typing import Any, NamedTuple

from psync.sync.queue import WorkQueue
from psync.work.worker import Worker, stopped_by_signals, tell_main_thread

FAILED_TO_BEGIN = 77
"""Exit code of a worker whose initializer raised."""
PATIENCE = 10.0
"""Seconds that dismissed workers have to finish what they are at, once their tasks are done."""


class Beginning(NamedTuple):
    """What each worker does first, and how many calls it makes at most."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    most: int | None = None


class Crew:
    """Up to `limit` worker processes on one queue."""

    def __init__(self, queue: WorkQueue, context: BaseContext, limit: int, beginning: Beginning) -> None:
        self._queue = queue
        self._context = context
        self._limit = limit
        self._beginning = beginning
        self._processes: list[BaseProcess] = []
        self._lock = threading.Lock()
        self.spoiled = False
        """True once an initializer raised: no more workers are started."""

    def grow(self, wanted: int) -> None:
        """There are `wanted` workers, or as many as are allowed."""
        with self._lock:
            while len(self._processes) < min(wanted, self._limit) and not self.spoiled:
                process = self._context.Process(  # type: ignore[attr-defined]
                    target=_work, args=(self._queue, self._beginning), name="psync worker"
                )
                process.start()
                self._processes.append(process)

    def trouble(self) -> str | None:
        """Replace those that ended; why no more calls will be made by this crew, if that is so."""
        self._tend()
        return "a worker's initializer failed: see what it printed" if self.spoiled else None

    def _tend(self) -> None:
        with self._lock:
            ended = [process for process in self._processes if process.exitcode is not None]
            self._processes = [process for process in self._processes if process not in ended]
            wanted = len(self._processes) + len(ended)
        self.spoiled = self.spoiled or any(process.exitcode == FAILED_TO_BEGIN for process in ended)
        for process in ended:
            process.close()
        self.grow(wanted)

    def dismiss(self) -> None:
        """All stop, once they are through with the call they are at; returns when they have ended."""
        with self._lock:
            crew, self._processes = self._processes, []
        for process in crew:
            if process.exitcode is None:
                process.terminate()
        for process in crew:
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()

    def __len__(self) -> int:
        return len(self._processes)


def _work(queue: WorkQueue, beginning: Beginning) -> None:
    """The life of one worker process."""
    worker = Worker(queue)
    with stopped_by_signals(worker):
        parent = parent_process()
        if parent is not None:
            threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
        if beginning.initializer is not None:
            try:
                beginning.initializer(*beginning.initargs)
            except BaseException:
                traceback.print_exc()
                sys.exit(FAILED_TO_BEGIN)
        worker.run(most=beginning.most)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    tell_main_thread(signal.SIGTERM)
