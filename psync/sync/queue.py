"""Tasks that any number of processes put in and take out, each worked at least once, each answered exactly once.

A queue is a log below ``.psync/queue/``: a task is a record, and the record's mark says how far it has come. The facts
that decide: a task exists once the log ends behind it; it is mine when its mark names me; it is done when its mark
says so, and it only gets there from *my* mark. Results are a mailbox: the letter is written while the mark is certain
to be mine, before the mark goes to DONE; a crash in between is found by looking for the letter.

A worker is known by its owner number, in ``holders/``. Whoever comes by and finds a holder dead (by proof, see
`psync.engine.owner`) gives its tasks back, each with one attempt used up.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from psync.engine.contract import Alive, Mark, Record, State
from psync.errors import PsyncError, StaleClaim, TaskFailed, WaitTimeout
from psync.store import codec
from psync.store.category import MISSING, Category
from psync.store.waiting import NOT_YET
from psync.sync.mailbox import Mailbox
from psync.sync.place import Place, engine_of, own_name
from psync.sync.task import NOTHING, Attempt, DeadTask, Task

LOOK_FOR_DEAD = 0.25
"""Seconds between two looks for dead workers, by each process that takes tasks or waits for them."""
_NOBODY = codec.dumps(None)


class QueueStatistics(NamedTuple):
    """What `WorkQueue.statistics` saw."""

    put: int
    """Tasks ever put in."""
    waiting: int
    running: int
    dead: int
    workers: int
    """Processes that took tasks and have not left."""


class WorkQueue:
    """A queue of tasks for the processes of one directory; first in, first out.

    >>> import tempfile
    >>> jobs = WorkQueue(tempfile.mkdtemp(), "jobs")
    >>> ids = jobs.put_many([3, 4])
    >>> for task in jobs:
    ...     with task:
    ...         task.done(task.value**2)
    >>> [jobs.results.get(id) for id in ids]
    [9, 16]

    A task whose worker dies, or raises, is given to another, up to `max_attempts` times; then it is dead, with its
    history (`dead`). What is promised is a result recorded once, not that only one worker ever runs a task.
    """

    def __init__(self, db: Place, name: str = "jobs", *, max_attempts: int = 3) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts!r}")
        self.name = name
        self.max_attempts = max_attempts
        self._engine = engine_of(db)
        self._where = own_name("queue", name)
        self._log = self._engine.log(self._where)
        self._ids = Category(self._engine, self._where + "/ids")
        self._history = Category(self._engine, self._where + "/history")
        self._graves = Category(self._engine, self._where + "/dead")
        self._owner = 0
        self._next_look = self._engine.now() + LOOK_FOR_DEAD
        self._looked = False
        self.results = Results(self)
        """The mailbox of results, by task id: None for a task done without one, `TaskFailed` for a dead one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._engine, self.name, self.max_attempts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.qsize()} waiting>"

    # -- putting in ------------------------------------------------------------------------------------

    def put(self, value: Any, *, id: str | None = None) -> str:
        """Add a task and return its id. An `id` of the caller's own put twice, by anybody, is one task.

        One append: flock, pread, pwrite, pwrite, unlock. Killed, the task is there whole or not at all.
        """
        if id is None:
            return _id_of(self._log.append([codec.dumps((None, value))])[0])
        if not isinstance(id, str) or not id or id.startswith("#"):
            raise ValueError(f"a task's id must be a str that is not empty and does not begin with '#', not {id!r}")
        payload = codec.dumps((id, value))
        with self._log.held():
            if self._ids.get(id, fast_only=True) is MISSING:
                # the record first: if we die before the id is known, whoever takes the record makes it known
                self._ids.set(id, self._log.append([payload])[0])
        return id

    def put_many(self, values: Iterable[Any]) -> list[str]:
        """Add tasks, all or none of them, and return their ids: one append for all."""
        return [_id_of(position) for position in self._log.append([codec.dumps((None, value)) for value in values])]

    # -- taking out ------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Task:
        """The next task, claimed by this process. Raises `queue.Empty` if none comes within `timeout` seconds.

        flock, pread, pread, pwrite, pwrite, unlock when a task is waiting.
        """
        task = self._take()
        if task is not None:
            return task
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout!r}")
        task = self._wait(0.0 if not block else timeout, until_finished=False)
        if task is None:
            raise queue.Empty
        return task

    def __iter__(self) -> Iterator[Task]:
        """Take tasks until the queue is drained: none is waiting, and none is being worked on that could come back."""
        while True:
            task = self._take() or self._wait(None, until_finished=True)
            if task is None:
                return
            yield task

    def _wait(self, timeout: float | None, *, until_finished: bool) -> Task | None:
        deadline = None if timeout is None else self._engine.now() + timeout
        names = [self._where, *([self._where + "/final"] if until_finished else [])]
        with self._engine.watch(names) as watch:
            if not self._looked:
                self.recover()
            while True:
                task = self._take()
                if task is not None or (until_finished and self._log.finished()):
                    return task
                left = None if deadline is None else deadline - self._engine.now()
                if left is not None and left <= 0:
                    return None
                watch.pause(LOOK_FOR_DEAD if left is None else min(left, LOOK_FOR_DEAD))

    def _take(self) -> Task | None:
        owner = self._register()
        self._recover_now_and_then()
        while True:
            records = self._log.take(owner)
            if not records:
                return None
            try:
                task = self._open(records[0])
            except BaseException:
                self._give_up(records[0])
                raise
            if task is not None:
                return task

    def _register(self) -> int:
        """Leave word that this process may hold tasks, before it does."""
        owner = self._engine.owner()
        if owner != self._owner:
            self._engine.create(f"{self._where}/holders/{owner:016x}", _NOBODY)
            self._owner = owner
        return owner

    def _open(self, record: Record) -> Task | None:
        """The task in a record just claimed; None if it is not to be worked on."""
        try:
            id, value = codec.loads(record.payload)
        except Exception as error:
            self._set_back(record, _id_of(record.position), f"can't be unpickled here: {error!r}")
            return None
        if id is not None and self._is_twin(record.position, id):
            self._log.settle(record.position, record.mark, Mark(State.DONE, record.mark.attempt))
            return None
        return Task(self, record, id or _id_of(record.position), value)

    def _give_up(self, record: Record) -> None:
        """Whoever asked for this task hears of an error instead: let somebody else have it."""
        with contextlib.suppress(PsyncError):  # or it comes back when this process ends
            self._log.settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt - 1))

    def _is_twin(self, position: int, id: str) -> bool:
        """True if `id` is another record's: who put this one died before the id was known, and it was put again."""
        with self._log.held():
            known = self._ids.get(id, fast_only=True)
            if known is MISSING:
                self._ids.set(id, position)
        return known is not MISSING and known != position

    # -- what a task says ------------------------------------------------------------------------------

    def _finish(self, record: Record, id: str, result: Any) -> None:
        ops = None if result is NOTHING else codec.item(id, result)
        before = None if ops is None else lambda: self.results.write(id, ops)
        if not self._log.settle(record.position, record.mark, Mark(State.DONE, record.mark.attempt), before):
            raise self._stale(record, id)

    def _set_back(self, record: Record, id: str, why: str, *, for_good: bool = False) -> None:
        """Give a claimed task back, or bury it if its attempts are used up. Raises `StaleClaim`."""
        attempt = record.mark.attempt
        state = State.DEAD if for_good or attempt >= self.max_attempts else State.WAITING

        def remember() -> None:
            history = self._history.get(id, fast_only=False)
            history = [] if history is MISSING else [past for past in history if past.number != attempt]
            history.append(Attempt(attempt, self._engine.describe(record.mark.owner), why))
            self._history.set(id, history)
            if state is State.DEAD:
                self._graves.set(id, record.position)

        if not self._log.settle(record.position, record.mark, Mark(state, attempt), remember):
            raise self._stale(record, id)

    def _stale(self, record: Record, id: str) -> StaleClaim:
        return StaleClaim(
            f"task {id!r} of queue {self.name!r} was given to somebody else after attempt {record.mark.attempt} began; "
            "this answer came too late and was not recorded",
            task=id,
            token=record.mark.attempt,
        )

    # -- the dead --------------------------------------------------------------------------------------

    def _recover_now_and_then(self) -> None:
        if self._engine.now() >= self._next_look:
            self.recover()

    def recover(self) -> int:
        """Give back the tasks of workers that are dead; returns how many. Every worker does it by itself, often."""
        self._next_look = self._engine.now() + LOOK_FOR_DEAD
        self._looked = True
        returned = 0
        for holder in self._engine.entries(self._where + "/holders")[0]:
            owner = int(holder, 16)
            if self._engine.alive(owner) is Alive.NO:
                for record in self._log.claims():
                    if record.mark.owner == owner:
                        returned += self._recover(record)
                self._engine.delete(f"{self._where}/holders/{holder}")
        return returned

    def _recover(self, record: Record) -> bool:
        """What a dead worker held goes where it would have gone; True if it can be taken again."""
        id = _id_of(record.position)
        with contextlib.suppress(Exception):  # an id in a payload that can't be unpickled here stays unknown
            id = codec.loads(record.payload)[0] or id
        final = None
        if self.results.letter(id) is not MISSING:
            final = State.DONE  # it died between its answer and its mark
        elif self._graves.get(id, fast_only=False) is not MISSING:
            final = State.DEAD
        if final is not None:
            self._log.settle(record.position, record.mark, Mark(final, record.mark.attempt))
            return False
        try:
            self._set_back(record, id, "its worker died")
        except StaleClaim:
            return False  # somebody else was faster
        return True

    def dead(self) -> list[DeadTask]:
        """The tasks that failed for good, each with its value and history."""
        found = []
        for id, position in self._graves.everything(_refuse).items():
            record = self._log.read(position)
            value = None if record is None else codec.loads(record.payload)[1]
            found.append(DeadTask(id, value, self.history(id)))
        return found

    def history(self, id: str) -> list[Attempt]:
        """The attempts at a task that did not end well."""
        found = self._history.get(id, fast_only=False)
        return [] if found is MISSING else list(found)

    # -- looking ---------------------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many tasks are waiting to be taken, at this moment."""
        return self._log.counts().waiting

    def empty(self) -> bool:
        """True if no task is waiting to be taken, at this moment."""
        return self.qsize() == 0

    def join(self, timeout: float | None = None) -> None:
        """Return once every task put in so far is done or dead. Raises `WaitTimeout` after `timeout` seconds."""
        begun = self._engine.now()
        with self._engine.watch([self._where + "/final"]) as watch:
            while not self._log.finished():
                self._recover_now_and_then()
                waited = self._engine.now() - begun
                if timeout is not None and waited >= timeout:
                    raise WaitTimeout(
                        f"queue {self.name!r} was not worked off within {timeout:g} seconds: {self.statistics()}; "
                        "are workers running?",
                        key=self.name,
                        waited=waited,
                    )
                watch.pause(LOOK_FOR_DEAD if timeout is None else min(timeout - waited, LOOK_FOR_DEAD))

    def statistics(self) -> QueueStatistics:
        """A look that changes nothing; costs a pass over the unfinished tasks."""
        counts = self._log.counts()
        holders = self._engine.entries(self._where + "/holders")[0]
        return QueueStatistics(
            counts.appended,
            counts.waiting,
            len(self._log.claims()),
            len(self._graves.everything(_refuse)),
            len(holders),
        )

    def _state(self, id: str) -> State | None:
        """How far the task has come; None for an id that was never given."""
        position = self._ids.get(id, fast_only=False) if not id.startswith("#") else int(id[1:], 16)
        if position is MISSING:
            return None
        record = self._log.read(position)
        if record is None:
            return State.DONE if position < self._log.counts().end else None
        return record.mark.state


