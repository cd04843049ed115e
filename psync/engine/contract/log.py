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
    """The state of a log record. WAITING, CLAIMED and DELAYED come and go; DONE and DEAD are final."""

    WAITING = 0
    CLAIMED = 1
    DONE = 2
    DEAD = 3
    DELAYED = 4
    """Nobody can take the record until it becomes WAITING."""


FINAL = (State.DONE, State.DEAD)


LONGEST_LEASE = 65504.0
"""Seconds: the largest number that the half of a word holds in which a mark keeps its lease."""


class Mark(NamedTuple):
    """The changeable part of a log record. `attempt` grows with every take.

    A CLAIMED record's `owner` is the process that took it, never 0. With `lease` 0 the claim lasts as long as its owner
    lives. With a `lease` (seconds; see `as_lease`) anybody may take the claim away once the mark has not changed for so
    long; the owner shows that it is at work by changing `beat` (0 to 255). A WAITING or DEAD record has 0 in all three.
    In a DELAYED one the three, and in a DONE one `beat`, are the caller's to use.

    A taker that never used a record may give it back as if it had not taken it, with one attempt less. Such a record is
    the first to be taken again.
    """

    state: State
    attempt: int = 0
    owner: int = 0
    beat: int = 0
    lease: float = 0.0


WAITING = Mark(State.WAITING)


def as_lease(seconds: float) -> float:
    """Round `seconds` to the nearest lease that a mark can keep, of 11 significant bits. Raises ValueError."""
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
    """One change of a record's mark, with an answer or without: see `Log.settle_all`."""

    position: int
    held: Mark
    new: Mark
    bucket: Bucket | None = None
    ops: bytes = b""


class Counts(NamedTuple):
    waiting: int
    """Records that `Log.take` would return now."""
    appended: int
    """Records ever appended."""
    end: int
    """Every position ever given is below this."""
    sealed: bool = False


class _Foreign(Exception):
    """The bucket holds a foreign pickle: another program wrote it."""


class Sealed(Exception):
    """The log takes no more records."""


class Log(ABC):
    """A log keeps records in the order of appending. Each starts WAITING or DELAYED; its taker puts its own number
    there.

    A watch on the log's name learns of records to take, and of records that become DELAYED. A watch on ``<name>/final``
    learns of records that become DONE or DEAD.
    """

    noted: int = 0
    """The number that `note` left, as it was at the last `take` or `counts` through this handle, or later."""

    sealed: bool = False
    """Whether the log was sealed at the last `counts` through this handle, or the last `take` that found too few."""

    @abstractmethod
    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        """Add all of the records or none, WAITING or DELAYED as `mark` says; returns their positions. First in, first
        taken.

        Raises `Sealed`.
        """

    @abstractmethod
    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        """Claim up to `limit` WAITING records for `owner`: first those that were given back, then in order of
        appending.

        Each record has one winner. The returned `Mark.attempt` is already this attempt's number.
        """

    @abstractmethod
    def settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        """Compare and set a record's mark: from `held` to `new`. False, and nothing happens, if it is not `held` any
        more.

        `before` is called under the lock, while the mark is `held`; if it raises, the mark stays. It must be
        idempotent: a crash after it and before the mark is written repeats it. A record that becomes WAITING can be
        taken again. A WAITING record never becomes DELAYED.

        Only the living owner settles a claim without a lease, or changes its beat; others may do so once they have
        proof of the owner's death.
        """

    def answer(self, position: int, held: Mark, new: Mark, bucket: Bucket, ops: bytes) -> int | None:
        """Settle a record after ``bucket.append(ops)``; returns the size from it, or None if the mark is not `held`.

        Where a foreign pickle stands it returns 0 and changes nothing; if the append raises, nothing changes either. A
        crash leaves neither of the two, both, or the items without the mark.
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
        """Settle several records, each by a change of its own: `answer` if it has a bucket, and else `settle`.

        Returns a result for each: the result of `answer`, or, for a change without a bucket, a number that is not 0,
        or None.

        They are made in one go where that is cheaper, but not as one transaction: a crash, or an exception, may leave
        any of them made. A caller that repeats them all then makes the others.
        """
        return [self._make(change) for change in changes]

    def _make(self, change: Change) -> int | None:
        position, held, new, bucket, ops = change
        if bucket is None:
            return 1 if self.settle(position, held, new) else None
        return self.answer(position, held, new, bucket, ops)

    @abstractmethod
    def read(self, position: int) -> Record | None:
        """Return the record at `position`; None when it was final and has been cleared away."""

    def lost(self, position: int) -> bool:
        """Tell whether the record at `position` was lost: to damage, or to a power cut before it was on the disk.

        For a lost record, `read` returns None or a DEAD record.
        """
        return False

    @abstractmethod
    def claims(self) -> list[Record]:
        """Return every record that is CLAIMED at some moment during the call. Costs a pass over all unfinished
        records."""

    @abstractmethod
    def delayed(self) -> list[tuple[int, Mark]]:
        """Return position and mark of every DELAYED record. Costs a read of each of them, and of about as many more
        that were DELAYED lately."""

    @abstractmethod
    def unfinished(self) -> Iterator[Record]:
        """Yield every record that is not final, some at a time; those that were never taken come in order of appending.

        While others use the log, some may be missed, or come twice.
        """

    @abstractmethod
    def finished(self) -> bool:
        """Return True when every record appended before the call is final (DONE or DEAD)."""

    @abstractmethod
    def counts(self) -> Counts: ...

    @abstractmethod
    def begin(self, at: int, appended: int) -> bool:
        """Begin an unused log as if `appended` records had been appended, were final, and had been cleared away.

        Every later position is `at` or more. False, and nothing happens, if the log was used before.
        """

    @abstractmethod
    def seal(self, sealed: bool = True) -> None:
        """Close the log to appends: `append` raises `Sealed` from now on. With False, open it again."""

    @abstractmethod
    def note(self, change: Callable[[int], int]) -> None:
        """Change the number that the log keeps for its takers (0 at first, below 2**64): ``change(last)`` is the
        next."""

    @abstractmethod
    def held(self) -> AbstractContextManager[None]:
        """Keep every other change of this log out for the length of the block (the holder's own verbs work)."""


def check_change(held: Mark, new: Mark) -> None:
    """Raise ValueError for a change that the contract forbids whatever the log holds."""
    if held.state in FINAL:
        raise ValueError(f"{held.state.name} is final; it can't become {new.state.name}")
    if (new.owner != 0) != (new.state is State.CLAIMED) and new.state is not State.DELAYED:
        raise ValueError(f"a mark has an owner if and only if it is CLAIMED, not {new}")
    if held.state is State.WAITING and new.state is State.DELAYED:
        raise ValueError("what is WAITING may be taken at any moment, so it can't become DELAYED")
    if new.attempt < held.attempt - (new.state is State.WAITING):  # less by one: as if it had not been taken
        raise ValueError(f"attempts only grow, and {new.attempt} is less than {held.attempt}")
