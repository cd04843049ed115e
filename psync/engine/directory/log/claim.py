"""Claim: a claimer takes the records that were given back, and then the next ones.

A claimer locks ``front``. The fact that decides: the record's status. What ``front`` says is a hint: a killed claimer
leaves the cursors behind the statuses, and the next one steps over the records that have a status already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from psync.engine.contract.log import FINAL, Mark, Record, State
from psync.engine.directory.log.fields import Front
from psync.engine.directory.log.repair import CorruptionRepair, wrap_errors, wrap_looks
from psync.engine.directory.log.requeue import RequeueIndex
from psync.engine.directory.log.segment_files import SEGMENT_BYTES
from psync.engine.directory.log.state import LogState
from psync.engine.encoding.framing import Unreadable

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State


class Claimer:
    """The verbs that move the head cursor of one log."""

    def __init__(self, state: LogState, repair: CorruptionRepair, requeue: RequeueIndex) -> None:
        self._state = state
        self._repair = repair
        self._requeue = requeue
        self._handle = state.handle
        self._tail = state.tail
        self._front = state.front
        self._segments = state.claiming
        self._commit = state.commit
        self._claims = state.claims
        self._local = state.local

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        taken: list[Record] = []
        state = self._state
        try:
            if not state.checked:
                self._repair.check()
            front = self._front.enter()
            try:
                if (limit == 1 and self._take_next(front, owner, beat, lease, taken)) or self._take_many(
                    front, owner, beat, lease, limit, taken
                ):
                    self._front.save()
                self._handle.noted = front.note
                if self._commit is not None:
                    self._segments.sync_statuses([record.position for record in taken], state.reach[1])
            except BaseException:
                self._give_back(front, taken)
                raise
            finally:
                self._front.leave()
        except BaseException as error:
            self._repair.handle(error)
            return self.take(owner, limit, beat, lease)
        if self._local and not lease:
            for position, status, _ in taken:
                self._claims[position] = status
        return taken

    def _take_next(self, front: Front, owner: int, beat: int, lease: float, taken: list[Record]) -> bool:
        """Claim one record, if it is WAITING at the head cursor, as most are; else change nothing and return False."""
        position = front.head
        end, base = self._state.reach
        if position >= end or front.requeue_head != front.requeue_end:
            return False
        record, size, _ = self._segments.claim(position, end, base, owner, beat, lease)
        if record is None:
            return False
        taken.append(record)
        front.head = position + size
        front.passed += 1
        if position // SEGMENT_BYTES != (position + size) // SEGMENT_BYTES:
            self._state.raise_low(front, self._state.read_reach()[1], position + size)
        return True

    def _take_many(self, front: Front, owner: int, beat: int, lease: float, limit: int, taken: list[Record]) -> bool:
        """Claim records into `taken`; returns whether ``front`` has changed."""
        begun = front.head
        changed = False
        while len(taken) < limit:
            position = self._requeue.next(front) if front.requeue_head < front.requeue_end else front.head
            end, base = self._state.reach
            if position >= end:
                end, base = self._state.read_reach()
                if position >= end:
                    return self._correct_counts(front) or changed
            changed = True
            if position != front.head:
                record, size, status = self._segments.claim(position, end, base, owner, beat, lease)
                if record is None:
                    self._pass(front, status, requeued=True)
            else:
                many, before = limit - len(taken), len(taken)
                if many > 1:
                    size = self._segments.claim_run(position, end, base, many, owner, beat, lease, taken)
                    if size:
                        front.head += size
                        front.passed += len(taken) - before
                        continue
                record, size, status = self._segments.claim(position, end, base, owner, beat, lease)
                if record is None:
                    self._pass(front, status, requeued=False)
                front.head += size
                front.passed += 1
            if record is not None:
                taken.append(record)
        if begun // SEGMENT_BYTES != front.head // SEGMENT_BYTES:
            self._state.raise_low(front, self._state.read_reach()[1], front.head)
        return changed

    def _pass(self, front: Front, status: Mark | None, *, requeued: bool) -> None:
        """Count a record that the cursor moves over without a claim."""
        if status is not None and status.state is _DELAYED:
            if not status.attempt and not requeued:
                front.delayed_passed += 1
        elif front.skipped and (requeued or status is None or (status.state in FINAL and not status.attempt)):
            front.skipped -= 1

    def _correct_counts(self, front: Front) -> bool:
        """Correct the counts that a killed process left: nothing is left to take, so none can be left to pass."""
        tail = self._tail.peek()
        counts = tail.appended, 0, tail.appended_delayed
        if front.head != tail.end or counts == (front.passed, front.skipped, front.delayed_passed):
            return False
        front.passed, front.skipped, front.delayed_passed = counts
        return True

    @wrap_looks
    def claims(self) -> list[Record]:
        """Every claimed record. Moves the cursors over records that a killed claimer claimed and could not count."""
        if not self._state.is_there():
            return []
        front = self._front.enter()
        changed = True
        try:
            end, base = self._state.read_reach()
            found = []
            changed = self._pass_requeued(front, end, base)
            for position, state, size in self._segments.scan(front.low, end, base, front.head):
                if position >= front.head:
                    if state is _WAITING:
                        break  # no claimer was ever further than this
                    self._pass(front, self._segments.status(position, base), requeued=False)
                    front.head = position + size
                    front.passed += 1
                    changed = True
                if state is _CLAIMED:
                    record = self._segments.read(position, base)
                    if record is not None:
                        found.append(record)
            if changed and self._state.writable:
                self._front.save()
                changed = False
            return found
        finally:
            if changed:
                self._front.spoil()
            self._front.leave()

    def _pass_requeued(self, front: Front, end: int, base: int) -> bool:
        """Move the requeue cursor over entries that lead to nothing to claim; returns whether it moved."""
        begun = front.requeue_head
        while front.requeue_head < front.requeue_end:
            position = self._state.requeued.get(front.requeue_head)
            status = self._segments.status(position, base) if position < end else None
            if status is not None and status.state is _WAITING:
                break
            self._pass(front, status, requeued=True)
            front.requeue_head += 1
        return front.requeue_head != begun

    def _give_back(self, front: Front, taken: list[Record]) -> None:
        """Make the records of a `take` that failed WAITING again, with the attempts that they had."""
        for position, status, _ in reversed(taken):
            before = Mark(_WAITING, status.attempt - 1)
            if position < front.head:
                with contextlib.suppress(OSError):  # then ``front`` does not say in the file that they were passed
                    self._requeue.add(front, position, None, first=True)
            with contextlib.suppress(OSError, Unreadable):
                self._segments.exchange(position, self._state.reach[1], status, before, None)

    @wrap_errors
    def note(self, change: Callable[[int], int]) -> None:
        front = self._front.enter()
        try:
            front.note = change(front.note)
            self._front.save()
        finally:
            self._front.leave()
