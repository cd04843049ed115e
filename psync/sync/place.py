"""Where a primitive lives: a store, an engine or a path becomes the engine to speak to."""

from __future__ import annotations

from psync.engine import Engine, Root, shared_engine
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
