"""Tasks: a claim on one task as the worker sees it, with an id, a value, and the verbs that end the claim."""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Any

from psync.engine.contract.log import Record
from psync.engine.system.reentry import finish_later, takes_effect
from psync.errors import ReentrantCall
from psync.sync.queue.claims import Ack
from psync.sync.queue.prefetch import Prefetched
from psync.sync.queue.priorities import Priority
from psync.sync.queue.task_index import Attempt, DeadTask  # noqa: F401 (pickles of earlier versions name them here)

NO_RESULT: Any = object()
"""The default of `Task.done`: the task is done without a result."""


class Task:
    """A claim on one task. Used with ``with``: leaving cleanly is `done`, an exception is `retry`, and goes on its way.

    `attempt` counts from 1 and only grows, so as `token` it fences: a later claim has a larger one. When the claim was
    given away meanwhile, `done`, `retry`, `fail` and `touch` raise `StaleClaim` and change nothing. So they do in a
    forked child, and the end of ``with`` does: a claim is of the process that made it.

    A task that came with others (`WorkQueue.get_many`) is begun by the first use of its value, or by ``with``; that
    raises `StaleClaim`, too. If this process dies before, the task has used no attempt.
    """

    __slots__ = ("_buffered", "_prefetched", "_priority", "_record", "_tried", "_value", "id", "settled")

    def __init__(
        self,
        prefetched: Prefetched,
        priority: Priority,
        record: Record,
        id: str,
        value: Any,
        tried: int,
        buffered: bool,
    ) -> None:
        self.id = id
        self.settled = False  # True once it was done, retried or failed here
        self._buffered = buffered  # whether `done` may be recorded a moment later, with others
        self._prefetched = prefetched
        self._priority = priority
        self._record = record
        self._value = value
        self._tried = tried

    @property
    def value(self) -> Any:
        """The value that was put."""
        if not self._record.mark.beat and not self.settled:
            self.touch()
        return self._value

    @property
    def attempt(self) -> int:
        """Which attempt at the task this is, from 1; it goes on counting when a dead task is revived."""
        return self._tried + self._record.mark.attempt

    @property
    def token(self) -> int:
        """Grows with every claim on the task: fence with it what the task changes elsewhere."""
        return self._tried + self._record.mark.attempt

    def __repr__(self) -> str:
        settled = ", settled" * self.settled
        return f"<Task {self.id!r} of {self._prefetched.claims.queue_name!r}, attempt {self.attempt}{settled}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            f"{self!r} can't travel: the claim is this process's. Send its id and value, and settle it here"
        )

    @takes_effect
    def touch(self) -> None:
        """Show that it is being worked on: a lease begins anew.

        A stat where marks are mapped, else a pwrite, too; with a lease: flock, flock.
        """
        self._withdraw()
        claims = self._prefetched.claims
        now = claims.beat(self._priority, self._record)
        if now is None:
            raise claims.stale_error(self._record, self.id, answered=self.settled)
        self._record = now

    def _withdraw(self) -> None:
        """Take a task that is not begun out of the prefetched ones, so that nobody gives it back meanwhile."""
        claims = self._prefetched.claims
        if claims.ancestors:
            claims.check_own(self._record, self.id)
        if self.settled:  # record that end first: then the verb finds that the claim is ended, and raises
            self._prefetched.ack_buffer.record()
        self._prefetched.remove(self._record)

    def done(self, result: Any = NO_RESULT) -> None:
        """Finish the task; `result`, if given, is in the queue's `results` from now on, exactly once.

        Makes 1 system call for the claim itself (stat) where marks are mapped, else a pwrite, too; with a lease: flock,
        flock. A result costs one `hset` more.

        In a loop over the queue on a remote engine (a network file system, Redis), the end of a first attempt is
        recorded together with others: at most about 0.05 seconds later, and at once when this process asks for it. So
        `done` does not raise there if the claim was given away: it changes nothing then. If this process is killed
        before the record is made, the task runs again. An error of the store is raised by the call that records: the
        loop, or a later `done`.
        """
        record, claims = self._record, self._prefetched.claims
        mark = record.mark
        if self.settled or not mark.beat or claims.ancestors:
            self._withdraw()
        ops = None if result is NO_RESULT else claims.pack_result(self.id, result)
        # Only first attempts are buffered: a task that kills its worker costs each other task one attempt at most.
        can_wait = self._buffered and mark.attempt == 1 and not self.settled
        try:
            buffered = can_wait and self._prefetched.ack_buffer.add(Ack(self._priority, record, self.id, ops))
            if not buffered and not claims.finish(self._priority, record, self.id, ops):
                raise claims.stale_error(record, self.id, answered=self.settled)
            self.settled = True
        except ReentrantCall:
            finish_later(functools.partial(self._finish, record, ops))

    def _finish(self, record: Record, ops: bytes | None) -> None:
        """End the claim, for `done` that interrupted another call."""
        claims = self._prefetched.claims
        if not claims.finish(self._priority, record, self.id, ops):
            raise claims.stale_error(record, self.id, answered=self.settled)
        self.settled = True

    @takes_effect
    def retry(self, error: object = "given back", delay: float = 0.0) -> None:
        """Give it back, for anybody to take, in `delay` seconds; after `max_attempts` it is dead. `error` goes into its
        history."""
        self._set_back(error, delay=delay)

    @takes_effect
    def fail(self, error: object) -> None:
        """Declare the task dead: it can't be done. `error` goes into its history."""
        self._set_back(error, fatal=True)

    def _set_back(self, error: object, *, delay: float = 0.0, fatal: bool = False) -> None:
        self._withdraw()
        record, claims = self._record, self._prefetched.claims
        if not claims.set_back(self._priority, record, self.id, self._tried, str(error), delay=delay, fatal=fatal):
            raise claims.stale_error(record, self.id, answered=self.settled)
        self.settled = True

    def __enter__(self) -> Task:
        if not self._record.mark.beat and not self.settled:
            self.touch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.settled:
            return
        if error is None:
            self.done()
        elif not isinstance(error, Exception) and self._record.mark.owner in self._prefetched.claims.ancestors:
            pass  # a forked child ends: it has nothing to give back
        else:
            import traceback  # only a task that fails pays for the import

            self.retry("".join(traceback.format_exception(error)))


def attempt_since_revival(task: Task) -> int:
    """Like `Task.attempt`, but counted from 1 again after the task was revived or moved to another store."""
    return task._record.mark.attempt
