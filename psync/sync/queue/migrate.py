"""A queue goes to another store: what is not finished waits there again, in the same order, under the same ids.

A position means something in one store only, so a task gets another one, and its id leads there (as that of a task that
was revived does). No position is used there that was ever given here: so the ids of tasks that are finished, and were
made of their positions, are nobody else's, and tell the same as before. A task that somebody had waits again: there is
nobody there who had it. Its attempts go on counting; towards `max_attempts` they count anew.

Tasks are appended some at a time, and then their ids are set: the append decides. Killed in between, the next run finds
that the tasks at the end have no ids yet. It goes on where the last one ended: the n-th task there is the n-th here, as
long as nobody uses the queue meanwhile; that they are the same is looked at before anything is added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import WAITING, Record, State
from psync.store.sentinels import MISSING
from psync.sync.primitive import own_name
from psync.sync.queue.delays import remaining, until_later
from psync.sync.queue.priorities import Level, Levels, Location
from psync.sync.queue.task_index import Ledger
from psync.sync.queue.work_queue import WorkQueue

AT_ONCE = 500
"""Tasks that are appended together."""
KEPT = ("dead", "history", "results")
"""What of a queue is copied as it is; the rest is made anew there."""


class Moved(NamedTuple):
    """A task as it is to be there."""

    id: str
    payload: bytes
    delay: float
    """Seconds; 0 for one that waits."""


class Unlike(Exception):
    """The two queues differ in something that is not mended by going on."""


class Move:
    """Of one queue, between two stores that nobody else uses meanwhile."""

    def __init__(self, source: Engine, destination: Engine, name: str) -> None:
        self.name = name
        self.where = where = own_name("queue", name)
        self._from, self._to = source, destination
        self._levels = Levels(source, where)
        self._ledger = Ledger(source, where, self._levels)
        self._results = WorkQueue(source, name).results
        self._levels_there = Levels(destination, where)
        self._ledger_there = Ledger(destination, where, self._levels_there)

    def ends(self) -> list[list[int]]:
        """Each priority, and where its log ends here: that changes when somebody puts a task, or revives one."""
        return [[level.priority, level.log.counts().end] for level in self._levels.all()]

    def run(self, told: Callable[[int], object]) -> None:
        """Everything that is not finished is there; `told` hears of how many were added. Raises `Unlike`."""
        for level in self._levels.all():
            there = self._levels_there.level(level.priority)
            counts = level.log.counts()
            there.log.begin(counts.end, counts.appended - sum(1 for _ in self._unfinished(level)))
            if there.log.counts().sealed:
                there.log.seal(False)
            for delayed in (False, True):
                self._add_missing(level, there, delayed, told)
        main = self._levels.main.log
        is_sealed, noted = main.counts().sealed, main.noted
        self._levels_there.main.log.note(lambda note: note | noted)
        if is_sealed:
            self._levels_there.main.log.seal()

    def differences(self) -> Iterator[str]:
        """In what the queue there is not what it is here, in words."""
        if self._levels_there.main.log.counts().sealed != self._levels.main.log.counts().sealed:
            yield "one of the two is closed, and the other is not"
        for level in self._levels.all():
            there = self._levels_there.find(level.priority)
            if there is None:
                yield f"there are no tasks of priority {level.priority}"
                continue
            if there.log.counts().appended != level.log.counts().appended:
                yield f"{there.log.counts().appended} tasks were put there, and {level.log.counts().appended} here"
            for delayed in (False, True):
                for here, record in zip_longest(self._here(level, delayed), _there(there, delayed)):
                    if here is None or record is None or here.payload != record.payload:
                        yield f"task {self._told(here, record, there)} is not the same, or only in one of the two"

    # -- here --------------------------------------------------------------------------------------------

    def _unfinished(self, level: Level) -> Iterator[Record]:
        """Without those that are answered, though their worker died before it could say so."""
        for record in level.log.unfinished():
            if record.mark.state is State.CLAIMED and self._is_answered(level, record):
                continue
            yield record

    def _is_answered(self, level: Level, record: Record) -> bool:
        return self._results.letter(self._ledger.id_in(record.payload, level, record.position)[0]) is not MISSING

    def _here(self, level: Level, delayed: bool) -> Iterator[Moved]:
        for record in self._unfinished(level):
            mark = record.mark
            if (mark.state is State.DELAYED) is delayed:
                given, first, tried = self._ledger.parts_of(record.payload)
                id = given or Location(level.priority, record.position).id
                more = mark.attempt - (mark.state is State.CLAIMED and not mark.beat)
                says_all = given is not None and not more
                payload = record.payload if says_all else self._ledger.packed(id, first, tried + more)
                yield Moved(id, payload, remaining(self._from, mark) if delayed else 0.0)

    # -- there -------------------------------------------------------------------------------------------

    def _add_missing(self, level: Level, there: Level, delayed: bool, told: Callable[[int], object]) -> None:
        moved = self._here(level, delayed)
        last: deque[tuple[str, int]] = deque(maxlen=AT_ONCE)
        for record in _there(there, delayed):
            here = next(moved, None)
            if here is None or here.payload != record.payload:
                raise Unlike(f"task {self._told(here, record, there)} is not the same in both")
            last.append((here.id, record.position))
        self._set_ids(there, last)
        batch: list[Moved] = []
        for one in moved:
            batch.append(one)
            if len(batch) == (1 if delayed else AT_ONCE):
                self._add(there, batch)
                told(len(batch))
                batch = []
        if batch:
            self._add(there, batch)
            told(len(batch))

    def _add(self, there: Level, batch: list[Moved]) -> None:
        mark = until_later(self._to, batch[0].delay) if batch[0].delay else WAITING
        positions = there.log.append([one.payload for one in batch], mark)
        self._set_ids(there, zip((one.id for one in batch), positions, strict=True))

    def _set_ids(self, there: Level, tasks: Iterable[tuple[str, int]]) -> None:
        self._ledger_there.set_locations({id: Location(there.priority, position) for id, position in tasks})

    def _told(self, here: Moved | None, record: Record | None, there: Level) -> str:
        if here is not None or record is None:
            return repr(here and here.id)
        return repr(self._ledger_there.id_in(record.payload, there, record.position)[0])


def _there(level: Level, delayed: bool) -> Iterator[Record]:
    return (record for record in level.log.unfinished() if (record.mark.state is State.DELAYED) is delayed)
