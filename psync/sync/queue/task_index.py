"""Task index: finds tasks by id: where their records are, how attempts failed, the dead letters, and the results.

On disk, four hashed categories below the queue: ``ids`` (the location of each task whose id is the caller's own, or
that was revived), ``history`` (attempts that did not end well), ``dead`` (dead letters: where the task died, and its
payload), and ``results``. A dead letter counts while the task is where it died: reviving a task sets its id to another
location, and that is the fact that decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import Record, State
from psync.store.category import Category
from psync.store.codec import codec_of
from psync.store.pickles import first_of
from psync.store.sentinels import MISSING
from psync.store.unreadable import raise_unreadable
from psync.sync.primitive import given_name
from psync.sync.queue.priorities import Priorities, Priority
from psync.sync.queue.task_id import TaskLocation, bucket_of_result, location_of

WITH_RESULT = 1
"""The beat of a DONE record whose task has a result. If that result is missing, a power cut took it."""
_TUPLE3 = b"\x87"
"""The opcode that ends the pickle of a tuple of three, before MEMOIZE and STOP."""


HISTORY_FIRST, HISTORY_LAST = 2, 10
"""Attempts that a task's history keeps: the first ones tell how it began, and the last ones how it stands."""
MAX_ERROR_CHARACTERS = 8192
"""Of the text of an attempt's error that a history keeps; of a longer one the middle is left out."""


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


