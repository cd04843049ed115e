"""Types of the contract that every engine and every floor above it shares."""

# annotations are evaluated here: `NamedTuple` would compile each one that is a string, at every start
import enum
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Durability = Literal["process", "file", "power"]


Version = tuple[int, ...]
"""Tells whether a cell changed. Only equality means anything."""


Update = Callable[[bytes | None], bytes | None]


FOREIGN_REASON = "psync did not write it"
"""How the reason in quarantine begins for a file of others, which was set aside because its name was set."""


class Cell(NamedTuple):
    """A value as it was read: one pickle, checked, and its version."""

    payload: bytes
    version: Version
    sealed: bool = True
    """False for a file that carries no checksum (an old plain pickle): it can't be told from a damaged one."""


class Alive(enum.Enum):
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """Nothing proves life or death; treat the process as alive."""


Key = bytes | Sequence[bytes]
"""Secret bytes that sign the stored data. The first of several keys signs; a signature by any of them is accepted."""


Serializer = Literal["pickle", "json"]


class Format(NamedTuple):
    """The encoding of values: the serializer, and the names that unpickling may look up."""

    serializer: Serializer = "pickle"
    allowed: frozenset[str] | None = None
    """Names that unpickling may look up: ``module.name``, or ``module`` for every class defined there. None: all."""
