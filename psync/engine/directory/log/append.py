"""Append: records enter a log all or none, WAITING or DELAYED; and a log is sealed, or begins at a later position.

An appender locks ``tail``. The fact that decides: ``tail`` says that the log ends behind the record. At a durable level
it says so only after the record is on the disk (see `group_commit`). The status of a record that begins DELAYED is
written before the record exists. Should an appender be killed in between, `Tail.status_end` tells the next one that
there may be statuses behind the end, and it removes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from psync.engine.contract.log import WAITING, Mark, Sealed, State
from psync.engine.directory.layout import WAITER_SLOTS
from psync.engine.directory.log.fields import Tail
from psync.engine.directory.log.group_commit import Commit
from psync.engine.directory.log.record_format import ALIGN_BYTES, encode
from psync.engine.directory.log.recovery import CrashRecovery
from psync.engine.directory.log.repair import CorruptionRepair, wrap_errors
from psync.engine.directory.log.requeue import RequeueIndex
from psync.engine.directory.log.segment_files import SEGMENT_BYTES
from psync.engine.directory.log.state import LogState
from psync.engine.encoding.framing import Unreadable

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State


class Appender:
    """The verbs that change the end of one log."""

    def __init__(
        self, state: LogState, recovery: CrashRecovery, repair: CorruptionRepair, requeue: RequeueIndex
    ) -> None:
        self._state = state
        self._recovery = recovery
        self._repair = repair
        self._requeue = requeue
        self._wake_claimers = state.wake_claimers
        self._tail = state.tail
        self._enter_tail = state.tail.enter
        self._front = state.front
        self._commit = state.commit
        self._segments = state.appending
        self._failures = 0
        """`Sync.failures`, as last read."""

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        if not payloads:
            return []
        try:
            if not self._state.checked:
                self._repair.check()
            if self._commit is None:
                positions = self._append(payloads, mark, self._enter_tail)
            else:
                positions = self._append_durably(self._commit, payloads, mark)
        except BaseException as error:
            self._repair.handle(error)
            return self.append(payloads, mark)
        self._wake_claimers(len(positions))
        return positions

    def _append_durably(self, commit: Commit, payloads: Sequence[bytes], status: Mark) -> list[int]:
        if status.state is not _WAITING:
            with commit.alone():
                self._tail.enter()
                try:
                    commit.all()
                    self._check_failures(commit)
                    return self._append(payloads, status, self._tail.enter_again)
                finally:
                    self._tail.leave()
        self._tail.enter()
        try:
            failures = self._check_failures(commit)
            positions = self._append(payloads, status, self._tail.enter_again)
            end = self._tail.values.prepared_end
        finally:
            self._tail.leave()
        try:
            commit.wait(end, failures)
        except BaseException:
            with contextlib.suppress(OSError, Unreadable):
                self._withdraw(commit, positions, end, failures)
            raise
        return positions

    def _withdraw(self, commit: Commit, positions: list[int], end: int, failures: int) -> None:
        """Undo a prepared append whose group commit failed."""
        tail = self._tail.enter()
        try:
            if commit.failures() != failures or tail.end >= end:
                return
            if tail.prepared_end == end:
                tail.prepared_end = positions[0] if positions[0] > tail.end else 0
                tail.prepared_count -= len(positions)
                self._tail.save()
            else:  # other appenders have prepared records behind these: they come to exist with those, DONE already
                for position in positions:
                    self._segments.write_status(position, tail.base, Mark(_DONE, 1))
        finally:
            self._tail.leave()

    def _check_failures(self, commit: Commit) -> int:
        """How often the disk failed, read while ``tail`` is locked: a failure may have replaced segment files."""
        failures = commit.failures()
        if failures != self._failures:
            self._segments.close()
            self._failures = failures
        return failures

    def _append(self, payloads: Sequence[bytes], status: Mark, enter: Callable[[], Tail]) -> list[int]:
        tail = enter()
        try:
            if tail.sealed:
                raise Sealed(self._state.name)
            begin = end = tail.prepared_end or tail.end
            base = tail.base
            if end - base >= SEGMENT_BYTES:
                base = end
            if tail.status_end > begin:
                self._segments.cut_statuses(begin, base)
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
            if status is WAITING or status.state is _WAITING:
                # the record before the end: after a kill in between, the next appender overwrites it
                self._segments.write(data, begin, base)
                tail.base = base
                if self._commit is not None:
                    tail.prepared_end = end
                    tail.prepared_count += len(positions)
                else:
                    tail.end = end
                    tail.appended += len(positions)
                    if tail.prepared_end:  # records of durable appenders that lie before this one exist from now on
                        tail.appended += tail.prepared_count
                        tail.prepared_end = tail.prepared_count = 0
                self._tail.save()
            else:
                self._append_delayed(tail, data, positions, end, base, status)
            return positions
        finally:
            self._tail.leave()

    def _append_delayed(self, tail: Tail, data: bytes, positions: list[int], end: int, base: int, status: Mark) -> None:
        front = self._front.enter()  # held to the end, or a reader would find entries that lead to nothing
        try:
            self._requeue.add_delayed(front, positions)
            tail.status_end = end  # first, so that after a kill the next appender removes the statuses
            self._tail.save()
            self._segments.write_statuses(positions, end, base, status)
            self._segments.write(data, positions[0], base)
            if self._commit is None:
                tail.end, tail.base, tail.appended = end, base, tail.appended + len(positions)
            else:
                self._segments.sync_statuses(positions, base)
                tail.prepared_end, tail.base, tail.prepared_count = end, base, len(positions)
                self._commit.all()
            tail.appended_delayed += len(positions)
            self._tail.save()
        finally:
            self._front.leave()

    @wrap_errors
    def begin(self, at: int, appended: int) -> bool:
        with self._recovery.locked():
            tail, front = self._tail.values, self._front.values
            if tail.end:
                return False
            at += -at % ALIGN_BYTES
            # ``front`` first: it counts for nothing until ``tail`` says where the log ends, so a crash is safe
            front.head = front.low = at
            front.passed = appended
            self._front.save()
            tail.end = tail.base = at
            tail.appended = appended
            self._tail.save()
            return True

    @wrap_errors
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
        self._wake_claimers(WAITER_SLOTS)
        self._state.wake_final()
