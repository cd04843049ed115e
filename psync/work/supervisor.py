"""Worker processes on one queue of a directory, kept up until there is nothing to do or they are told to stop.

A worker that ends is replaced, unless it is through. Told to stop (SIGTERM, SIGINT or SIGHUP), each finishes the call
it is at and gives back what it has not begun. Told once more, all are killed; the others give their tasks back. When
the process that keeps them is killed, they finish the call they are at, and end.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from psync.engine.system import process_identity
from psync.errors import PsyncError
from psync.store import PickleShareDB
from psync.sync.queue.work_queue import WorkQueue
from psync.work.shell.exec import end_with
from psync.work.worker import Listening, Worker

STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
THROUGH, FAILED = 1, 2
"""How a worker ended: it is through, or the store refused it something. (Exit codes are its calls' to choose.)"""
AT_ONCE = 0.3
"""Seconds within which another signal counts as the same: `timeout` sends one to its child, and one to the group."""
LOOK = 1.0
REST = 0.5
"""Seconds before a worker is replaced that has made no call."""


class Conditions(NamedTuple):
    """When workers end, and when they rest."""

    idle: float | None = None
    """Seconds without a call after which a worker is through."""
    drain: bool = False
    """Through when nothing is left to do."""
    max_memory: float | None = None
    """Bytes above which a worker process is replaced, when it has ended its call."""
    max_load: float | None = None
    """Of the host, for each processor: above it, no call is begun."""
    attempts: int = 3
    """So often a call is begun at most."""


class Shift:
    """`size` workers on the queue `name`."""

    def __init__(
        self, directory: str, name: str, size: int, conditions: Conditions, *, trust_group: bool = False
    ) -> None:
        self._directory = directory
        self._trust_group = trust_group
        self._name = name
        self._conditions = conditions
        self._queue = self._opened()
        self._context = multiprocessing.get_context("fork")
        self._made = self._context.RawArray("q", size)
        self._ended = self._context.RawArray("b", size)
        self._seats: dict[int, BaseProcess] = {}
        self._vacant: dict[int, float] = {seat: 0.0 for seat in range(size)}
        """Seats to fill, and when."""
        self._begun: dict[int, int] = {}
        """Calls made in each seat before its worker began."""
        self._before: set[int] = set()
        self._stopping = {number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN}
        """Not SIGHUP under `nohup`, say."""
        self._told = 0.0
        self.signal: int | None = None
        """What told us to stop."""
        self.killed = False
        """Told twice: calls were left unfinished."""
        self.failed = False
        """The store refused something; a worker said what on stderr."""

    def _opened(self) -> WorkQueue:
        store = PickleShareDB(self._directory, trust_group=self._trust_group)
        return WorkQueue(store, self._name, max_attempts=self._conditions.attempts)

    @property
    def made(self) -> int:
        """Calls made so far."""
        return sum(self._made)

    def run(self) -> None:
        """Until all workers are through, or told to stop. For a process with one thread."""
        queue, now = self._queue, self._queue.engine.now
        children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        held_back = {signal.SIGCHLD, *self._stopping}
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
        try:
            while self._seats or self._vacant:
                self._fill(now())
                came = signal.sigtimedwait(held_back, REST if self._vacant else LOOK)
                if came is not None and came.si_signo in self._stopping:
                    self._stop(came.si_signo, now())
                self._clear(now())
        finally:
            self._kill()
            queue.recover()  # what they left is there for others at once
            while signal.sigtimedwait({signal.SIGCHLD}, 0) is not None:
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            signal.signal(signal.SIGCHLD, children)
            queue.engine.close()

    def _fill(self, now: float) -> None:
        for seat in [seat for seat, due in self._vacant.items() if due <= now]:
            del self._vacant[seat]
            process = self._context.Process(target=self._work, args=(seat,), name=f"psync worker {seat}")
            self._begun[seat] = self._made[seat]
            process.start()
            self._seats[seat] = process

    def _clear(self, now: float) -> None:
        """Take note of those that ended."""
        for seat, process in [*self._seats.items()]:
            if process.exitcode is None:
                continue
            del self._seats[seat]
            process.close()
            how = self._ended[seat]
            if how == FAILED:
                self.failed = True
                self._dismiss()
            elif how != THROUGH and self.signal is None and not self.failed:
                self._vacant[seat] = now if self._made[seat] > self._begun[seat] else now + REST

    def _stop(self, number: int, now: float) -> None:
        if self.signal is None:
            self.signal, self._told = number, now
            self._dismiss()
        elif now - self._told > AT_ONCE:
            self.signal, self.killed = number, True
            self._kill()

    def _dismiss(self) -> None:
        self._vacant.clear()
        for process in self._seats.values():
            process.terminate()

    def _kill(self) -> None:
        self._vacant.clear()
        for process in self._seats.values():
            process.kill()
        for process in self._seats.values():
            process.join()
            process.close()
        self._seats.clear()

    # -- in a worker -------------------------------------------------------------------------------------

    def _work(self, seat: int) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid is not None:
            end_with(parent.pid, signal.SIGTERM)
        try:
            worker = Worker(self._opened())
            self._listening = _listen(worker, self._stopping, self._before)
            conditions = self._conditions
            enough = self._counted(seat, conditions.max_memory)
            worker.run(idle=conditions.idle, drain=conditions.drain, hold=_held(conditions.max_load), enough=enough)
        except Exception as error:  # what a call raises is its answer
            sys.stderr.write(f"psync worker: {error if isinstance(error, PsyncError) else repr(error)}\n")
            self._ended[seat] = FAILED
            sys.exit(1)
        if not worker.stopping and not self._outgrown(conditions.max_memory):
            self._ended[seat] = THROUGH

    def _counted(self, seat: int, limit: float | None) -> Callable[[], bool]:
        def enough() -> bool:
            self._made[seat] += 1
            return self._outgrown(limit)

        return enough

    def _outgrown(self, limit: float | None) -> bool:
        return limit is not None and process_identity.memory() > limit


def _held(limit: float | None) -> Callable[[], bool] | None:
    return None if limit is None else lambda: process_identity.load() > limit


def _listen(worker: Worker, stopping: set[signal.Signals], mask: set[int]) -> Listening:
    """Stop when told, however often: it is not for us to leave a call unfinished, who keeps us kills us then."""

    def stop() -> None:
        if not worker.stopping:
            worker.stop()

    listening = Listening({signal.SIGTERM, *stopping}, stop)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return listening