class TaskIndex:
    """The categories of one queue."""

    def __init__(self, engine: Engine, priorities: Priorities) -> None:
        """`engine`: that of the queue, perhaps at a higher durability."""
        where = priorities.where
        self._priorities = priorities
        self._engine = engine
        self._codec = codec_of(engine.format)
        self._ids = Category(engine, where + "/ids")
        self._history = Category(engine, where + "/history")
        self._dead_letters = Category(engine, where + "/dead")
        self._shown = shown = f"the queue {given_name(where.rpartition('/')[2])!r}"
        self.results = Category(engine, where + "/results", bucket_of_result, shown=shown, item="the result of task")

    # -- where a task is -------------------------------------------------------------------------------

    def location(self, id: str) -> TaskLocation | None:
        """Where the task is; None for an id that was never given."""
        known = self._ids.get(id, fast_only=False)
        return location_of(id) if known is MISSING else _location(known)

    def is_known(self, id: str) -> bool:
        """Whether such a task was ever put. False for a task that was lost before it ended in any way: a caller who
        puts it once more wants it to run."""
        known = self._ids.get(id, fast_only=True)
        if known is MISSING:
            return False
        location = _location(known)
        return not self._is_lost(location) or self.is_dead_at(id, location) or self.has_result(id)

    def knows_any(self) -> bool:
        """Whether there ever was a task with an id of the caller's own, or one that was revived."""
        return any(self._engine.entries(self._ids.name))

    def has_result(self, id: str) -> bool:
        """Whether a result was recorded, whatever the status of the task says."""
        return self.results.has(id)

    def _is_lost(self, location: TaskLocation) -> bool:
        """Whether a power cut, or damage, took the record of the task there."""
        priority = self._priorities.find(location.priority)
        return priority is not None and priority.log.lost(location.position)

    def set_location(self, id: str, location: TaskLocation) -> None:
        self._ids.set(id, [*location])

    def set_locations(self, locations: Mapping[str, TaskLocation]) -> None:
        """Set the locations in one bucket at a time."""
        if locations:
            self._ids.update_each({id: [*location] for id, location in locations.items()})

    def is_duplicate(self, id: str, location: TaskLocation) -> bool:
        """True if `id` belongs to another record.

        The process that put this record, or revived the task, died before it had set the id; since then the task may
        have been put again.
        """
        known = self._ids.get(id, fast_only=True)
        if known is not MISSING and _location(known) == location:
            return False  # the usual case; it can't change before the task is dead
        with self._priorities.main.log.held():
            known = self._ids.get(id, fast_only=True)
            if known is MISSING:
                if id.startswith("#"):
                    return True  # a revival that was not completed: the task is still where it died
                self.set_location(id, location)
                return False
            return _location(known) != location

    def find(self, id: str) -> tuple[TaskLocation, Priority, Record | None] | None:
        """Where the task is, and its record unless that is gone; None for an id that leads nowhere."""
        location = self.location(id)
        priority = None if location is None else self._priorities.find(location.priority)
        if location is None or priority is None:
            return None
        return location, priority, priority.log.read(location.position)

    def state(self, id: str) -> State | None:
        """How far the task has come; None for an id that was never given."""
        found = self.find(id)
        if found is None:
            return None
        location, priority, record = found
        if record is not None:
            return record.mark.state
        if location.position >= priority.log.counts().end:
            return None
        return State.DEAD if self.is_dead_at(id, location) or self._is_lost(location) else State.DONE

    def was_done_with_result(self, id: str) -> bool:
        """Whether the status of the task says that it has a result, as far as its record is still there."""
        found = self.find(id)
        mark = None if found is None or found[2] is None else found[2].mark
        return mark is not None and mark.state is State.DONE and mark.beat == WITH_RESULT

    # -- how it failed ---------------------------------------------------------------------------------

    def history(self, id: str) -> list[Attempt]:
        """The attempts that did not end well: of more than HISTORY_FIRST + HISTORY_LAST the first and the last ones."""
        found = self._history.get(id, fast_only=False)
        return [] if found is MISSING else [Attempt(*past) for past in found]

    def add_attempt(self, id: str, attempt: Attempt) -> None:
        """Add to the history. Idempotent: an attempt of the same number is replaced."""
        history = [past for past in self.history(id) if past.number != attempt.number]
        history.append(attempt._replace(error=_shortened(attempt.error)))
        del history[HISTORY_FIRST:-HISTORY_LAST]
        self._history.set(id, [[*past] for past in history])

    def add_dead_letter(self, id: str, location: TaskLocation, payload: bytes) -> None:
        self._dead_letters.set(id, [*location, self._codec.embed(payload)])

    def is_dead_at(self, id: str, location: TaskLocation) -> bool:
        """True if the task has a dead letter that says it died there."""
        letter = self._dead_letters.get(id, fast_only=False)
        return letter is not MISSING and _location(letter[:2]) == location

    def dead_letters(self) -> Iterator[tuple[str, TaskLocation, bytes]]:
        """Id, location and payload of the dead that were not revived."""
        for id, (priority, position, payload) in self._dead_letters.everything(_raise, _raise).items():
            location = _location((priority, position))
            if self.location(id) == location:
                yield id, location, self._codec.extract(payload)

    def dead(self) -> list[DeadTask]:
        """See `WorkQueue.dead`."""
        return [DeadTask(id, self._value(id, payload), self.history(id)) for id, _, payload in self.dead_letters()]

    def revive(self, id: str, location: TaskLocation, payload: bytes) -> bool:
        """Make the task that died at `location` wait again; False if it is not dead there. Raises `Sealed`."""
        priority = self._priorities.use(location.priority)
        with self._priorities.main.log.held(), priority.log.held():
            if self.location(id) != location or not self.is_dead_at(id, location):
                return False
            tried = max((past.number for past in self.history(id)), default=0)
            # The record before the id: after a crash in between, the consumer that claims the record finds that the id
            # still leads to where the task died (`is_duplicate`), and drops the record.
            (position,) = priority.append([self.packed(id, self._readable_parts(payload)[1], tried)])
            self.set_location(id, TaskLocation(location.priority, position))
        return True

    # -- what a record says ----------------------------------------------------------------------------

    def unpack(self, payload: bytes) -> tuple[str | None, Any, int]:
        """Id (None: the id of its location), value, and the attempts before it was revived. Raises what unpickling
        raises, or TypeError."""
        codec = self._codec
        id, value, *tried = codec.unpack(payload)
        if id is not None and not isinstance(id, str):
            raise TypeError(f"a task's id is a str, not {id!r}")
        return (id, codec.unpack(codec.extract(value))[1], int(tried[0])) if tried else (id, value, 0)

    def can_be_unpacked(self, payload: bytes) -> bool:
        """Whether `unpack` finds enough memory at a second attempt."""
        try:
            self.unpack(payload)
        except MemoryError:
            return False
        return True

    def parts_of(self, payload: bytes) -> tuple[str | None, bytes, int]:
        """Id (None: the id of its location), the payload as first put, and the attempts before it was revived or moved.

        The value is not unpickled, because its class may be missing here. Raises what unpickling raises for a payload
        that is no task.
        """
        if self._codec.objects and payload[-3:-2] != _TUPLE3:
            return first_of(payload), payload, 0
        id, *more = self._codec.unpack(payload)
        if not isinstance(id, str | None):
            raise TypeError(f"a task's id is a str, not {id!r}")
        return (id, payload, 0) if len(more) == 1 else (id, self._codec.extract(more[0]), int(more[1]))

    def packed(self, id: str, first: bytes, tried: int) -> bytes:
        """The payload of a task that was put before, at another location."""
        return self._codec.pack((id, self._codec.embed(first), tried))

    def id_in(self, payload: bytes, priority: Priority, position: int) -> tuple[str, int]:
        """Id and earlier attempts, even where the value can't be unpickled."""
        id, _, tried = self._readable_parts(payload)
        return id or TaskLocation(priority.number, position).id, tried

    def _readable_parts(self, payload: bytes) -> tuple[str | None, bytes, int]:
        """Like `parts_of`, but a payload that is no task is returned as it is, without an id."""
        try:
            return self.parts_of(payload)
        except Exception:  # it is damaged, or was written by a process that is not trusted
            return None, payload, 0

    def _value(self, id: str, payload: bytes) -> Any:
        """The value that was put; where it can't be unpickled, the exception that says so."""
        try:
            return self.unpack(payload)[1]
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            why = self.explained(id, payload, error)
            if not isinstance(why, Exception):
                raise
            return why

    def explained(self, id: str, payload: bytes, error: BaseException) -> BaseException:
        """The `UnreadableValue` for an `error` of `unpack`; the error itself if it is another one's."""
        if not self._codec.objects:
            return error
        first = self._readable_parts(payload)[1]
        try:
            what = f"the value of task {id!r} of {self._shown}"
            raise_unreadable(what, error, first, self._codec, key=id, category=self._priorities.where)
        except BaseException as explained:
            return explained


def _location(known: Sequence[int]) -> TaskLocation:
    """Raises ValueError for anything that is no location."""
    priority, position = known
    if type(priority) is not int or type(position) is not int:
        raise ValueError(f"{known!r} is no location of a task")
    return TaskLocation(priority, position)


def _shortened(text: str) -> str:
    if len(text) <= MAX_ERROR_CHARACTERS:
        return text
    half = MAX_ERROR_CHARACTERS // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters are left out here]\n{text[-half:]}"


def _raise(error: Exception) -> None:
    raise error
