"""Local workers: the processes that an executor starts itself, on demand and up to a limit; one that dies is replaced.

They end when the executor stops them, or when the process that started them ends.
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
from multiprocessing.process import parent_process
from typing import Any, NamedTuple

from psync.engine.system.reentry import Section, takes_effect
from psync.sync.queue.work_queue import WorkQueue
from psync.work.call import Stopped
from psync.work.pool import WorkerPool
from psync.work.worker import Listening, Worker, tell_main_thread

STOP_GRACE_S = 10.0
"""Seconds after which a worker that was told to stop is killed."""
FAILURE = (
    "a worker failed before it could begin (its initializer, or the import of the main module, raised): see what it "
    "printed"
)


class WorkerOptions(NamedTuple):
    """How each worker begins, and when it ends."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    max_calls: int | None = None
    idle: float | None = None
    """Seconds without a call after which a worker ends; it is started again when there is a call."""


class LocalWorkers:
    """Up to `limit` worker processes on one queue."""

    def __init__(self, queue: WorkQueue, context: BaseContext, limit: int, options: WorkerOptions) -> None:
        self._queue = queue
        self._context = context
        self._limit = limit
        self._options = options
        self._pool = WorkerPool[Connection](context)
        """By the pipe into which the worker writes when it begins to work."""
        self._section = Section("the list of this executor's workers")
        self.broken = False
        """True once a worker failed before it began to work: no more are started."""

    @takes_effect
    def grow(self, wanted: int) -> None:
        """Start workers until there are `wanted`, or as many as are allowed."""
        with self._section, self._section.lock:
            while len(self._pool) < min(wanted, self._limit) and not self.broken:
                begun, begins = self._context.Pipe(duplex=False)
                self._pool.start(begun, _work, (self._queue, self._options, begins), "psync worker")
                begins.close()

    def replace_ended(self) -> str | None:
        """Start a worker for each that ended; returns why these workers will make no more calls, if that is so."""
        with self._section, self._section.lock:
            wanted = len(self._pool)
            for begun, code in self._pool.take_ended().items():
                # a worker that was not killed and never began to work: another one would end in the same way
                self.broken |= code > 0 and not _has_begun(begun)
                begun.close()
        self.grow(wanted)
        return FAILURE if self.broken else None

    @takes_effect
    def stop(self) -> None:
        """Stop all workers when they have finished their calls; returns when they have ended."""
        self._take_all().stop(STOP_GRACE_S)

    @takes_effect
    def kill(self) -> None:
        """Kill all workers, and start no others. The calls that they were making will be given back."""
        self._limit = 0
        self._take_all().kill()

    def _take_all(self) -> WorkerPool[Connection]:
        """The pool, which is this caller's to end; another thread finds an empty one."""
        with self._section, self._section.lock:
            pool, self._pool = self._pool, WorkerPool(self._context)
        return pool

    def pids(self) -> list[int]:
        """The process ids of the workers."""
        with self._section, self._section.lock:
            return self._pool.pids()


def _has_begun(begun: Connection) -> bool:
    try:
        return begun.poll() and bool(begun.recv_bytes())
    except EOFError:
        return False


def _work(queue: WorkQueue, options: WorkerOptions, begins: Connection) -> None:
    """The life of one worker process."""
    worker = Worker(queue)
    with closing(Listening((signal.SIGTERM, signal.SIGINT), worker.stop)):
        parent = parent_process()
        if parent is not None:
            threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
        if options.initializer is not None:
            try:
                options.initializer(*options.initargs)
            except Stopped:
                raise
            except BaseException:
                traceback.print_exc()
                sys.exit(1)
        begins.send_bytes(b"begun")
        begins.close()
        worker.run(most=options.max_calls, idle=options.idle)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    tell_main_thread(signal.SIGTERM)
