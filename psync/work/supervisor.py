"""Supervisor of ``psync worker``: keeps worker processes running on one queue, until all is done or it is stopped.

A worker that ends is replaced, unless it is through. At the first signal (SIGTERM, SIGINT or SIGHUP) each worker
finishes its call and gives back what it has not begun. At the second one all are killed; other workers make their calls
then. When the supervisor itself is killed, its workers finish their calls, and end.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

from psync.engine.system import process_identity
from psync.errors import PsyncError
from psync.store import PickleShareDB
from psync.sync.queue.work_queue import WorkQueue
from psync.work.pool import WorkerPool
from psync.work.shell.exec import end_with
from psync.work.worker import Listening, Worker

STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
THROUGH, FAILED = 1, 2
"""How a worker ended: it is through, or the store refused it something. Exit codes can't say so: calls choose them."""
SAME_SIGNAL_S = 0.3
"""Another signal within this time counts as the same: `timeout` sends one to its child, and one to the group."""
POLL_S = 1.0
RESTART_DELAY_S = 0.5
"""A worker that made no call is replaced after this time."""


class WorkerLimits(NamedTuple):
    """When workers end, and when they pause."""

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


class Supervisor:
    """Runs `size` workers on the queue `name`."""

    def __init__(
        self, directory: str, name: str, size: int, limits: WorkerLimits, *, trust_group: bool = False
    ) -> None:
        self._directory = directory
        self._trust_group = trust_group
        self._name = name
        self._limits = limits
        self._queue = self._opened()
        context = multiprocessing.get_context("fork")
        self._made = context.RawArray("q", size)
        """Calls made in each slot; shared with the workers."""
        self._ended = context.RawArray("b", size)
        """How the worker of each slot ended; shared with the workers."""
        self._pool = WorkerPool[int](context)
        """By slot."""
        self._vacant: dict[int, float] = {slot: 0.0 for slot in range(size)}
        """Slots without a worker, and when to start one."""
        self._made_before: dict[int, int] = {}
        """Calls made in each slot before its present worker started."""
        self._before: set[int] = set()
        self._stopping = {number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN}
        """Not SIGHUP under `nohup`, say."""
        self._told = 0.0
        self.signal: int | None = None
        """The signal that told us to stop."""
        self.killed = False
        """Told twice: calls were left unfinished."""
        self.failed = False
        """The store refused something; a worker said what on stderr."""

    def _opened(self) -> WorkQueue:
        store = PickleShareDB(self._directory, trust_group=self._trust_group)
        return WorkQueue(store, self._name, max_attempts=self._limits.attempts)

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
            while self._pool or self._vacant:
                self._fill(now())
                came = signal.sigtimedwait(held_back, RESTART_DELAY_S if self._vacant else POLL_S)
                if came is not None and came.si_signo in self._stopping:
                    self._on_signal(came.si_signo, now())
                self._clear(now())
        finally:
            self._kill()
            queue.recover()  # others can claim at once what the workers had
            while signal.sigtimedwait({signal.SIGCHLD}, 0) is not None:
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            signal.signal(signal.SIGCHLD, children)
            queue.engine.close()

    def _fill(self, now: float) -> None:
        """Start a worker in each vacant slot whose time has come."""
        for slot in [slot for slot, due in self._vacant.items() if due <= now]:
            del self._vacant[slot]
            self._made_before[slot] = self._made[slot]
            self._pool.start(slot, self._work, (slot,), f"psync worker {slot}")

    def _clear(self, now: float) -> None:
        """Note which workers ended, and which of them to replace."""
        for slot in self._pool.take_ended():
            how = self._ended[slot]
            if how == FAILED:
                self.failed = True
                self._stop()
            elif how != THROUGH and self.signal is None and not self.failed:
                has_worked = self._made[slot] > self._made_before[slot]
                self._vacant[slot] = now if has_worked else now + RESTART_DELAY_S

    def _on_signal(self, number: int, now: float) -> None:
        if self.signal is None:
            self.signal, self._told = number, now
            self._stop()
        elif now - self._told > SAME_SIGNAL_S:
            self.signal, self.killed = number, True
            self._kill()

    def _stop(self) -> None:
        self._vacant.clear()
        self._pool.terminate()

    def _kill(self) -> None:
        self._vacant.clear()
        self._pool.kill()

    # -- in a worker -------------------------------------------------------------------------------------

    def _work(self, slot: int) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid is not None:
            end_with(parent.pid, signal.SIGTERM)
        try:
            worker = Worker(self._opened())
            self._listening = _listen(worker, self._stopping, self._before)
            limits = self._limits
            enough = self._counted(slot, limits.max_memory)
            worker.run(idle=limits.idle, drain=limits.drain, hold=_held(limits.max_load), enough=enough)
        except Exception as error:  # not a call's: an exception of a call is its result
            sys.stderr.write(f"psync worker: {error if isinstance(error, PsyncError) else repr(error)}\n")
            self._ended[slot] = FAILED
            sys.exit(1)
        if not worker.stopping and not self._outgrown(limits.max_memory):
            self._ended[slot] = THROUGH

    def _counted(self, slot: int, limit: float | None) -> Callable[[], bool]:
        def enough() -> bool:
            self._made[slot] += 1
            return self._outgrown(limit)

        return enough

    def _outgrown(self, limit: float | None) -> bool:
        return limit is not None and process_identity.memory() > limit


def _held(limit: float | None) -> Callable[[], bool] | None:
    return None if limit is None else lambda: process_identity.load() > limit


def _listen(worker: Worker, stopping: set[signal.Signals], mask: set[int]) -> Listening:
    """Stop at the first signal and ignore the others: only the supervisor may end a call early, by killing."""

    def stop() -> None:
        if not worker.stopping:
            worker.stop()

    listening = Listening({signal.SIGTERM, *stopping}, stop)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return listening
