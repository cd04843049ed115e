"""Primitive: gives each primitive its engine (from a store, an engine or a path) and its name in the store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar
from urllib.parse import unquote

from psync.engine import Durability, Engine, Root, open_engine, rejoined, shared_engine
from psync.errors import InvalidKey
from psync.store import PickleShareDB
from psync.store.keys import MAX_SEGMENT_BYTES, check

Place = PickleShareDB | Engine | Root


def engine_of(db: Place, durability: Durability | None = None) -> Engine:
    """Return the engine of `db`; for a path, the one that this process shares for that path.

    `durability`: the level of the engine; None: that of `db`.
    """
    if isinstance(db, PickleShareDB):
        return db.engine.at(durability)
    return (open_engine(db) if isinstance(db, Engine) else shared_engine(db)).at(durability)


def own_name(kind: str, name: str) -> str:
    """Return the hidden name under which a primitive keeps its state. Raises `InvalidKey`.

    It is one segment, whatever slashes `name` has, so that ``"a"`` is never the folder of ``"a/b"``.
    """
    segment = check(name).replace("%", "%25").replace("/", "%2F")
    if (size := len(segment.encode("utf-8", "surrogateescape"))) > MAX_SEGMENT_BYTES:
        raise InvalidKey(
            f"the name {name[:80]!r}... takes {size} bytes, a slash counting 3; the longest is {MAX_SEGMENT_BYTES}",
            key=name,
        )
    return f".psync/{kind}/{segment}"


def given_name(segment: str) -> str:
    """Return the name of which `own_name` made `segment`."""
    return unquote(segment, errors="surrogateescape")


class Primitive(ABC):
    """A name in a store. All handles of one name are one primitive, in whichever process they were made.

    A handle can be pickled: its name and the place of its store travel; the holds of this process stay here.
    """

    _kind: ClassVar[str]

    def __init__(self, db: Place, name: str, durability: Durability | None = None) -> None:
        self.name = name
        self._where = own_name(self._kind, name)
        self._engine = engine_of(db, durability)

    @property
    def engine(self) -> Engine:
        """The engine that keeps its state."""
        return self._engine

    def _arguments(self) -> tuple[Any, ...]:
        """Return the arguments that `__init__` takes after the place, to make a handle of the same primitive."""
        return (self.name,)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (type(self), self._engine, *self._arguments())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._state()}>"

    @abstractmethod
    def _state(self) -> str:
        """Describe the state in a few words."""


def _arrived(kind: type[Primitive], engine: Engine, *arguments: Any) -> Primitive:
    return kind(rejoined(engine), *arguments)
