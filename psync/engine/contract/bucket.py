"""The contract of a bucket describes a dict that grows by appends and is one pickle at every instant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import NamedTuple

from psync.engine.contract.values import Version


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
        """Append `ops` and return where the bucket ends now, to ask for the `tail` since then."""

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
