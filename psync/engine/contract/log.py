"""The contract of a log: records appended to one name, each with a status that is changed by compare-and-set."""

from __future__ import annotations

import enum
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from psync.engine.contract.bucket import Bucket

_HALF = struct.Struct("<e")


class State(enum.IntEnum):
    """How far a log record has come. WAITING, CLAIMED and DELAYED come and go; DONE and DEAD are final."""

    WAITING = 0
    CLAIMED = 1
    DONE = 2
    DEAD = 3
    DELAYED = 4
    """Not to be taken before somebody makes it WAITING."""


FINAL = (State.DONE, State.DEAD)


LONGEST_LEASE = 65504.0
"""Seconds: the largest number that the half of a word holds in which a mark keeps its lease."""


class Mark(NamedTuple):
    """The changeable part of a log record. `attempt` grows with every take.

    Of a CLAIMED record, `owner` is who took it, never 0. With `lease` 0 it is the owner's as long as that lives. With a
    `lease` (seconds; see `as_lease`) it may be given away as soon as it was seen unchanged for so long; the owner
    shows that it is at work by another `beat` (0 to 255). Of a WAITING or DEAD record all three are 0; of a
    DELAYED one, and the `beat` of a DONE one, they are what its maker left there.

    Only a taker that never used a record may give it back as if it had not taken it, with one attempt less; it is the
    first to be taken again.
    """

    state: State
    attempt: int = 0
    owner: int = 0
    beat: int = 0
    lease: float = 0.0


WAITING = Mark(State.WAITING)


def as_lease(seconds: float) -> float:
    """The lease that a mark can keep that is nearest to `seconds`: 11 bits of it. Raises ValueError."""
    if not 0 < seconds <= LONGEST_LEASE:
        raise ValueError(f"a lease lasts more than 0 and at most {LONGEST_LEASE:.0f} seconds, not {seconds!r}")
    kept: float = _HALF.unpack(_HALF.pack(max(seconds, 0.001)))[0]
    return kept


class Record(NamedTuple):
    position: int
    """Where the record stands: positions grow with every append and are never used again."""
    mark: Mark
    payload: bytes


class Change(NamedTuple):
    """Of a record's mark, with an answer or without: see `Log.settle_all`."""

    position: int
    held: Mark
    new: Mark
    bucket: Bucket | None = None
    ops: bytes = b""


class Counts(NamedTuple):
    waiting: int
    """Records that `Log.take` would give, now."""
    appended: int
    """Records ever appended."""
    end: int
    """Every position ever given is below this."""
    sealed: bool = False


class _Foreign(Exception):
    """A bucket is one pickle of something else's."""


class Sealed(Exception):
    """The log takes no more records."""


