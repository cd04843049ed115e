"""The workers that an executor starts itself: as many processes as it is allowed, each replaced when it dies.

They end when they are dismissed, or when the process that started them does.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess, parent_process
from typing import Any, NamedTuple

from psync.sync.queue.work_queue import WorkQueue
from psync.work.call import Stopped
from psync.work.worker import Listening, Worker, tell_main_thread

PATIENCE = 10.0
"""Seconds that dismissed workers have to finish what they are at, once their tasks are done."""


class Beginning(NamedTuple):
    """What each worker does first, and how many calls it makes at most."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    most: int | None = None
    idle: float | None = None
    """Seconds without a call after which a worker ends, to be started again when it is wanted."""


class Crew:
    """Up to `limit` worker processes on one queue."""

    def __init__(self, queue: WorkQueue, context: BaseContext, limit: int, beginning: Beginning) -> None:
        self._queue = queue
        self._context = context
        self._limit = limit
        self._beginning = beginning
        self._processes: dict[BaseProcess, Connection] = {}
        """Each with what it says something into when it begins to work."""
        self._lock = threading.Lock()
        self.spoiled = False
        """True once a worker failed before it began to work: no more are started."""

    def grow(self, wanted: int) -> None:
        """There are `wanted` workers, or as many as are allowed."""
        with self._lock:
            while len(self._processes) < min(wanted, self._limit) and not self.spoiled:
                begun, begins = self._context.Pipe(duplex=False)
                process = self._context.Process(  # type: ignore[attr-defined]
                    target=_work, args=(self._queue, self._beginning, begins), name="psync worker"
                )
                process.start()
                begins.close()
                self._processes[process] = begun

    def trouble(self) -> str | None:
        """Replace those that ended; why no more calls will be made by this crew, if that is so."""
        with self._lock:
            ended = [process for process in self._processes if process.exitcode is not None]
            wanted = len(self._processes)
            for process in ended:
                self.spoiled |= self._bury(process)
        self.grow(wanted)
        return (
            "a worker failed before it could begin (its initializer, or the import of the main module, raised): see "
            "what it printed"
            if self.spoiled
            else None
        )

    def _bury(self, process: BaseProcess) -> bool:
        """True if another would end like this one, which was not killed and still never began to work."""
        begun = self._processes.pop(process)
        failed = bool(process.exitcode and process.exitcode > 0) and not _said_something(begun)
        begun.close()
        process.close()
        return failed

    def dismiss(self) -> None:
        """All stop, once they are through with the call they are at; returns when they have ended."""
        self._end(BaseProcess.terminate)

    def kill(self) -> None:
        """All are ended at once, and no others are started. What they were at will be given back."""
        self._limit = 0
        self._end(BaseProcess.kill)

    def _end(self, tell: Callable[[BaseProcess], None]) -> None:
        with self._lock:
            crew, self._processes = self._processes, {}
        for process in crew:
            if process.exitcode is None:
                tell(process)
        for process, begun in crew.items():
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()
            begun.close()

    def __len__(self) -> int:
        return len(self._processes)


def _said_something(begun: Connection) -> bool:
    try:
        return begun.poll() and bool(begun.recv_bytes())
    except EOFError:
        return False


def _work(queue: WorkQueue, beginning: Beginning, begins: Connection) -> None:
    """The life of one worker process."""
    worker = Worker(queue)
    with closing(Listening((signal.SIGTERM, signal.SIGINT), worker.stop)):
        parent = parent_process()
        if parent is not None:
            threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
        if beginning.initializer is not None:
            try:
                beginning.initializer(*beginning.initargs)
            except Stopped:
                raise
            except BaseException:
                traceback.print_exc()
                sys.exit(1)
        begins.send_bytes(b"begun")
        begins.close()
        worker.run(most=beginning.most, idle=beginning.idle)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    tell_main_thread(signal.SIGTERM)
