"""The contract of a bucket: a dict that grows at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import NamedTuple

from psync.engine.contract.values import Version


class Tail(NamedTuple):
    """What a bucket held behind a position: pickle opcodes that set items on the dict below them."""

    ops: bytes
    position: Position
    whole: bool
    """True when `ops` starts at the beginning (first read, or the bucket was replaced since)."""
    flags: int = 0
    foreign: bool = False
    """True when `ops` is not this but one complete pickle of a dict, written by something else."""


class Position(NamedTuple):
    """How far a reader of a bucket has come. Opaque: hand it back to `Bucket.tail`."""

    identity: Version
    end: int
    check: int


class Bucket(ABC):
    """A dict that grows at its end, stored as one pickle at every instant. Handles are cheap and may be kept."""

    @abstractmethod
    def tail(self, since: Position | None = None) -> Tail | None:
        """All that was appended after `since` (None: from the start); None when there is no such bucket.

        In order, with opcodes that change nothing in between, perhaps. Verified: a torn or unfinished append is never
        part of it. Raises `CorruptValue`.
        """

    @abstractmethod
    def append(self, ops: bytes) -> int:
        """Extend the dict by `ops`, whole or not at all; creates the bucket. Appends of all processes are in one order.

        Returns about how many bytes the bucket takes now, never 0; but 0 when a foreign pickle stands there
        (see `Tail.foreign`): nothing was done then; `replace` it first.
        """

    @abstractmethod
    def held(self) -> AbstractContextManager[HeldBucket | None]:
        """Keep every other `append`, `held` and cell write out for the length of the block.

        None when the bucket does not exist and so can't be held; `HeldBucket.append` and ``create=True`` are
        not needed then: whoever creates it first wins as usual.
        """


class HeldBucket(ABC):
    """A bucket nobody else can change while it is held."""

    @abstractmethod
    def tail(self, since: Position | None = None) -> Tail: ...

    @abstractmethod
    def append(self, ops: bytes) -> Position:
        """Returns where the bucket ends now, to ask for the `tail` since then."""

    @abstractmethod
    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        """The bucket becomes exactly `ops`: its readers see all of the old or all of the new.

        `durable`: the new bytes are on the disk first, whatever the level, because what they replace is lost.
        """

    @abstractmethod
    def secure(self) -> None:
        """Once it returns, a power cut does not bring back what was replaced: before what was copied is dropped."""

    @abstractmethod
    def drop(self) -> None:
        """The bucket is gone."""
