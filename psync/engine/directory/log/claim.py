"""How records are taken from a log: those that were given back first, then the next ones.

Who takes locks ``front``. The fact that decides: the record's mark. What ``front`` says is a hint that a killed taker
leaves behind the marks: the next one steps over what is marked already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from psync.engine.contract.log import FINAL, Mark, Record, State
from psync.engine.directory.log.append import LogAppends
from psync.engine.directory.log.header import Front
from psync.engine.directory.log.segment_files import SEGMENT
from psync.engine.directory.log.state import in_words
from psync.engine.encoding.framing import Unreadable

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State


class LogTakes(LogAppends):
    """What moves the front of one log."""

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        taken: list[Record] = []
        try:
            if not self._examined:
                self._examine()
            front = self._front.enter()
            try:
                if (limit == 1 and self._take_next(front, owner, beat, lease, taken)) or self._advance(
                    front, owner, beat, lease, limit, taken
                ):
                    self._front.save()
                self.noted = front.note
                if self._commit is not None:
                    self._taken.sync_marks([record.position for record in taken], self._reach[1])
            except BaseException:
                self._untake(front, taken)
                raise
            finally:
                self._front.leave()
        except BaseException as error:
            if self._repair(error):
                return self.take(owner, limit, beat, lease)
            if (worded := self.failed(error)) is error:
                raise
            raise worded from error
        if self._mapped and not lease:
            for position, mark, _ in taken:
                self._claimed[position] = mark
        return taken

    def _take_next(self, front: Front, owner: int, beat: int, lease: float, taken: list[Record]) -> bool:
        """`_advance` by one record, if the next one is as they mostly are; else False, and nothing has happened."""
        position = front.head
        end, base, _ = self._reach
        if position >= end or front.requeue_head != front.requeue_end:
            return False
        record, size, _ = self._taken.claim(position, end, base, owner, beat, lease)
        if record is None:
            return False
        taken.append(record)
        front.head = position + size
        front.passed += 1
        if position // SEGMENT != (position + size) // SEGMENT:
            self._raise_low(front, self._look(), position + size)
        return True

    def _advance(self, front: Front, owner: int, beat: int, lease: float, limit: int, taken: list[Record]) -> bool:
        """Claim records into `taken`; True if `front` has changed."""
        begun = front.head
        changed = False
        while len(taken) < limit:
            position = self._next(front) if front.requeue_head < front.requeue_end else front.head
            end, base, _ = self._reach
            if position >= end:
                end, base, _ = self._look()
                if position >= end:
                    return self._reckon(front) or changed
            changed = True
            if position != front.head:
                record, size, mark = self._taken.claim(position, end, base, owner, beat, lease)
                if record is None:
                    self._pass_by(front, mark, hinted=True)
            else:
                many, before = limit - len(taken), len(taken)
                if many > 1:
                    size = self._taken.claim_run(position, end, base, many, owner, beat, lease, taken)
                    if size:
                        front.head += size
                        front.passed += len(taken) - before
                        continue
                record, size, mark = self._taken.claim(position, end, base, owner, beat, lease)
                if record is None:
                    self._pass_by(front, mark, hinted=False)
                front.head += size
                front.passed += 1
            if record is not None:
                taken.append(record)
        if begun // SEGMENT != front.head // SEGMENT:
            self._raise_low(front, self._look(), front.head)
        return changed

    def _pass_by(self, front: Front, mark: Mark | None, *, hinted: bool) -> None:
        """Keep count of what is not to be taken."""
        if mark is not None and mark.state is _DELAYED:
            if not mark.attempt and not hinted:
                front.delayed_passed += 1
        elif front.skipped and (hinted or mark is None or (mark.state in FINAL and not mark.attempt)):
            front.skipped -= 1

    def _reckon(self, front: Front) -> bool:
        """Nothing is left to take, so nothing is left to pass: a count that says otherwise was a killed process's."""
        tail = self._tail.peek()
        counts = tail.appended, 0, tail.appended_delayed
        if front.head != tail.end or counts == (front.passed, front.skipped, front.delayed_passed):
            return False
        front.passed, front.skipped, front.delayed_passed = counts
        return True

    def _untake(self, front: Front, taken: list[Record]) -> None:
        """Something failed, and nobody will hear of these: they wait again, with the attempts they had."""
        for position, mark, _ in reversed(taken):
            before = Mark(_WAITING, mark.attempt - 1)
            if position < front.head:
                with contextlib.suppress(OSError):  # then it was not written that they were passed
                    self._hint(front, position, None, first=True)
            with contextlib.suppress(OSError, Unreadable):
                self._taken.exchange_mark(position, self._reach[1], mark, before, None)

    @in_words
    def note(self, change: Callable[[int], int]) -> None:
        front = self._front.enter()
        try:
            front.note = change(front.note)
            self._front.save()
        finally:
            self._front.leave()
