"""Worker: claims a task, makes its call, records the outcome; until it is told to stop.

A worker that is told to stop finishes its call. When it is told a second time it stops at once; another worker gets the
task then, as after the end of any worker.
"""

from __future__ import annotations

import queue as stdlib
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from types import FrameType

from psync.engine.system import fork_hooks, process_identity
from psync.errors import QueueClosed, StaleClaim, WaitTimeout
from psync.sync.queue.task import Task
from psync.sync.queue.work_queue import WorkQueue, internals_of
from psync.work import call
from psync.work.call import Stopped

HOLD_POLL_S = 1.0
"""A worker that may be held back asks again after so long, at most."""


class Worker:
    """Makes the calls of a queue's tasks, one after the other, in the thread that runs `run`."""

    def __init__(self, queue: WorkQueue) -> None:
        call.check(queue)
        self._queue = queue
        self._loads = internals_of(queue).priorities.codec.loads
        self._name = queue.engine.describe(queue.engine.owner())
        self._origin = fork_hooks.Origin("Worker")
        self._busy = False
        self.stopping = False
        self.made = 0
        """Calls made so far."""

    def stop(self) -> None:
        """Make no more calls. For a signal handler: raises `Stopped` if there is nothing to finish, or at the second
        time."""
        again, self.stopping = self.stopping, True
        if again or not self._busy:
            raise Stopped(0)

    def run(
        self,
        *,
        idle: float | None = None,
        most: int | None = None,
        drain: bool = False,
        hold: Callable[[], bool] | None = None,
        enough: Callable[[], bool] = lambda: False,
    ) -> int:
        """Work until told to stop, or for `most` calls, or until nothing came for `idle` seconds, or (`drain`) until
        nothing is left to do, or until the queue is closed and worked off. Returns how many calls were made.

        While `hold` says so, no call is begun; it is asked before each, and now and then. `enough` is asked after each
        call, and ends it. Raises `ForkedCopy` in a forked child of the process that made the worker.
        """
        self._origin.check()
        if self.stopping:
            return self.made
        if hold is None:
            taken = internals_of(self._queue).consumer.loop(drain=drain, idle=None if drain else idle)
        else:
            taken = self._one_by_one(idle, drain, hold)
        try:
            with closing(taken):
                for task in taken:
                    self._do(task)
                    if enough() or self.stopping or self.made == most:
                        break
        except (stdlib.Empty, QueueClosed, Stopped):
            pass
        return self.made

    def _one_by_one(self, idle: float | None, drain: bool, hold: Callable[[], bool]) -> Generator[Task, None, None]:
        """Yield the tasks, each claimed after `hold` said no; a worker that is held back holds none."""
        now, rest = self._queue.engine.now, threading.Event()
        since = now()
        while True:
            if hold():
                rest.wait(HOLD_POLL_S)
                since = now()
                continue
            left = HOLD_POLL_S if idle is None else max(0.0, since + idle - now())
            try:
                task = self._queue.get(timeout=min(left, HOLD_POLL_S))
            except stdlib.Empty:
                if left < HOLD_POLL_S or (drain and self._is_drained()):
                    return
            else:
                yield task
                since = now()

    def _is_drained(self) -> bool:
        try:
            self._queue.join(timeout=0)
        except WaitTimeout:
            return False
        return True

    def _do(self, task: Task) -> None:
        self._busy = True
        try:
            self._answer(task)
        except StaleClaim:
            pass  # it was given to another worker meanwhile, whose answer counts
        finally:
            self._busy = False
            self.made += 1

    def _answer(self, task: Task) -> None:
        payload = task.value
        outcome = call.make(payload, self._name, self._loads)
        if outcome.error is not None:
            terms = call.terms_of(payload, self._loads)
            if task.attempt <= terms.retries and task.attempt < self._queue.max_attempts:
                task.retry(outcome.error.__cause__, delay=terms.pause)
                return
        task.done(call.seal(outcome))


class Listening:
    """Handles signals by stopping a worker, until it is closed. Processes that its calls fork handle them as before.

    Only in a main thread.
    """

    def __init__(self, numbers: Iterable[int], stop: Callable[[], object]) -> None:
        me = process_identity.this_pid()

        def told(number: int, frame: FrameType | None) -> None:
            if process_identity.this_pid() != me:
                # a child that was forked a moment ago and has not come to `after_fork`: the signal is not the worker's
                self.close()
                signal.raise_signal(number)
                return
            stop()

        self._before = {number: signal.signal(number, told) or signal.SIG_DFL for number in numbers}
        fork_hooks.remember(self)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def after_fork(self) -> None:
        self.close()


def tell_main_thread(number: int) -> None:
    """The signal `number` for this process's main thread, which may be asleep."""
    signal.pthread_kill(threading.main_thread().ident or 0, number)
