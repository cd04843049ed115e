"""A task in the hands of the worker that claimed it: an id, a value, and how it ends."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from psync.engine.contract.log import Record

if TYPE_CHECKING:
    from psync.sync.queue.priorities import Level
    from psync.sync.queue.work_queue import WorkQueue

NOTHING: Any = object()


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


class Task:
    """A claim on one task. Used with ``with``: leaving cleanly is `done`, an exception is `retry`, and goes on its way.

    `attempt` counts from 1 and only grows, so as `token` it fences: a later claim has a larger one. When the claim was
    given away meanwhile, `done`, `retry`, `fail` and `touch` raise `StaleClaim` and change nothing.

    One that came with others (`WorkQueue.get_many`) is begun when its value is first asked for, or by ``with``; that
    raises `StaleClaim`, too. Until then its end, if this process dies, costs it no attempt.
    """

    __slots__ = ("_answers_late", "_level", "_queue", "_record", "_tried", "_value", "id", "settled")

    def __init__(self, queue: WorkQueue, level: Level, record: Record, id: str, value: Any, tried: int) -> None:
        self.id = id
        self.settled = False  # True once it was done, retried or failed here
        self._answers_late = False  # True if its answer may be recorded a moment later, with others
        self._queue = queue
        self._level = level
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
        return f"<Task {self.id!r} of {self._queue.name!r}, attempt {self.attempt}{', settled' * self.settled}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            f"{self!r} can't travel: the claim is this process's. Send its id and value, and settle it here"
        )

    def _begin(self) -> None:
        if not self.settled:
            self._record = self._queue._go_on(self, self._record)

    def touch(self) -> None:
        """Show that it is being worked on: a lease begins anew.

        No system call where marks are mapped, else a pwrite; with a lease: flock, flock.
        """
        self._record = self._queue._go_on(self, self._record)

    def done(self, result: Any = NOTHING) -> None:
        """Finished; `result`, if given, is in the queue's `results` from now on, exactly once.

        In a loop over the queue, where a server is asked (a network file system, Redis), that of a first attempt is
        recorded together with others: at most about 0.05 seconds later, and at once for who asks in this process. So a
        claim that was given away raises nothing here: this changes nothing then. If this process is killed before, the
        task runs again. What the store raises when it refuses them is raised by whatever records them: the loop, or a
        later `done`.

        It is no system call of one's own claim where marks are mapped, else a pwrite; with a lease: flock, flock. A
        result is one `hset` more.
        """
        self._queue._finish(self, result)
        self.settled = True

    def retry(self, error: object = "given back", delay: float = 0.0) -> None:
        """Give it back, for anybody to take, in `delay` seconds; after `max_attempts` it is dead. `error` goes into its
        history."""
        self._queue._set_back(self, str(error), delay=delay)
        self.settled = True

    def fail(self, error: object) -> None:
        """It can't be done: it is dead, and `error` is in its history."""
        self._queue._set_back(self, str(error), for_good=True)
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
            import traceback  # only who fails pays for it

            self.retry("".join(traceback.format_exception(error)))
