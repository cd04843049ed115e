"""Migration: copies a queue to another store; unfinished tasks wait there, in the same order and under the same ids.

A position means something in one store only, so a task gets another position, and its id leads there, as after a
revival. The destination gives out no position that was ever given in the source: so the ids of finished tasks that were
made from positions stay unique, and answer as before. A task that was claimed waits again, because its holder is not at
the destination. `Task.attempt` goes on counting; towards `max_attempts` the count begins anew.

Tasks are appended in batches, and then their ids are set. The fact that decides is the append: after a crash in
between, the next run finds that the last tasks have no ids yet, and sets them. It continues where the last run ended:
the n-th task of the destination is the n-th unfinished task of the source, as long as nobody uses the queue meanwhile.
The run checks that they are equal before it adds anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, zip_longest
from typing import NamedTuple

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import WAITING, Record, State
from psync.sync.primitive import own_name
from psync.sync.queue.delays import delayed_mark, remaining
from psync.sync.queue.priorities import Priorities, Priority
from psync.sync.queue.task_id import TaskLocation
from psync.sync.queue.task_index import TaskIndex

MAX_TASKS_PER_APPEND = 500
COPIED_CATEGORIES = ("dead", "history", "results")
"""The parts of a queue that are copied as they are; the rest is made anew at the destination."""


class Moved(NamedTuple):
    """A task as it is to be at the destination."""

    id: str
    payload: bytes
    delay: float
    """Seconds; 0 for one that waits."""


class QueuesDiffer(Exception):
    """The two queues differ in something that continuing the copy does not mend."""


class Migration:
    """The migration of one queue between two stores that nobody else uses meanwhile."""

    def __init__(self, source: Engine, destination: Engine, name: str) -> None:
        self.name = name
        self.where = where = own_name("queue", name)
        self._from, self._to = source, destination
        self._priorities = Priorities(source, where)
        self._index = TaskIndex(source, self._priorities)
        self._priorities_there = Priorities(destination, where)
        self._index_there = TaskIndex(destination, self._priorities_there)

    def ends(self) -> list[list[int]]:
        """Each priority, and where its log ends here: that changes when somebody puts a task, or revives one."""
        return [[priority.number, priority.log.counts().end] for priority in self._priorities.all()]

    def run(self, told: Callable[[int], object]) -> None:
        """Add every unfinished task to the destination; calls `told` with the size of each batch.

        Raises `QueuesDiffer`.
        """
        for priority in self._priorities.all():
            there = self._priorities_there.use(priority.number)
            counts = priority.log.counts()
            there.log.begin(counts.end, counts.appended - sum(1 for _ in self._unfinished(priority)))
            if there.log.counts().sealed:
                there.log.seal(False)
            for delayed in (False, True):
                self._add_missing(priority, there, delayed, told)
        main = self._priorities.main.log
        is_sealed, noted = main.counts().sealed, main.noted
        self._priorities_there.main.log.note(lambda note: note | noted)
        if is_sealed:
            self._priorities_there.main.log.seal()

    def differences(self) -> Iterator[str]:
        """Each difference between the two queues, as a sentence."""
        if self._priorities_there.main.log.counts().sealed != self._priorities.main.log.counts().sealed:
            yield "one of the two is closed, and the other is not"
        for priority in self._priorities.all():
            there = self._priorities_there.find(priority.number)
            if there is None:
                yield f"there are no tasks of priority {priority.number}"
                continue
            if there.log.counts().appended != priority.log.counts().appended:
                yield f"{there.log.counts().appended} tasks were put there, and {priority.log.counts().appended} here"
            for delayed in (False, True):
                for here, record in zip_longest(self._here(priority, delayed), _there(there, delayed)):
                    if here is None or record is None or here.payload != record.payload:
                        yield f"task {self._id_of(here, record, there)} is not the same, or only in one of the two"

    # -- here --------------------------------------------------------------------------------------------

    def _unfinished(self, priority: Priority) -> Iterator[Record]:
        """The unfinished tasks, without those whose worker died between the result and the status."""
        for record in priority.log.unfinished():
            if record.mark.state is State.CLAIMED:
                id, _ = self._index.id_in(record.payload, priority, record.position)
                if self._index.has_result(id):
                    continue
            yield record

    def _here(self, priority: Priority, delayed: bool) -> Iterator[Moved]:
        for record in self._unfinished(priority):
            mark = record.mark
            if (mark.state is State.DELAYED) is delayed:
                given, first, tried = self._index.parts_of(record.payload)
                id = given or TaskLocation(priority.number, record.position).id
                more = mark.attempt - (mark.state is State.CLAIMED and not mark.beat)
                says_all = given is not None and not more
                payload = record.payload if says_all else self._index.packed(id, first, tried + more)
                yield Moved(id, payload, remaining(self._from, mark) if delayed else 0.0)

    # -- there -------------------------------------------------------------------------------------------

    def _add_missing(self, priority: Priority, there: Priority, delayed: bool, told: Callable[[int], object]) -> None:
        moved = self._here(priority, delayed)
        last: deque[tuple[str, int]] = deque(maxlen=MAX_TASKS_PER_APPEND)
        for record in _there(there, delayed):
            here = next(moved, None)
            if here is None or here.payload != record.payload:
                raise QueuesDiffer(f"task {self._id_of(here, record, there)} is not the same in both")
            last.append((here.id, record.position))
        self._set_ids(there, last)
        while batch := list(islice(moved, 1 if delayed else MAX_TASKS_PER_APPEND)):
            self._add(there, batch)
            told(len(batch))

    def _add(self, there: Priority, batch: list[Moved]) -> None:
        mark = delayed_mark(self._to, batch[0].delay) if batch[0].delay else WAITING
        positions = there.log.append([one.payload for one in batch], mark)
        self._set_ids(there, zip((one.id for one in batch), positions, strict=True))

    def _set_ids(self, there: Priority, tasks: Iterable[tuple[str, int]]) -> None:
        self._index_there.set_locations({id: TaskLocation(there.number, position) for id, position in tasks})

    def _id_of(self, here: Moved | None, record: Record | None, there: Priority) -> str:
        if here is not None or record is None:
            return repr(here and here.id)
        return repr(self._index_there.id_in(record.payload, there, record.position)[0])


def _there(priority: Priority, delayed: bool) -> Iterator[Record]:
    return (record for record in priority.log.unfinished() if (record.mark.state is State.DELAYED) is delayed)
