"""Tasks: a claim on one task as the worker sees it, with an id, a value, and the verbs that end the claim."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Protocol

from psync.engine.contract.log import Record
from psync.sync.queue.priorities import Priority

NO_RESULT: Any = object()
"""The default of `Task.done`: the task is done without a result."""


class Attempt(NamedTuple):
    """One attempt at a task that did not end well."""

    number: int
    worker: str
    error: str


class DeadTask(NamedTuple):
    """A task that failed for good. Where its value can't be unpickled, `value` is the exception that says so."""

    id: str
    value: Any
    history: list[Attempt]


class Settlement(Protocol):
    """The part of a queue that a `Task` asks to change its claim. Each verb raises `StaleClaim` if the claim is lost.

    `settled`: the task was done, retried or failed through this handle before.
    """

    queue_name: str

    def touch(self, priority: Priority, record: Record, id: str, settled: bool) -> Record:
        """Begin the task, or renew its lease; returns the record as it is now."""

    def finish(self, priority: Priority, record: Record, id: str, result: Any, settled: bool, buffered: bool) -> None:
        """End the claim well. `buffered`: the acknowledgement may be recorded a moment later, with others."""

    def set_back(
        self,
        priority: Priority,
        record: Record,
        id: str,
        tried: int,
        why: str,
        settled: bool,
        delay: float,
        fatal: bool,
    ) -> None:
        """Give the task back, perhaps for later; it is dead if that is `fatal` or its attempts are used up."""


class Task:
    """A claim on one task. Used with ``with``: leaving cleanly is `done`, an exception is `retry`, and goes on its way.

    `attempt` counts from 1 and only grows, so as `token` it fences: a later claim has a larger one. When the claim was
    given away meanwhile, `done`, `retry`, `fail` and `touch` raise `StaleClaim` and change nothing.

    A task that came with others (`WorkQueue.get_many`) is begun when its value is first asked for, or by ``with``; that
    raises `StaleClaim`, too. If this process dies before, the task has used no attempt.
    """

    __slots__ = ("_buffered", "_priority", "_record", "_settlement", "_tried", "_value", "id", "settled")

    def __init__(
        self,
        settlement: Settlement,
        priority: Priority,
        record: Record,
        id: str,
        value: Any,
        tried: int,
        buffered: bool,
    ) -> None:
        self.id = id
        self.settled = False  # True once it was done, retried or failed here
        self._buffered = buffered
        self._settlement = settlement
        self._priority = priority
        self._record = record
        self._value = value
        self._tried = tried

    @property
    def value(self) -> Any:
        """What was put."""
        if not self._record.mark.beat:
            self._begin()
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
        return f"<Task {self.id!r} of {self._settlement.queue_name!r}, attempt {self.attempt}{settled}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            f"{self!r} can't travel: the claim is this process's. Send its id and value, and settle it here"
        )

    def _begin(self) -> None:
        if not self.settled:
            self.touch()

    def touch(self) -> None:
        """Show that it is being worked on: a lease begins anew.

        No system call where marks are mapped, else a pwrite; with a lease: flock, flock.
        """
        self._record = self._settlement.touch(self._priority, self._record, self.id, self.settled)

    def done(self, result: Any = NO_RESULT) -> None:
        """Finish the task; `result`, if given, is in the queue's `results` from now on, exactly once.

        Makes no system call for the claim itself where marks are mapped, else a pwrite; with a lease: flock, flock. A
        result costs one `hset` more.

        In a loop over the queue, where a server is asked (a network file system, Redis), the end of a first attempt is
        recorded together with others: at most about 0.05 seconds later, and at once when this process asks for it. So
        `done` does not raise there if the claim was given away: it changes nothing then. If this process is killed
        before the record is made, the task runs again. An error of the store is raised by the call that records: the
        loop, or a later `done`.
        """
        self._settlement.finish(self._priority, self._record, self.id, result, self.settled, self._buffered)
        self.settled = True

    def retry(self, error: object = "given back", delay: float = 0.0) -> None:
        """Give it back, for anybody to take, in `delay` seconds; after `max_attempts` it is dead. `error` goes into its
        history."""
        self._set_back(error, delay, fatal=False)

    def fail(self, error: object) -> None:
        """Declare the task dead: it can't be done. `error` goes into its history."""
        self._set_back(error, 0.0, fatal=True)

    def _set_back(self, error: object, delay: float, *, fatal: bool) -> None:
        self._settlement.set_back(
            self._priority, self._record, self.id, self._tried, str(error), self.settled, delay, fatal
        )
        self.settled = True

    def __enter__(self) -> Task:
        if not self._record.mark.beat:
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.settled:
            return
        if error is None:
            self.done()
        else:
            import traceback  # only a task that fails pays for the import

            self.retry("".join(traceback.format_exception(error)))


def attempt_since_revival(task: Task) -> int:
    """Like `Task.attempt`, but counted from 1 again after the task was revived or moved to another store."""
    return task._record.mark.attempt