class Log(ABC):
    """Records in a row. Each starts WAITING or DELAYED; whoever takes it marks it with its own name.

    A watch on the log's name learns of records to take, and of records that are DELAYED from now on; one on
    ``<name>/final`` of records that became DONE or DEAD.
    """

    noted: int = 0
    """What `note` left, as it was at the last `take` or `counts` through this handle, or later."""

    sealed: bool = False
    """Whether the log was sealed at the last `counts` through this handle, or the last `take` that found too few."""

    @abstractmethod
    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        """Add records, all or none, WAITING or DELAYED as `mark` says; returns their positions. First in, first taken.

        Raises `Sealed`.
        """

    @abstractmethod
    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        """Up to `limit` WAITING records become CLAIMED by `owner`, returned ones first, then in order of appending.

        One winner a record. `Mark.attempt` of what is returned is already this attempt's number.
        """

    @abstractmethod
    def settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        """The record's mark goes from `held` to `new`; False, and nothing happens, if it is not `held` any more.

        `before` runs while it is certain that the mark is `held` and can't change; if it raises, the
        mark stays. A crash after `before` and before the mark leaves `held`: `before` must bear
        being found done. A record that becomes WAITING can be taken again; one that is WAITING never becomes DELAYED.

        A claim without a lease is settled, or gets another beat, by its living owner only, or with proof of its death.
        """

    def answer(self, position: int, held: Mark, new: Mark, bucket: Bucket, ops: bytes) -> int | None:
        """`settle`, with ``bucket.append(ops)`` before it: what that returned, or None if the mark is not `held`.

        Nothing happens where a foreign pickle stands (0), or if it raises. A crash leaves neither, both, or the items
        without the mark.
        """
        size = 0

        def append() -> None:
            nonlocal size
            size = bucket.append(ops)
            if not size:
                raise _Foreign

        try:
            return size if self.settle(position, held, new, append) else None
        except _Foreign:
            return 0

    def settle_all(self, changes: Sequence[Change]) -> list[int | None]:
        """Each change, of another record each: `answer` if it has a bucket, and else `settle`. What that returned, or
        for a mark that was settled without an answer a number that is not 0.

        In one go where that is cheaper, but each change is one of its own: who dies in between, or if this raises, may
        have made any of them; who then asks for all of them again makes the others.
        """
        return [self._make(change) for change in changes]

    def _make(self, change: Change) -> int | None:
        position, held, new, bucket, ops = change
        if bucket is None:
            return 1 if self.settle(position, held, new) else None
        return self.answer(position, held, new, bucket, ops)

    @abstractmethod
    def read(self, position: int) -> Record | None:
        """The record at `position`; None when it was final and has been cleared away."""

    def lost(self, position: int) -> bool:
        """Whether the record that was put at `position` was lost: to damage, or to a power cut before it was on the
        disk. Of such a one `read` gives None, or one that is DEAD, and nothing more is known."""
        return False

    @abstractmethod
    def claims(self) -> list[Record]:
        """Every record that is CLAIMED at some moment during the call. Costs a pass over all unfinished records."""

    @abstractmethod
    def delayed(self) -> list[tuple[int, Mark]]:
        """Position and mark of every record that is DELAYED. Costs a look at each of them, and at about as many more
        that lately were."""

    @abstractmethod
    def unfinished(self) -> Iterator[Record]:
        """Every record that is not final, some at a time: of those that were never taken, what was appended first comes
        first. While others use the log, some may be missed, or come twice."""

    @abstractmethod
    def finished(self) -> bool:
        """True when every record appended before the call is final (DONE or DEAD)."""

    @abstractmethod
    def counts(self) -> Counts: ...

    @abstractmethod
    def begin(self, at: int, appended: int) -> bool:
        """A log in which nothing was ever appended looks as if `appended` records had been, were final, and cleared
        away; every position from now on is `at` or more. False, and nothing happens, if it has begun before."""

    @abstractmethod
    def seal(self, sealed: bool = True) -> None:
        """From now on `append` raises `Sealed`; or, with False, it does not any more."""

    @abstractmethod
    def note(self, change: Callable[[int], int]) -> None:
        """Leave a number (0 at first, below 2**64) with the log, for those who take; `change` is told the last."""

    @abstractmethod
    def held(self) -> AbstractContextManager[None]:
        """Keep every other change of this log out for the length of the block (the holder's own verbs work)."""


def check_change(held: Mark, new: Mark) -> None:
    """Raise ValueError for what the contract forbids whatever the log holds."""
    if held.state in FINAL:
        raise ValueError(f"{held.state.name} is final; it can't become {new.state.name}")
    if (new.owner != 0) != (new.state is State.CLAIMED) and new.state is not State.DELAYED:
        raise ValueError(f"a mark has an owner if and only if it is CLAIMED, not {new}")
    if held.state is State.WAITING and new.state is State.DELAYED:
        raise ValueError("what is WAITING may be taken at any moment, so it can't become DELAYED")
    if new.attempt < held.attempt - (new.state is State.WAITING):  # less by one: as if it had not been taken
        raise ValueError(f"attempts only grow, and {new.attempt} is less than {held.attempt}")
