"""Types returned by the inspection verbs: shapes and sizes of names, processes at work, and findings of the doctor."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from psync.engine.contract.values import Alive, Identity, Usage


class Shape(enum.Enum):
    """The shape of the value at a name."""

    CELL = "cell"
    BUCKET = "bucket"
    LOG = "log"
    REGISTER = "register"


class Facts(NamedTuple):
    """Size and time of a cell or bucket, known without reading its bytes."""

    size: int
    """Bytes."""
    changed: float | None
    """The time of its last change, in seconds since 1970; None where the engine keeps none."""


class Process(NamedTuple):
    """One process that works in the store, or worked in it."""

    owner: int
    identity: Identity | None
    """None if it can't be read."""
    alive: Alive
    usage: Usage | None
    """None unless it is a living process of this host."""


OK, NOTE, WRONG = "ok", "note", "wrong"


class Finding(NamedTuple):
    """One finding about the place where a store is."""

    what: str
    state: str
    """OK, NOTE (good to know) or WRONG (a problem)."""
    says: str
    remedy: str = ""


FEW = 10
"""The number of names that a finding lists."""


def some_of(names: tuple[str, ...]) -> str:
    """List the first few names behind a colon; nothing if there are none."""
    if not names:
        return ""
    more = f", and {len(names) - FEW} more" if len(names) > FEW else ""
    return f": {'; '.join(names[:FEW])}{more}"
