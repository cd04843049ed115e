"""A task in the hands of the worker that claimed it: an id, a value, and how it ends."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from psync.engine.contract import Record

if TYPE_CHECKING:
    from psync.sync.queue import WorkQueue

NOTHING: Any = object()


class Attempt(NamedTuple):
    """One attempt at a task that did not end well."""

    number: int
    worker: str
    error: str


class DeadTask(NamedTuple):
    """A task that failed for good."""

    id: str
    value: Any
    history: list[Attempt]


class Task:
    """A claim on one task. Used with ``with``: leaving cleanly is `done`, an exception is `retry`, and goes on its way.

    `attempt` counts from 1 and only grows, so as `token` it fences: a later claim has a larger one. When the claim was
    given away meanwhile, `done`, `retry` and `fail` raise `StaleClaim` and change nothing.
    """

    __slots__ = ("_queue", "_record", "id", "settled", "value")

    def __init__(self, queue: WorkQueue, record: Record, id: str, value: Any) -> None:
        self.id = id
        self.value = value
        self.settled = False  # True once it was done, retried or failed here
        self._queue = queue
        self._record = record

    @property
    def attempt(self) -> int:
        """Which attempt at the task this is, from 1."""
        return self._record.mark.attempt

    @property
    def token(self) -> int:
        """Grows with every claim on the task: fence with it what the task changes elsewhere."""
        return self._record.mark.attempt

    def __repr__(self) -> str:
        return f"<Task {self.id!r} of {self._queue.name!r}, attempt {self.attempt}{', settled' * self.settled}>"

    def done(self, result: Any = NOTHING) -> None:
        """Finished; `result`, if given, is in the queue's `results` from now on, exactly once."""
        self._queue._finish(self._record, self.id, result)
        self.settled = True

    def retry(self, error: object = "given back") -> None:
        """Give it back, for anybody to take; after `max_attempts` it is dead. `error` goes into its history."""
        self._queue._set_back(self._record, self.id, str(error))
        self.settled = True

    def fail(self, error: object) -> None:
        """It can't be done: it is dead, and `error` is in its history."""
        self._queue._set_back(self._record, self.id, str(error), for_good=True)
        self.settled = True

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.settled:
            return
        if error is None:
            self.done()
        else:
            self.retry("".join(traceback.format_exception(error)))