class Results(Mailbox):
    """A queue's results by task id. A task done without a result answers None; one that is dead raises `TaskFailed`."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._setup(queue._engine, queue.name, queue._where + "/results")

    def __reduce__(self) -> tuple[Any, ...]:
        return _results_of, (self._queue,)

    def letter(self, id: str) -> Any:
        return self._letters.get(id, fast_only=False)

    def write(self, id: str, ops: bytes) -> None:
        """Without looking whether there is one: the caller holds the task's claim, so there is none."""
        self._letters.set_pickled(id, ops)

    def _watched(self, addresses: Iterable[Any]) -> list[str]:
        return [*super()._watched(addresses), self._queue._where + "/final"]

    def _without_letter(self, address: Any) -> Any:
        state = self._queue._state(address)
        if state is State.DEAD:
            raise self._failure(address)
        # looked at again, because the letter comes before the mark
        return NOT_YET if state is not State.DONE else _or_none(self.letter(address))

    def _settled(self, missing: Iterable[Any]) -> list[tuple[Any, Any]]:
        states = {id: self._queue._state(id) for id in missing}
        found = [(id, _or_none(self.letter(id))) for id, state in states.items() if state is State.DONE]
        dead = [id for id, state in states.items() if state is State.DEAD]
        if dead and not found and len(dead) == len(states):
            raise self._failure(dead[0])  # the others were yielded before
        return found

    def _failure(self, id: str) -> TaskFailed:
        history = self._queue.history(id)
        last = f"; the last time: {history[-1].error}" if history else ""
        return TaskFailed(f"task {id!r} failed after {len(history)} attempts{last}", task=id, history=history)


def _or_none(letter: Any) -> Any:
    return None if letter is MISSING else letter


def _results_of(queue: WorkQueue) -> Results:
    return queue.results


def _id_of(position: int) -> str:
    return f"#{position:x}"


def _refuse(error: Exception) -> None:
    raise error


def _reopen(kind: type[WorkQueue], db: Place, name: str, max_attempts: int) -> WorkQueue:
    return kind(db, name, max_attempts=max_attempts)
