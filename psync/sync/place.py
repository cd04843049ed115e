"""Where a primitive lives: a store, an engine or a path becomes the engine to speak to, and a name the place there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from psync.engine import Engine, Root, rejoined, shared_engine
from psync.store import PickleShareDB
from psync.store.keys import check

Place = PickleShareDB | Engine | Root


def engine_of(db: Place) -> Engine:
    """The engine of `db`; of a path, the one that everybody in this process who names that path shares."""
    if isinstance(db, PickleShareDB):
        return db.engine
    return db if isinstance(db, Engine) else shared_engine(db)


def own_name(kind: str, name: str) -> str:
    """The hidden name under which the primitive `name` of some kind keeps its state. Raises `InvalidKey`."""
    return f".psync/{kind}/{check(name)}"


class Primitive(ABC):
    """What every kind has: a name in a directory. Handles of one name are one primitive, wherever they were made.

    A handle travels to other processes: what is sent is its name and where that is; what one process holds stays there.
    """

    _kind: ClassVar[str]

    def __init__(self, db: Place, name: str) -> None:
        self.name = name
        self._where = own_name(self._kind, name)
        self._engine = engine_of(db)

    @property
    def engine(self) -> Engine:
        """What keeps it."""
        return self._engine

    def _arguments(self) -> tuple[Any, ...]:
        """What `__init__` needs beside the place, to make a handle of the same primitive."""
        return (self.name,)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (type(self), self._engine, *self._arguments())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._state()}>"

    @abstractmethod
    def _state(self) -> str:
        """How it stands, in a few words."""


def _arrived(kind: type[Primitive], engine: Engine, *arguments: Any) -> Primitive:
    return kind(rejoined(engine), *arguments)
