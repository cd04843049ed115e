"""The contract of a bucket describes a dict that grows by appends and is one pickle at every instant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import NamedTuple

from psync.engine.contract.values import Version
from psync.errors import InvalidKey

COMPRESSED = "xx"
"""The last segment of the bucket with a category's compressed items."""
_HEX_DIGITS = frozenset("0123456789abcdef")


class ForeignBucket(ValueError):
    """A bucket can't be extended, because a foreign pickle stands there: the caller replaces it first."""

    def __init__(self, names: str) -> None:
        super().__init__(f"{names}: a foreign pickle, which can't be extended: replace it")


def is_bucket_name(name: str) -> bool:
    """Tell whether a category keeps a bucket at names like this: ``category/5d``, or ``category/xx``."""
    return name[-3:-2] == "/" and is_bucket_segment(name[-2:])


def is_bucket_segment(segment: str) -> bool:
    return len(segment) == 2 and (segment == COMPRESSED or _HEX_DIGITS.issuperset(segment))


def bucket_in_the_way(name: str, bucket: str) -> InvalidKey:
    """Return the error for a value that can't come to `name`, because `bucket` stands there or beside it."""
    category = name[:-3]
    why = f"it is a bucket of the category {category!r}, and only a dict takes the place of its items"
    if bucket != name:
        why = f"the category {category!r} may keep a bucket there, as it does at {bucket!r}"
    return InvalidKey(f"{name!r} can't hold a value: {why}; use another key", key=name)


def value_in_the_way(name: str) -> InvalidKey:
    """Return the error for a category that can't use the bucket at `name`, because a value stands there."""
    return InvalidKey(
        f"{name!r} is a value, the category {name[:-3]!r} keeps a bucket there: use another name for one of them "
        "(the value was left as it is)",
        key=name,
    )


class Tail(NamedTuple):
    """The bytes of a bucket behind a position: pickle opcodes that set items on the dict below them."""

    ops: bytes
    position: Position
    whole: bool
    """True when `ops` starts at the beginning (first read, or the bucket was replaced since)."""
    flags: int = 0
    foreign: bool = False
    """True when `ops` is not this but one complete pickle of a dict, written by something else."""


class Position(NamedTuple):
    """A read position: tells how far a reader of a bucket has come. Opaque: hand it back to `Bucket.tail`."""

    identity: Version
    end: int
    check: int


class Bucket(ABC):
    """A dict that grows at its end, stored as one pickle at every instant. Handles are cheap and may be kept."""

    @abstractmethod
    def tail(self, since: Position | None = None) -> Tail | None:
        """Return all that was appended after `since` (None: from the start); None when there is no such bucket.

        The appends come in order. Opcodes that change nothing may stand between them. The bytes are verified: a torn
        or unfinished append is never part of them. Raises `CorruptValue`.
        """

    def is_foreign(self) -> bool:
        """Tell whether something else than a bucket stands there. An engine may look at the beginning alone."""
        tail = self.tail()
        return tail is not None and tail.foreign

    @abstractmethod
    def append(self, ops: bytes) -> int:
        """Extend the dict by `ops`, whole or not at all, and create the bucket if there is none. All processes see the
        appends in one order.

        Returns about how many bytes the bucket takes now, never 0. Returns 0, and appends nothing, when a foreign
        pickle stands there (see `Tail.foreign`): the caller has to `replace` it first.
        """

    @abstractmethod
    def held(self) -> AbstractContextManager[HeldBucket | None]:
        """Keep every other `append`, `held` and cell write out for the length of the block.

        Gives None when the bucket does not exist and so can't be held. Then the caller appends to the bucket itself,
        or creates it; the first of several callers wins, as usual.
        """


class HeldBucket(ABC):
    """A locked bucket: its holder alone can change it."""

    @abstractmethod
    def tail(self, since: Position | None = None) -> Tail: ...

    @abstractmethod
    def append(self, ops: bytes) -> Position:
        """Append `ops` and return where the bucket ends now, to ask for the `tail` since then. Raises
        `ForeignBucket`."""

    @abstractmethod
    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        """Replace the content by exactly `ops`: its readers see all of the old or all of the new.

        `durable`: the new bytes are on the disk first, whatever the level, because the bytes that they replace are
        lost.
        """

    @abstractmethod
    def secure(self) -> None:
        """Make the last `replace` durable: after it, a power cut does not bring the old bytes back.

        The caller secures the copy before it drops the original.
        """

    @abstractmethod
    def drop(self) -> None:
        """Remove the bucket."""
