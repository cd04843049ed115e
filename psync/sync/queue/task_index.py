"""What is known of a queue's tasks by their ids, beside their records: where they are, how they failed, the dead.

Three hashed categories below the queue: ``ids`` (where the task of an id of the caller's own is, and of one that was
revived), ``history`` (attempts that did not end well), ``dead`` (graves: where the task died, and what it was).
A grave counts as long as the task is where it died: to revive it is to set its id to another location,
and that decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from psync.engine.contract.engine import Engine
from psync.store.category import Category
from psync.store.codec import codec_of
from psync.store.pickles import first_of
from psync.store.sentinels import MISSING
from psync.sync.queue.priorities import Level, Levels, Location, location_of, place_of_answer
from psync.sync.queue.task import Attempt, DeadTask

_THREE = b"\x87"
"""How the pickle of a tuple of three ends, before MEMOIZE and STOP."""


class Ledger:
    """The three categories of one queue."""

    def __init__(self, engine: Engine, where: str, levels: Levels) -> None:
        self._levels = levels
        self._engine = engine
        self._codec = codec_of(engine.format)
        self._ids = Category(engine, where + "/ids")
        self._history = Category(engine, where + "/history")
        self._graves = Category(engine, where + "/dead")
        self._letters = Category(engine, where + "/results", place_of_answer)
        """Looked into for tasks that are put once more."""

    # -- where a task is -------------------------------------------------------------------------------

    def location(self, id: str) -> Location | None:
        """Where the task is; None for an id that was never given."""
        known = self._ids.get(id, fast_only=False)
        return location_of(id) if known is MISSING else _location(known)

    def is_known(self, id: str) -> bool:
        """Whether there is such a task, or was. Not one that was lost before anything came of it: who puts it once more
        means it."""
        known = self._ids.get(id, fast_only=True)
        if known is MISSING:
            return False
        location = _location(known)
        return not self.is_lost(location) or self.is_dead_at(id, location) or self._is_answered(id)

    def knows_any(self) -> bool:
        """Whether there ever was a task with an id of the caller's own, or one that was revived."""
        return any(self._engine.entries(self._ids.name))

    def _is_answered(self, id: str) -> bool:
        return self._letters.get(id, fast_only=False) is not MISSING

    def is_lost(self, location: Location) -> bool:
        """Whether a power cut, or damage, took the record of the task there."""
        level = self._levels.find(location.priority)
        return level is not None and level.log.lost(location.position)

    def set_location(self, id: str, location: Location) -> None:
        self._ids.set(id, [*location])

    def set_locations(self, locations: Mapping[str, Location], *, at_once: bool = True) -> None:
        """All at one moment; or else those in one bucket."""
        if locations:
            update = self._ids.update if at_once else self._ids.update_each
            update({id: [*location] for id, location in locations.items()})

    def is_twin(self, id: str, location: Location) -> bool:
        """True if `id` is another record's: who put this one, or revived it, died before the id was known to be here,
        and perhaps it was put again."""
        known = self._ids.get(id, fast_only=True)
        if known is not MISSING and _location(known) == location:
            return False  # as it nearly always is; that changes only when the task is dead
        with self._levels.main.log.held():
            known = self._ids.get(id, fast_only=True)
            if known is MISSING:
                if id.startswith("#"):
                    return True  # it is still where it died
                self.set_location(id, location)
                return False
            return _location(known) != location

    # -- how it failed ---------------------------------------------------------------------------------

    def history(self, id: str) -> list[Attempt]:
        found = self._history.get(id, fast_only=False)
        return [] if found is MISSING else [Attempt(*past) for past in found]

    def remember(self, id: str, attempt: Attempt) -> None:
        """Bears being done twice."""
        history = [past for past in self.history(id) if past.number != attempt.number]
        self._history.set(id, [[*past] for past in (*history, attempt)])

    def bury(self, id: str, location: Location, payload: bytes) -> None:
        self._graves.set(id, [*location, self._codec.embed(payload)])

    def is_dead_at(self, id: str, location: Location) -> bool:
        """True if the task has a grave that says it died there."""
        grave = self._graves.get(id, fast_only=False)
        return grave is not MISSING and _location(grave[:2]) == location

    def graves(self) -> Iterator[tuple[str, Location, bytes]]:
        """Id, location and payload of the dead that were not revived."""
        for id, (priority, position, payload) in self._graves.everything(_refuse).items():
            location = _location((priority, position))
            if self.location(id) == location:
                yield id, location, self._codec.extract(payload)

    def dead(self) -> list[DeadTask]:
        return [DeadTask(id, self._value(payload), self.history(id)) for id, _, payload in self.graves()]

    def revive(self, id: str, location: Location, payload: bytes) -> bool:
        """The task that died at `location` waits again; False if it does not lie there. Raises `Sealed`."""
        level = self._levels.level(location.priority)
        with self._levels.main.log.held(), level.log.held():
            if self.location(id) != location or not self.is_dead_at(id, location):
                return False
            tried = max((past.number for past in self.history(id)), default=0)
            # the record first: if we die before the id is set, whoever takes the record finds that it is not the task
            (position,) = level.append([self.packed(id, self._first_payload(payload), tried)])
            self.set_location(id, Location(location.priority, position))
        return True

    # -- what a record says ----------------------------------------------------------------------------

    def unpack(self, payload: bytes) -> tuple[str | None, Any, int]:
        """Id (None: that of its location), value, and the attempts before it was revived. Raises what unpickling
        raises, or TypeError."""
        codec = self._codec
        id, value, *tried = codec.unpack(payload)
        if id is not None and not isinstance(id, str):
            raise TypeError(f"a task's id is a str, not {id!r}")
        return (id, codec.unpack(codec.extract(value))[1], int(tried[0])) if tried else (id, value, 0)

    def parts_of(self, payload: bytes) -> tuple[str | None, bytes, int]:
        """Id (None: that of its location), what was put at first, and the attempts before it was revived or moved.

        The value is not unpickled: its class may be missing here. Raises what unpickling raises for what is no task.
        """
        if self._codec.objects and payload[-3:-2] != _THREE:
            return first_of(payload), payload, 0
        id, *more = self._codec.unpack(payload)
        if not isinstance(id, str | None):
            raise TypeError(f"a task's id is a str, not {id!r}")
        return (id, payload, 0) if len(more) == 1 else (id, self._codec.extract(more[0]), int(more[1]))

    def packed(self, id: str, first: bytes, tried: int) -> bytes:
        """The payload of a task that was put before, at another location."""
        return self._codec.pack((id, self._codec.embed(first), tried))

    def id_in(self, payload: bytes, level: Level, position: int) -> tuple[str, int]:
        """Id and earlier attempts, even where the value can't be unpickled."""
        try:
            id, _, tried = self.parts_of(payload)
        except Exception:  # it is damaged, or somebody's who is not trusted
            id, tried = None, 0
        return id or Location(level.priority, position).id, tried

    def _first_payload(self, payload: bytes) -> bytes:
        """As it was put, before it was ever revived."""
        try:
            return self.parts_of(payload)[1]
        except Exception:
            return payload

    def _value(self, payload: bytes) -> Any:
        """What was put; where it can't be unpickled, the exception that says so."""
        try:
            return self.unpack(payload)[1]
        except Exception as error:
            return error


def _location(known: Sequence[int]) -> Location:
    """Raises ValueError for what is none."""
    priority, position = known
    if type(priority) is not int or type(position) is not int:
        raise ValueError(f"{known!r} is no location of a task")
    return Location(priority, position)


def _refuse(error: Exception) -> None:
    raise error
