"""How records come to be in a log: whole or not at all, WAITING or DELAYED; and how a log is closed to them.

Who appends locks ``tail``. The fact that decides: ``tail`` says that the log ends behind the record. At a durable level
that comes once it is on the disk (see `commit`). What begins DELAYED is marked before it exists; should it never come
to exist, ``tail`` knows that there may be marks behind the end, and who appends next cuts them off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from psync.engine.contract.log import WAITING, Mark, Sealed, State
from psync.engine.directory.layout import SEATS
from psync.engine.directory.log.group_commit import Commit
from psync.engine.directory.log.header import Tail
from psync.engine.directory.log.record_format import ALIGN, encode
from psync.engine.directory.log.requeue import LogHints
from psync.engine.directory.log.segment_files import SEGMENT
from psync.engine.directory.log.state import in_words
from psync.engine.encoding.framing import Unreadable

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State


class LogAppends(LogHints):
    """What changes the end of one log."""

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        if not payloads:
            return []
        try:
            if not self._examined:
                self._examine()
            if self._commit is None:
                positions = self._append(payloads, mark)
            else:
                positions = self._append_durably(self._commit, payloads, mark)
        except BaseException as error:
            if self._repair(error):
                return self.append(payloads, mark)
            if (worded := self.failed(error)) is error:
                raise
            raise worded from error
        self._changed(len(positions))
        return positions

    def _append_durably(self, commit: Commit, payloads: Sequence[bytes], mark: Mark) -> list[int]:
        if mark.state is not _WAITING:
            with commit.alone():
                self._tail.enter()
                try:
                    commit.all()
                    self._look_for_failure(commit)
                    return self._append(payloads, mark)
                finally:
                    self._tail.leave()
        self._tail.enter()
        try:
            fails = self._look_for_failure(commit)
            positions = self._append(payloads, mark)
            end = self._tail.values.prepared_end
        finally:
            self._tail.leave()
        try:
            commit.wait(end, fails)
        except BaseException:
            with contextlib.suppress(OSError, Unreadable):
                self._withdraw(commit, positions, end, fails)
            raise
        return positions

    def _withdraw(self, commit: Commit, positions: list[int], end: int, fails: int) -> None:
        """What was prepared, and could not be seen to its end, will not exist."""
        tail = self._tail.enter()
        try:
            if commit.fails() != fails or tail.end >= end:
                return
            if tail.prepared_end == end:
                tail.prepared_end = positions[0] if positions[0] > tail.end else 0
                tail.prepared_count -= len(positions)
                self._tail.save()
            else:  # others have prepared something behind it: it comes to exist with that, but nobody takes it
                for position in positions:
                    self._written.write_mark(position, tail.base, Mark(_DONE, 1))
        finally:
            self._tail.leave()

    def _look_for_failure(self, commit: Commit) -> int:
        """While ``tail`` is locked: how often the disk failed; since then, segments may have other files."""
        fails = commit.fails()
        if fails != self._fails:
            self._written.close()
            self._fails = fails
        return fails

    def _append(self, payloads: Sequence[bytes], mark: Mark) -> list[int]:
        tail = self._tail.enter()
        try:
            if tail.sealed:
                raise Sealed(self._name)
            begin = end = tail.prepared_end or tail.end
            base = tail.base
            if end - base >= SEGMENT:
                base = end
            if tail.status_end > begin:
                self._written.cut_marks(begin, base)
                tail.status_end = 0
            if len(payloads) == 1:
                positions = [begin]
                data = encode(payloads[0], begin)
                end += len(data)
            else:
                positions, records = [], []
                more = len(payloads)
                for payload in payloads:
                    more -= 1
                    positions.append(end)
                    record = encode(payload, end, more)
                    records.append(record)
                    end += len(record)
                data = b"".join(records)
            if mark is WAITING or mark.state is _WAITING:
                self._written.write(data, begin, base)
                tail.base = base
                if self._commit is not None:
                    tail.prepared_end = end
                    tail.prepared_count += len(positions)
                else:
                    tail.end = end
                    tail.appended += len(positions)
                    if tail.prepared_end:  # by durable appenders: their records are seen from now on
                        tail.appended += tail.prepared_count
                        tail.prepared_end = tail.prepared_count = 0
                self._tail.save()
            else:
                self._append_delayed(tail, data, positions, end, base, mark)
            return positions
        finally:
            self._tail.leave()

    def _append_delayed(self, tail: Tail, data: bytes, positions: list[int], end: int, base: int, mark: Mark) -> None:
        front = self._front.enter()  # till the end, or somebody would find that the hints lead to nothing
        try:
            self._hint_delayed(front, positions)
            tail.status_end = end
            self._tail.save()
            self._written.set_marks(positions, end, base, mark)
            self._written.write(data, positions[0], base)
            if self._commit is None:
                tail.end, tail.base, tail.appended = end, base, tail.appended + len(positions)
            else:
                self._written.sync_marks(positions, base)
                tail.prepared_end, tail.base, tail.prepared_count = end, base, len(positions)
                self._commit.all()
            tail.appended_delayed += len(positions)
            self._tail.save()
        finally:
            self._front.leave()

    @in_words
    def begin(self, at: int, appended: int) -> bool:
        with self.held():
            tail, front = self._tail.values, self._front.values
            if tail.end:
                return False
            at += -at % ALIGN
            # first, for it counts as nothing before `tail` says where the log ends: killed in between, begin anew
            front.head = front.low = at
            front.passed = appended
            self._front.save()
            tail.end = tail.base = at
            tail.appended = appended
            self._tail.save()
            return True

    @in_words
    def seal(self, sealed: bool = True) -> None:
        with self._commit.alone() if self._commit is not None else contextlib.nullcontext():
            tail = self._tail.enter()
            try:
                if self._commit is not None:
                    self._commit.all()
                tail.sealed = int(sealed)
                self._tail.save()
            finally:
                self._tail.leave()
        self._changed(SEATS)
        self._finished()
