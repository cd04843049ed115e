"""What is known of a queue's tasks by their ids, beside their records: where they are, how they failed, the dead.

Three hashed categories below the queue: ``ids`` (where the task of an id of the caller's own is, and of one that was
revived), ``history`` (attempts that did not end well), ``dead`` (graves: where the task died, and what it was).
A grave counts as long as the task is where it died: to revive it is to set its id to another location,
and that decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psync.engine.contract import Engine
from psync.store import codec
from psync.store.category import MISSING, Category
from psync.sync.levels import Level, Levels, Location, location_of
from psync.sync.task import Attempt, DeadTask


class Ledger:
    """The three categories of one queue."""

    def __init__(self, engine: Engine, where: str, levels: Levels) -> None:
        self._levels = levels
        self._ids = Category(engine, where + "/ids")
        self._history = Category(engine, where + "/history")
        self._graves = Category(engine, where + "/dead")

    # -- where a task is -------------------------------------------------------------------------------

    def location(self, id: str) -> Location | None:
        """Where the task is; None for an id that was never given."""
        known = self._ids.get(id, fast_only=False)
        return location_of(id) if known is MISSING else Location(*known)

    def is_known(self, id: str) -> bool:
        return self._ids.get(id, fast_only=True) is not MISSING

    def set_location(self, id: str, location: Location) -> None:
        self._ids.set(id, tuple(location))

    def is_twin(self, id: str, location: Location) -> bool:
        """True if `id` is another record's: who put this one, or revived it, died before the id was known to be here,
        and perhaps it was put again."""
        known = self._ids.get(id, fast_only=True)
        if known is not MISSING and Location(*known) == location:
            return False  # as it nearly always is; that changes only when the task is dead
        with self._levels.main.log.held():
            known = self._ids.get(id, fast_only=True)
            if known is MISSING:
                if id.startswith("#"):
                    return True  # it is still where it died
                self.set_location(id, location)
                return False
            return Location(*known) != location

    # -- how it failed ---------------------------------------------------------------------------------

    def history(self, id: str) -> list[Attempt]:
        found = self._history.get(id, fast_only=False)
        return [] if found is MISSING else list(found)

    def remember(self, id: str, attempt: Attempt) -> None:
        """Bears being done twice."""
        history = [past for past in self.history(id) if past.number != attempt.number]
        self._history.set(id, [*history, attempt])

    def bury(self, id: str, location: Location, payload: bytes) -> None:
        self._graves.set(id, (*location, payload))

    def is_dead_at(self, id: str, location: Location) -> bool:
        """True if the task has a grave that says it died there."""
        grave = self._graves.get(id, fast_only=False)
        return grave is not MISSING and Location(*grave[:2]) == location

    def graves(self) -> Iterator[tuple[str, Location, bytes]]:
        """Id, location and payload of the dead that were not revived."""
        for id, (priority, position, payload) in self._graves.everything(_refuse).items():
            location = Location(priority, position)
            if self.location(id) == location:
                yield id, location, payload

    def dead(self) -> list[DeadTask]:
        return [DeadTask(id, _value(payload), self.history(id)) for id, _, payload in self.graves()]

    def revive(self, id: str, location: Location, payload: bytes) -> bool:
        """The task that died at `location` waits again; False if it does not lie there. Raises `Sealed`."""
        level = self._levels.level(location.priority)
        with self._levels.main.log.held(), level.log.held():
            if self.location(id) != location or not self.is_dead_at(id, location):
                return False
            tried = max((past.number for past in self.history(id)), default=0)
            # the record first: if we die before the id is set, whoever takes the record finds that it is not the task
            (position,) = level.append([codec.dumps((id, _first_payload(payload), tried))])
            self.set_location(id, Location(location.priority, position))
        return True


def unpack(payload: bytes) -> tuple[str | None, Any, int]:
    """Id (None: that of its location), value, and the attempts before it was revived. Raises what unpickling raises."""
    found = codec.loads(payload)
    return (found[0], found[1], 0) if len(found) == 2 else (found[0], codec.loads(found[1])[1], found[2])


def id_in(payload: bytes, level: Level, position: int) -> tuple[str, int]:
    """Id and earlier attempts, even where the value can't be unpickled."""
    try:
        id, _, *tried = codec.loads(payload)
    except Exception:  # a class is missing here, perhaps
        id, tried = None, []
    return id or Location(level.priority, position).id, tried[0] if tried else 0


def _first_payload(payload: bytes) -> bytes:
    """As it was put, before it was ever revived."""
    try:
        found = codec.loads(payload)
    except Exception:
        return payload
    first: bytes = found[1] if len(found) == 3 else payload
    return first


def _value(payload: bytes) -> Any:
    """What was put; where it can't be unpickled, the exception that says so."""
    try:
        return unpack(payload)[1]
    except Exception as error:
        return error


def _refuse(error: Exception) -> None:
    raise error
