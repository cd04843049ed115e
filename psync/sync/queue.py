"""Tasks that any number of processes put in and take out, each worked at least once, each answered exactly once.

A queue is a log below ``.psync/queue/`` (one more for each priority that is used): a task is a record, and the record's
mark says how far it has come. The facts that decide: a task exists once the log ends behind it; it is mine when its
mark names me; it is done when its mark says so, and it only gets there from *my* mark. Results are a mailbox.

Beside this file: `levels` (priorities), `delayed`, `claims` (how they end, and what becomes of the dead), `batches`,
`ledger` (what is known of a task by its id), `results`, and `task`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from psync.engine import rejoined
from psync.engine.contract import WAITING, Mark, Record, Sealed, State, as_lease
from psync.errors import QueueClosed, WaitTimeout
from psync.store import codec
from psync.sync.batches import InHand, Pace
from psync.sync.claims import Claims
from psync.sync.delayed import Delays, until_later
from psync.sync.ledger import Ledger, id_in, unpack
from psync.sync.levels import BOUNDED, Level, Levels, Place
from psync.sync.place import Place as Anywhere
from psync.sync.place import Primitive
from psync.sync.results import Results
from psync.sync.task import Attempt, DeadTask, Task
from psync.sync.waiting import LOOK_FOR_DEAD


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
    room while that many tasks are waiting.

    What is promised is a result recorded once, not that only one worker ever runs a task, nor that it keeps its place
    when it is given back.
    """

    _kind = "queue"

    def __init__(
        self, db: Anywhere, name: str = "jobs", *, lease: float | None = None, max_attempts: int = 3, maxsize: int = 0
    ) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {max_attempts!r}")
        kept = 0.0 if lease is None else as_lease(lease)
        super().__init__(db, name)
        self.lease = lease
        self.max_attempts = max_attempts
        self.maxsize = maxsize
        self.results = Results(self)
        """The mailbox of results, by task id: None for a task done without one, `TaskFailed` for a dead one."""
        self._levels = Levels(self._engine, self._where)
        self._main = self._levels.main
        self._log = self._main.log
        self._ledger = Ledger(self._engine, self._where, self._levels)
        self._claims = Claims(
            self._engine,
            self._where,
            self._levels,
            self._ledger,
            self.results,
            lease=kept,
            max_attempts=max_attempts,
        )
        self._delays = Delays(self._engine, self._levels)
        self._in_hand = InHand(self._claims)
        self._engine.at_leaving(self._in_hand.give_back)

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

        One append: flock, pread, pwrite, pwrite, unlock. Killed, the task is there whole or not at all.
        """
        if id is None and not priority and not delay and not self.maxsize:
            try:
                return f"#{self._log.append([codec.dumps((None, value))])[0]:x}"
            except Sealed:
                raise self._closed_error() from None
        if id is not None and (not isinstance(id, str) or not id or id.startswith("#")):
            raise ValueError(f"a task's id must be a str that is not empty and does not begin with '#', not {id!r}")
        return self._put([codec.dumps((id, value))], id, priority, delay, block, timeout)[0]

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
        payloads = [codec.dumps((None, value)) for value in values]
        if 0 < self.maxsize < len(payloads):
            raise ValueError(f"{len(payloads)} tasks at once never fit into a queue with maxsize {self.maxsize}")
        return self._put(payloads, None, priority, delay, block, timeout) if payloads else []

    def _put(
        self, payloads: list[bytes], id: str | None, priority: int, delay: float, block: bool, timeout: float | None
    ) -> list[str]:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout!r}")
        level = self._levels.level(priority)
        mark = until_later(self._engine, delay) if delay else WAITING
        try:
            if id is None and not priority and not self.maxsize:
                return [Place(0, position).id for position in self._log.append(payloads, mark)]
            ids = self._put_held(level, payloads, id, mark)
            if ids is None:
                ids = self._await_room(lambda: self._put_held(level, payloads, id, mark), block, timeout)
            return ids
        except Sealed:
            raise self._closed_error() from None

    def _put_held(self, level: Level, payloads: list[bytes], id: str | None, mark: Mark) -> list[str] | None:
        """The ids of what was put; None if there is no room. Raises `Sealed`."""
        with self._log.held():
            if id is not None and self._ledger.is_known(id):
                return [id]
            if self._log.counts().sealed:
                raise Sealed
            if self.maxsize > 0 and self._levels.waiting() + len(payloads) > self.maxsize:
                return None
            # the record first: if we die before the id is known, whoever takes the record makes it known
            places = [Place(level.priority, position) for position in level.append(payloads, mark)]
            if id is None:
                return [place.id for place in places]
            self._ledger.set_place(id, places[0])
            return [id]

    def _await_room(self, put: Callable[[], list[str] | None], block: bool, timeout: float | None) -> list[str]:
        deadline = None if timeout is None else self._engine.now() + timeout
        if block:
            self._log.note(lambda note: note | BOUNDED)  # who takes says so from now on
            with self._engine.watch([self._where + "/room"]) as watch:
                while (left := LOOK_FOR_DEAD if deadline is None else deadline - self._engine.now()) > 0:
                    if (ids := put()) is not None:
                        return ids
                    watch.pause(min(left, LOOK_FOR_DEAD))
        raise queue.Full

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

    def _closed_error(self) -> QueueClosed:
        return QueueClosed(
            f"the queue {self.name!r} was closed: it takes no more tasks; reopen() lets it take some again",
            queue=self.name,
        )

    # -- taking out ------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Task:
        """The next task, claimed by this process. Raises `queue.Empty` if none comes within `timeout` seconds, and
        `QueueClosed` if none will ever come.

        flock, pread, pread, pread, pwrite, pwrite, unlock when a task is waiting.
        """
        return self._take() or self._wait(self._take, block, timeout)

    def get_many(self, n: int, block: bool = True, timeout: float | None = None) -> list[Task]:
        """Up to `n` tasks, and at least one, claimed at once. Raises as `get` does.

        Each is begun when its value is first asked for. One that is not begun goes back at once when this process
        closes the engine or ends, and costs the task no attempt.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n!r}")
        return self._take_many(n) or self._wait(lambda: self._take_many(n), block, timeout)

    def _wait(self, take: Callable[[], Any], block: bool, timeout: float | None) -> Any:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout!r}")
        found = self._await(take, self._is_over, timeout if block else 0.0)
        if found:
            return found
        if self._is_over():
            raise self._closed_error()
        raise queue.Empty

    def _is_over(self) -> bool:
        return self._log.sealed and self._levels.finished()

    def _await(self, take: Callable[[], Any], ended: Callable[[], bool], timeout: float | None) -> Any:
        """What `take` returns, once that is true; or what is not, when it has `ended`, or after `timeout` seconds."""
        deadline = None if timeout is None else self._engine.now() + timeout
        # a get has no need to hear of each task that ends: that a closed queue is worked off it learns soon enough
        names = [self._where] if ended == self._is_over else [self._where, self._where + "/final"]
        with self._engine.watch(names) as watch:
            if not self._claims.looked:
                self.recover()
            while True:
                next_due = self._delays.look()
                if (found := take()) or ended():
                    return found
                left = LOOK_FOR_DEAD if deadline is None else deadline - self._engine.now()
                if left <= 0:
                    return found
                watch.pause(min(left, next_due, LOOK_FOR_DEAD))

    def __iter__(self) -> Iterator[Task]:
        """Take tasks until the queue is drained: none is waiting, and none is being worked on that could come back.

        Short tasks are claimed several at a time, as many as take about 2 ms, at most 32, and no more than this
        process's share of those that wait; slow ones (1 ms or more) one at a time.
        """
        now = self._engine.now
        pace, hand, level = Pace(), deque[Record](), self._main
        self._in_hand.loops += 1
        try:
            while True:
                if hand:
                    record = hand.popleft()
                    task = self._begun(level, record) if self._in_hand.remove(level, record) else None
                elif pace.size == 1 or (share := self._share(pace.size)) == 1:
                    task = self._take() or self._await(self._take, self._levels.finished, None)
                    if task is None:
                        return
                else:
                    level, records = self._claim(share, beat=0)
                    hand.extend(records)
                    if not records:
                        pace.size = 1
                    continue
                if task is not None:
                    began = now()
                    yield task
                    if pace.took(now() - began) and hand:
                        self._in_hand.give_back_these(level, hand)
        finally:
            self._in_hand.loops -= 1
            self._in_hand.give_back_these(level, hand)

    def _share(self, wanted: int) -> int:
        if not self._claims.looked:
            self.recover()
        others = self._claims.workers + self._in_hand.loops - 1
        return max(1, min(wanted, self._levels.waiting() // others))

    def _claim(self, limit: int, beat: int) -> tuple[Level, list[Record]]:
        if self._engine.now() >= self._claims.next_look:
            self._look()
        level, records = self._claims.take(limit, beat)
        if not beat:
            self._in_hand.add(level, records)
        return level, records

    def _take(self) -> Task | None:
        """A task, begun; None if there is none."""
        while True:
            level, records = self._claim(1, beat=1)
            if not records:
                return None
            task = self._opened(level, records[0])
            if task is not None:
                return task

    def _take_many(self, n: int) -> list[Task]:
        """Tasks that are not begun."""
        while True:
            level, records = self._claim(n, beat=0)
            opened = [self._opened(level, record) for record in records]
            tasks = [task for task in opened if task is not None]
            if tasks or not records:
                return tasks

    def _begun(self, level: Level, record: Record) -> Task | None:
        """The task in a record claimed before; None if it was given away since, or is not to be worked on."""
        going = self._claims.beat(level, record) if self._claims.is_mine(record) else None
        return None if going is None else self._opened(level, going)

    def _opened(self, level: Level, record: Record) -> Task | None:
        """The task in a record just claimed; None if it is not to be worked on."""
        try:
            try:
                id, value, tried = unpack(record.payload)
            except Exception as error:
                self._refuse(level, record, error)
                return None
            if id is None:
                return Task(self, level, record, Place(level.priority, record.position).id, value, 0)
            if self._ledger.is_twin(id, Place(level.priority, record.position)):
                self._in_hand.remove(level, record)
                level.settle(record.position, record.mark, Mark(State.DONE, record.mark.attempt))
                return None
            return Task(self, level, record, id, value, tried)
        except BaseException:
            self._claims.give_up_quietly(level, record)  # whoever asked for it hears of an error instead
            raise

    def _refuse(self, level: Level, record: Record, error: Exception) -> None:
        self._in_hand.remove(level, record)
        id, tried = id_in(record.payload, level, record.position)
        self._claims.set_back(level, record, id, tried, f"can't be unpickled here: {error!r}")

    # -- what a task says ------------------------------------------------------------------------------

    def _go_on(self, task: Task, record: Record) -> Record:
        self._in_hand.remove(task._level, record)
        going = self._claims.beat(task._level, record)
        if going is None:
            raise self._claims.stale(record, task.id, self.name)
        return going

    def _finish(self, task: Task, result: Any) -> None:
        record = task._record
        if not record.mark.beat:
            self._in_hand.remove(task._level, record)
        if not self._claims.finish(task._level, record, task.id, result):
            raise self._claims.stale(record, task.id, self.name)

    def _set_back(self, task: Task, why: str, *, delay: float = 0.0, for_good: bool = False) -> None:
        record = task._record
        if not record.mark.beat:
            self._in_hand.remove(task._level, record)
        if not self._claims.set_back(task._level, record, task.id, task._tried, why, delay=delay, for_good=for_good):
            raise self._claims.stale(record, task.id, self.name)

    # -- the dead --------------------------------------------------------------------------------------

    def _look(self) -> None:
        """What every process that takes or waits does now and then."""
        self.recover()
        self._delays.look()

    def recover(self) -> int:
        """Give back the tasks of workers that are dead, and those whose lease ran out; returns how many. Every worker
        does it by itself, often."""
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
                for id, place, payload in list(self._ledger.graves())
                if (wanted is None or id in wanted) and self._ledger.revive(id, place, payload)
            ]
        except Sealed:
            raise self._closed_error() from None

    def cancel(self, id: str) -> bool:
        """True for the one who took a waiting (or delayed) task out: it is dead, and nobody will work on it."""
        place = self._ledger.place(id)
        level = None if place is None else self._levels.find(place.priority)
        record = None if place is None or level is None else level.log.read(place.position)
        if place is None or level is None or record is None or record.mark.state not in (State.WAITING, State.DELAYED):
            return False
        me = self._engine.describe(self._engine.owner())

        def remember() -> None:
            self._ledger.remember(id, Attempt(record.mark.attempt, me, "cancelled"))
            self._ledger.bury(id, place, record.payload)

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

        def look() -> bool:
            if self._engine.now() >= self._claims.next_look:
                self._look()
            return self._levels.finished()

        if not self._await(look, lambda: False, timeout):
            raise WaitTimeout(
                f"queue {self.name!r} was not worked off within {timeout:g} seconds: {self.statistics()}; "
                "are workers running?",
                key=self.name,
                waited=self._engine.now() - begun,
            )

    def statistics(self) -> QueueStatistics:
        """A look that changes nothing; costs a pass over the unfinished tasks."""
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

    def _state_of(self, id: str) -> State | None:
        """How far the task has come; None for an id that was never given."""
        place = self._ledger.place(id)
        level = None if place is None else self._levels.find(place.priority)
        if place is None or level is None:
            return None
        record = level.log.read(place.position)
        if record is not None:
            return record.mark.state
        if place.position >= level.log.counts().end:
            return None
        return State.DEAD if self._ledger.is_dead_at(id, place) else State.DONE


def _arrived(kind: type[WorkQueue], db: Any, name: str, lease: float | None, attempts: int, maxsize: int) -> WorkQueue:
    return kind(rejoined(db), name, lease=lease, max_attempts=attempts, maxsize=maxsize)
