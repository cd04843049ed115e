"""Tasks that any number of processes put in and take out, each worked at least once, each answered exactly once.

A queue is a log below ``.psync/queue/`` (one more for each priority that is used): a task is a record, and the record's
mark says how far it has come. The facts that decide: a task exists once the log ends behind it; it is mine when its
mark names me; it is done when its mark says so, and it only gets there from *my* mark. Results are a mailbox.

Beside this file: `intake` and `taker` (in and out), `levels` (priorities), `delayed`, `claims` (how they end, and what
becomes of the dead), `batches`, `behind` (answers that are recorded together), `ledger` (what is known of a task by its
id), `results`, and `task`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from psync.engine import Durability, rejoined
from psync.engine.contract.log import Mark, Record, Sealed, State, as_lease
from psync.errors import WaitTimeout
from psync.store.codec import codec_of
from psync.sync.primitive import Place, Primitive
from psync.sync.queue.claims import ANSWERED, Answer, Claims
from psync.sync.queue.consumer import Taker
from psync.sync.queue.prefetch import InHand
from psync.sync.queue.priorities import Levels
from psync.sync.queue.put import Intake, closed_error
from psync.sync.queue.results import Results
from psync.sync.queue.task import Attempt, DeadTask, Task
from psync.sync.queue.task_index import Ledger


class QueueStatistics(NamedTuple):
    """What `WorkQueue.statistics` saw."""

    put: int
    """Tasks ever put in, those that were revived once more."""
    waiting: int
    delayed: int
    running: int
    dead: int
    workers: int
    """Processes that took tasks and have not left."""
    closed: bool


class WorkQueue(Primitive):
    """A queue of tasks for the processes of one directory: of a higher priority first, then first in, first out.

    >>> import tempfile
    >>> jobs = WorkQueue(tempfile.mkdtemp(), "jobs")
    >>> ids = jobs.put_many([3, 4])
    >>> for task in jobs:
    ...     with task:
    ...         task.done(task.value**2)
    >>> [jobs.results.get(id) for id in ids]
    [9, 16]

    A task whose worker dies, or raises, is given to another, up to `max_attempts` times; then it is dead, with its
    history (`dead`). With a `lease` (seconds, up to 18 hours) a task is also taken from a worker that lives but has
    neither ended nor touched it for so long. With a `maxsize` above 0, a `put` through this handle waits for
    room while that many tasks are waiting. `durability`: that of all that is done through this handle, if it is not the
    store's (see `PickleShareDB`); a put returns, and a task is seen by others, when it is as durable as that.

    What is promised is a result recorded once, not that only one worker ever runs a task, nor that it keeps its place
    when it is given back.
    """

    _kind = "queue"

    def __init__(
        self,
        db: Place,
        name: str = "jobs",
        *,
        lease: float | None = None,
        max_attempts: int = 3,
        maxsize: int = 0,
        durability: Durability | None = None,
    ) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts!r}")
        kept = 0.0 if lease is None else as_lease(lease)
        super().__init__(db, name, durability)
        self._codec = codec_of(self._engine.format)
        self.lease = lease
        self.max_attempts = max_attempts
        self.maxsize = maxsize
        # A mark must not outlast the letter or the grave that it speaks of: so where a mark is asked of the disk,
        # theirs is asked for to the last.
        self._beside = self._engine if self._engine.durability == "process" else self._engine.at("power")
        self.results = Results(self)
        """The mailbox of results, by task id: None for a task done without one, `TaskFailed` for a dead one."""
        self._levels = Levels(self._engine, self._where)
        self._main = self._levels.main
        self._log = self._main.log
        self._ledger = Ledger(self._beside, self._where, self._levels)
        self._claims = Claims(
            self._engine,
            self._where,
            self._levels,
            self._ledger,
            self.results,
            lease=kept,
            max_attempts=max_attempts,
        )
        self._intake = Intake(self._engine, self._where, name, self._levels, self._ledger, maxsize)
        helpers, remote = self._engine.helpers, self._engine.remote
        self._in_hand = InHand(self._claims, self._engine.now, helpers=helpers, remote=remote)
        self._behind = self._in_hand.behind
        self._taker = Taker(self, self._engine, self._where, self._levels, self._ledger, self._claims, self._in_hand)
        self._engine.at_leaving(self._in_hand.leave)

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self.lease, self.max_attempts, self.maxsize

    def __reduce__(self) -> tuple[Any, ...]:
        _, (kind, engine, *arguments) = super().__reduce__()
        return _arrived, (kind, engine, *arguments)

    def _state(self) -> str:
        return f"{self.qsize()} waiting{', closed' * self.closed}"

    # -- putting in ------------------------------------------------------------------------------------

    def put(
        self,
        value: Any,
        *,
        id: str | None = None,
        priority: int = 0,
        delay: float = 0.0,
        block: bool = True,
        timeout: float | None = None,
    ) -> str:
        """Add a task and return its id. An `id` of the caller's own put twice, by anybody, is one task.

        Of a higher `priority` (an int from -100 to 100) it is taken earlier; with a `delay` (seconds), not before that
        has passed. Raises `QueueClosed`; `queue.Full` if the queue has a `maxsize` and there is no room, at once
        or (`block`) within `timeout` seconds.

        3 system calls (flock pwrite flock), floor 3. Killed, the task is there whole or not at all.
        """
        if id is None and not priority and not delay and not self.maxsize:
            try:
                return f"#{self._log.append([self._codec.pack((None, value))])[0]:x}"
            except Sealed:
                raise closed_error(self.name) from None
        if id is not None and (not isinstance(id, str) or not id or id.startswith("#")):
            raise ValueError(f"a task's id must be a str that is not empty and does not begin with '#', not {id!r}")
        return self._intake.put([self._codec.pack((id, value))], id, priority, delay, block, timeout)[0]

    def put_many(
        self,
        values: Iterable[Any],
        *,
        priority: int = 0,
        delay: float = 0.0,
        block: bool = True,
        timeout: float | None = None,
    ) -> list[str]:
        """Add tasks, all or none of them, and return their ids: one append for all.

        Raises as `put` does, and ValueError for more than `maxsize`.
        """
        payloads = [self._codec.pack((None, value)) for value in values]
        if 0 < self.maxsize < len(payloads):
            raise ValueError(f"{len(payloads)} tasks at once never fit into a queue with maxsize {self.maxsize}")
        return self._intake.put(payloads, None, priority, delay, block, timeout) if payloads else []

    def close(self) -> None:
        """No more tasks are accepted, by anybody, until `reopen`: to put raises `QueueClosed`.

        What is there is worked off; after that, to get raises `QueueClosed`, too, and iteration ends.
        """
        self._log.seal()
        self._engine.announce(self._where + "/room")

    def reopen(self) -> None:
        """Tasks are accepted again."""
        self._log.seal(False)

    @property
    def closed(self) -> bool:
        """True from `close` to `reopen`, whoever called them."""
        return self._log.counts().sealed

    # -- taking out ------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Task:
        """The next task, claimed by this process. Raises `queue.Empty` if none comes within `timeout` seconds, and
        `QueueClosed` if none will ever come.

        With a task waiting 2 system calls and `done` (flock flock), floor 3; now and then a pread of what lies ahead.
        """
        return self._taker.get(block, timeout)

    def get_many(self, n: int, block: bool = True, timeout: float | None = None) -> list[Task]:
        """Up to `n` tasks, and at least one, claimed at once. Raises as `get` does.

        Each is begun when its value is first asked for. One that is not begun goes back at once when this process
        closes the engine or ends, and costs the task no attempt.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n!r}")
        return self._taker.get_many(n, block, timeout)

    def __iter__(self) -> Iterator[Task]:
        """Take tasks until the queue is drained: none is waiting, and none is being worked on that could come back.

        Short tasks are claimed several at a time, as many as take about 2 ms, at most 32, and no more than this
        process's share of those that wait; slow ones (1 ms or more) one at a time. What was claimed and is not begun
        goes back when a task takes longer than 50 ms, so nothing waits for a slow one while others have nothing to do.

        Where a server is asked (a network file system, Redis) a short task is one of less than 25 ms, and at most 64
        are claimed at once. Those are begun together, and answered together, in a moment: see `Task.done`. So if this
        process is killed, each of them has used an attempt; those that were tried before are begun and answered one by
        one.
        """
        return self._taker.loop()

    # -- what a task says ------------------------------------------------------------------------------

    def _go_on(self, task: Task, record: Record) -> Record:
        if task.settled:
            self._behind.record()
        self._in_hand.remove(record)
        going = self._claims.beat(task._level, record)
        if going is None:
            raise self._claims.stale(record, task.id, self.name)
        return going

    def _finish(self, task: Task, result: Any) -> None:
        record = task._record
        if not record.mark.beat:
            self._in_hand.remove(record)
        if task.settled:
            self._behind.record()
        elif task._answers_late and self._behind.add(self._answer(task, result)):
            return
        if not self._claims.finish(task._level, record, task.id, result):
            raise self._claims.stale(record, task.id, self.name)

    def _answer(self, task: Task, result: Any) -> Answer:
        return self._claims.answer(task._level, task._record, task.id, result)

    def _set_back(self, task: Task, why: str, *, delay: float = 0.0, for_good: bool = False) -> None:
        record = task._record
        if task.settled:
            self._behind.record()
        if not record.mark.beat:
            self._in_hand.remove(record)
        if not self._claims.set_back(task._level, record, task.id, task._tried, why, delay=delay, for_good=for_good):
            raise self._claims.stale(record, task.id, self.name)

    # -- the dead --------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Give back the tasks of workers that are dead, and those whose lease ran out; returns how many. Every worker
        does it by itself, often."""
        self._behind.record()
        return self._claims.recover()

    def dead(self) -> list[DeadTask]:
        """The tasks that failed for good and were not revived, each with its value and history."""
        return self._ledger.dead()

    def revive(self, ids: Iterable[str] | None = None) -> list[str]:
        """Dead tasks (all of them, or those of `ids`) wait again, with fresh attempts; returns the ids of those that
        were dead. History and id stay, and the result will be there. Raises `QueueClosed`.

        Each is revived whole or not at all. It goes to the end of the queue.
        """
        wanted = None if ids is None else set(ids)
        try:
            return [
                id
                for id, location, payload in list(self._ledger.graves())
                if (wanted is None or id in wanted) and self._ledger.revive(id, location, payload)
            ]
        except Sealed:
            raise closed_error(self.name) from None

    def cancel(self, id: str) -> bool:
        """True for the one who took a waiting (or delayed) task out: it is dead, and nobody will work on it."""
        location = self._ledger.location(id)
        level = None if location is None else self._levels.find(location.priority)
        record = None if location is None or level is None else level.log.read(location.position)
        if (
            location is None
            or level is None
            or record is None
            or record.mark.state not in (State.WAITING, State.DELAYED)
        ):
            return False
        me = self._engine.describe(self._engine.owner())
        _, tried = self._ledger.id_in(record.payload, level, record.position)

        def remember() -> None:
            # an attempt of its own, the next: killed before the mark, the one who makes that attempt says how it went
            self._ledger.remember(id, Attempt(tried + record.mark.attempt + 1, me, "cancelled"))
            self._ledger.bury(id, location, record.payload)

        return level.settle(record.position, record.mark, Mark(State.DEAD, record.mark.attempt), remember)

    def state(self, id: str) -> str | None:
        """ "waiting", "delayed", "claimed", "done" or "dead"; None for an id that was never given."""
        state = self._state_of(id)
        return None if state is None else state.name.lower()

    def history(self, id: str) -> list[Attempt]:
        """The attempts at a task that did not end well."""
        return self._ledger.history(id)

    # -- looking ---------------------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many tasks are waiting to be taken, at this moment."""
        return self._levels.waiting()

    def empty(self) -> bool:
        """True if no task is waiting to be taken, at this moment."""
        return self.qsize() == 0

    def full(self) -> bool:
        """True if there is a `maxsize`, and a `put` would wait, at this moment."""
        return 0 < self.maxsize <= self.qsize()

    def join(self, timeout: float | None = None) -> None:
        """Return once every task put in so far is done or dead. Raises `WaitTimeout` after `timeout` seconds."""
        begun = self._engine.now()

        if not self._taker.wait_to_end(timeout):
            raise WaitTimeout(
                f"queue {self.name!r} was not worked off within {timeout:g} seconds: {self.statistics()}; "
                "are workers running?",
                key=self.name,
                waited=self._engine.now() - begun,
            )

    def statistics(self) -> QueueStatistics:
        """A look that changes nothing; costs a pass over the unfinished tasks."""
        self._behind.record()
        levels = self._levels.all()
        counts = [level.log.counts() for level in levels]
        return QueueStatistics(
            put=sum(each.appended for each in counts),
            waiting=sum(each.waiting for each in counts),
            delayed=sum(len(level.log.delayed()) for level in levels),
            running=sum(len(level.log.claims()) for level in levels),
            dead=sum(1 for _ in self._ledger.graves()),
            workers=len(self._engine.entries(self._where + "/holders")[0]),
            closed=self.closed,
        )

    def _was_answered(self, id: str) -> bool:
        """Whether the task was done with an answer, as far as is still known."""
        location = self._ledger.location(id)
        level = None if location is None else self._levels.find(location.priority)
        record = None if location is None or level is None else level.log.read(location.position)
        return record is not None and record.mark.state is State.DONE and record.mark.beat == ANSWERED

    def _state_of(self, id: str) -> State | None:
        """How far the task has come; None for an id that was never given."""
        self._behind.record()
        location = self._ledger.location(id)
        level = None if location is None else self._levels.find(location.priority)
        if location is None or level is None:
            return None
        record = level.log.read(location.position)
        if record is not None:
            return record.mark.state
        if location.position >= level.log.counts().end:
            return None
        dead = self._ledger.is_dead_at(id, location) or self._ledger.is_lost(location)
        return State.DEAD if dead else State.DONE


def _arrived(kind: type[WorkQueue], db: Any, name: str, lease: float | None, attempts: int, maxsize: int) -> WorkQueue:
    return kind(rejoined(db), name, lease=lease, max_attempts=attempts, maxsize=maxsize)
