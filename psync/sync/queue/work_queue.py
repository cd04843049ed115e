"""Work queue: processes put and claim tasks; each task is worked on at least once and has exactly one result.

On disk, below ``.psync/queue/<name>``: a log (and one more for each other priority in use) in which a task is a record
and the record's mark is its status. The facts that decide: a task exists once its log ends behind it; it is mine while
its mark names me; it is done when its mark says so, and only the process that the mark names can change it to that.
Results are a mailbox beside the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from psync.engine import Durability, rejoined
from psync.engine.contract.log import Mark, Sealed, State, as_lease
from psync.engine.system.reentry import takes_effect
from psync.errors import WaitTimeout
from psync.sync.primitive import Place, Primitive
from psync.sync.queue.claims import Claims
from psync.sync.queue.consumer import Consumer
from psync.sync.queue.prefetch import Prefetched
from psync.sync.queue.priorities import Priorities
from psync.sync.queue.put import Producer, closed_error
from psync.sync.queue.results import Results
from psync.sync.queue.task import Task
from psync.sync.queue.task_index import Attempt, DeadTask, TaskIndex


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
        lease_s = 0.0 if lease is None else as_lease(lease)
        super().__init__(db, name, durability)
        self.lease = lease
        self.max_attempts = max_attempts
        self.maxsize = maxsize
        # Results and dead letters must be at least as durable as the status that refers to them: if the queue syncs,
        # they use level "power".
        durable = self._engine if self._engine.durability == "process" else self._engine.at("power")
        self._priorities = Priorities(self._engine, self._where)
        self._codec = self._priorities.codec
        self._log = self._priorities.main.log
        self._index = TaskIndex(durable, self._priorities)
        self._claims = Claims(name, self._priorities, self._index, lease=lease_s, max_attempts=max_attempts)
        self._prefetched = Prefetched(self._claims, self._engine)
        self._ack_buffer = self._prefetched.ack_buffer
        self.results = Results(self, self._priorities.final, self._index, self._ack_buffer.record)
        """The mailbox of results, by task id: None for a task done without one, `TaskFailed` for a dead one."""
        self._producer = Producer(name, self._priorities, self._index, maxsize)
        self._consumer = Consumer(self._priorities, self._index, self._prefetched)
        self._engine.at_leaving(self._prefetched.leave)

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

        4 system calls (stat flock pwrite flock), floor 3. Killed, the task is there whole or not at all.
        """
        if id is None and not priority and not delay and not self.maxsize:
            try:
                return f"#{self._log.append([self._codec.pack((None, value))])[0]:x}"
            except Sealed:
                raise closed_error(self.name) from None
        if id is not None and (not isinstance(id, str) or not id or id.startswith("#")):
            raise ValueError(f"a task's id must be a str that is not empty and does not begin with '#', not {id!r}")
        return self._producer.put([self._codec.pack((id, value))], id, priority, delay, block, timeout)[0]

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
        return self._producer.put(payloads, None, priority, delay, block, timeout) if payloads else []

    @takes_effect
    def close(self) -> None:
        """No more tasks are accepted, by anybody, until `reopen`: to put raises `QueueClosed`.

        What is there is worked off; after that, to get raises `QueueClosed`, too, and iteration ends.
        """
        self._log.seal()
        self._engine.announce(self._where + "/room")

    @takes_effect
    def reopen(self) -> None:
        """Tasks are accepted again."""
        self._log.seal(False)

    @property
    def closed(self) -> bool:
        """True from `close` to `reopen`, by any process."""
        return self._log.counts().sealed

    # -- taking out ------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Task:
        """The next task, claimed by this process. Raises `queue.Empty` if none comes within `timeout` seconds, and
        `QueueClosed` if none will ever come.

        With a task waiting 4 system calls and `done` (stat flock flock stat), floor 3; now and then a pread of what
        lies ahead.
        """
        consumer = self._consumer
        task: Task = consumer.take() or consumer.wait(consumer.take, block, timeout)
        return task

    def get_many(self, n: int, block: bool = True, timeout: float | None = None) -> list[Task]:
        """Up to `n` tasks, and at least one, claimed at once. Raises as `get` does.

        Each is begun by the first use of its value. One that is not begun goes back at once when this process
        closes the engine or ends, and costs the task no attempt.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n!r}")
        consumer = self._consumer
        return consumer.take_many(n) or consumer.wait(lambda: consumer.take_many(n), block, timeout)

    def __iter__(self) -> Iterator[Task]:
        """Take tasks until the queue is drained: none is waiting, and none is being worked on that could come back.

        Short tasks are claimed several at a time, as many as take about 2 ms, at most 32, and no more than this
        process's share of those that wait; slow ones (1 ms or more) one at a time. Tasks that were claimed
        and not begun go back when one takes longer than 50 ms, so none waits for a slow one while others are idle.

        On a network file system or Redis a short task is one of less than 25 ms, and at most 64
        are claimed at once. Those are begun together, and answered together, in a moment: see `Task.done`. So if this
        process is killed, each of them has used an attempt; those that were tried before are begun and answered one by
        one.
        """
        return self._consumer.loop()

    # -- the dead --------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Give back the tasks of workers that are dead, and those whose lease ran out; returns how many. Every worker
        does it by itself, often."""
        self._ack_buffer.record()
        return self._claims.recover()

    def dead(self) -> list[DeadTask]:
        """The tasks that failed for good and were not revived, each with its value and history."""
        return self._index.dead()

    def revive(self, ids: Iterable[str] | None = None) -> list[str]:
        """Dead tasks (all of them, or those of `ids`) wait again, with fresh attempts; returns the ids of those that
        were dead. History and id stay, and the result will be there. Raises `QueueClosed`.

        Each is revived whole or not at all. It goes to the end of the queue.
        """
        wanted = None if ids is None else set(ids)
        try:
            return [
                id
                for id, location, payload in list(self._index.dead_letters())
                if (wanted is None or id in wanted) and self._index.revive(id, location, payload)
            ]
        except Sealed:
            raise closed_error(self.name) from None

    def cancel(self, id: str) -> bool:
        """True for the one who took a waiting (or delayed) task out: it is dead, and nobody will work on it."""
        location, priority, record = self._index.find(id) or (None, None, None)
        if location is None or priority is None or record is None:
            return False
        if record.mark.state not in (State.WAITING, State.DELAYED):
            return False
        me = self._engine.describe(self._engine.owner())
        _, tried = self._index.id_in(record.payload, priority, record.position)

        def write_first() -> None:
            # History and dead letter before the mark, both idempotent. After a crash in between the task still waits;
            # the attempt has the number of the next one, so the worker that makes that attempt overwrites this entry.
            self._index.add_attempt(id, Attempt(tried + record.mark.attempt + 1, me, "cancelled"))
            self._index.add_dead_letter(id, location, record.payload)

        return priority.settle(record.position, record.mark, Mark(State.DEAD, record.mark.attempt), write_first)

    def state(self, id: str) -> str | None:
        """ "waiting", "delayed", "claimed", "done" or "dead"; None for an id that was never given."""
        self._ack_buffer.record()
        state = self._index.state(id)
        return None if state is None else state.name.lower()

    def history(self, id: str) -> list[Attempt]:
        """The attempts at a task that did not end well: the first two and the last ten, each with up to 8192 characters
        of its error. So a `retry` costs the same however many came before it."""
        return self._index.history(id)

    # -- looking ---------------------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many tasks are waiting to be taken, at this moment."""
        return self._priorities.waiting()

    def empty(self) -> bool:
        """True if no task is waiting to be taken, at this moment."""
        return self.qsize() == 0

    def full(self) -> bool:
        """True if there is a `maxsize`, and a `put` would wait, at this moment."""
        return 0 < self.maxsize <= self.qsize()

    def join(self, timeout: float | None = None) -> None:
        """Return once every task put in so far is done or dead. Raises `WaitTimeout` after `timeout` seconds."""
        begun = self._engine.now()
        if not self._consumer.wait_until_finished(timeout):
            raise WaitTimeout(
                f"queue {self.name!r} was not worked off within {timeout:g} seconds: {self.statistics()}; "
                "are workers running?",
                key=self.name,
                waited=self._engine.now() - begun,
            )

    def statistics(self) -> QueueStatistics:
        """A look that changes nothing; costs a pass over the unfinished tasks."""
        self._ack_buffer.record()
        priorities = self._priorities.all()
        counts = [priority.log.counts() for priority in priorities]
        return QueueStatistics(
            put=sum(each.appended for each in counts),
            waiting=sum(each.waiting for each in counts),
            delayed=sum(len(priority.log.delayed()) for priority in priorities),
            running=sum(len(priority.log.claims()) for priority in priorities),
            dead=sum(1 for _ in self._index.dead_letters()),
            workers=len(self._engine.entries(self._where + "/holders")[0]),
            closed=self.closed,
        )


class QueueInternals(NamedTuple):
    """The parts of a work queue that the rest of psync uses: see `internals_of`."""

    priorities: Priorities
    task_index: TaskIndex
    claims: Claims
    prefetched: Prefetched
    producer: Producer
    consumer: Consumer


def internals_of(queue: WorkQueue) -> QueueInternals:
    """The parts of a queue, for psync's own modules; users have no need of them."""
    return QueueInternals(
        queue._priorities, queue._index, queue._claims, queue._prefetched, queue._producer, queue._consumer
    )


def _arrived(kind: type[WorkQueue], db: Any, name: str, lease: float | None, attempts: int, maxsize: int) -> WorkQueue:
    return kind(rejoined(db), name, lease=lease, max_attempts=attempts, maxsize=maxsize)
