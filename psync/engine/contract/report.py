"""What who looks at a whole store gets to see: what stands in it, who is at work, and in what condition it is."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from psync.engine.contract.values import Alive, Identity, Usage


class Shape(enum.Enum):
    """What stands at a name."""

    CELL = "cell"
    BUCKET = "bucket"
    LOG = "log"
    REGISTER = "register"


class Facts(NamedTuple):
    """What is known of a cell or bucket without reading it."""

    size: int
    """Bytes that it takes."""
    changed: float | None
    """When it was last changed, in seconds since 1970; None where nobody keeps that."""


class Process(NamedTuple):
    """One process that works in the store, or did."""

    owner: int
    identity: Identity | None
    """None if it can't be read."""
    alive: Alive
    usage: Usage | None
    """None for what is not a living process of this host."""


OK, NOTE, WRONG = "ok", "note", "wrong"


class Finding(NamedTuple):
    """One thing that there is to say about the place where a store is."""

    what: str
    state: str
    """OK, NOTE (good to know) or WRONG (it stands in the way)."""
    says: str
    remedy: str = ""


FEW = 10
"""So many of a kind are named."""


def some_of(names: tuple[str, ...]) -> str:
    """The first few of them, behind a colon; nothing if there are none."""
    if not names:
        return ""
    more = f", and {len(names) - FEW} more" if len(names) > FEW else ""
    return f": {'; '.join(names[:FEW])}{more}"
