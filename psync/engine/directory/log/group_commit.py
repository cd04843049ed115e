"""Group commit: concurrent durable appends of many processes share one fdatasync.

A durable appender writes its record behind those that others have prepared, and says in ``tail`` how far that goes now.
Then it queues for the lock on ``sync``. When it has the lock, its record may be on the disk already. If not, it syncs
all that is prepared, and says in ``tail`` that the log ends behind it. The fact that decides is that change of
``tail``: before it no process sees the record. The record of an appender that was killed comes to exist with the next
group, or never.

If the disk fails, no record of the group was written, and each of its appenders raises. The segment is not synced
again, and later records go to another file: the kernel drops pages that it could not write, and does not report them
twice.

Cost: flock, fdatasync, flock, pwrite, unlock, pwrite, unlock; or flock, unlock, if another appender synced the record.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from fcntl import LOCK_EX, LOCK_NB

from psync.engine.directory.log.fields import Sync, Tail
from psync.engine.directory.log.header import LockedHeader
from psync.engine.directory.log.segment_files import SegmentFiles
from psync.engine.system import clock

MAX_JOIN_SHARE = 0.5
"""A committer waits for others to join at most for this share of the time that a sync takes."""
MAX_JOIN_S = 0.002
"""Seconds that it waits at most."""


class Commit:
    """The ``sync`` of one log. Threads may share it."""

    def __init__(self, header: LockedHeader[Sync], tail: LockedHeader[Tail], segments: SegmentFiles) -> None:
        self._header = header
        self._tail = tail
        self._segments = segments
        self._sync_s = 0.0

    def failures(self) -> int:
        """How often the disk failed. Called under the lock on ``tail``, before a record is prepared; for `wait`."""
        return self._header.peek().failures

    def wait(self, end: int, failures: int) -> None:
        """Return when the prepared record that ends at `end` is on the disk and exists. Raises OSError."""
        waited = False
        while not self._is_done(self._header.peek(), end, failures):
            try:
                sync = self._header.enter(LOCK_EX | LOCK_NB)
            except BlockingIOError:
                self._header.await_leaving()
                continue
            group_size = 0
            try:
                if not self._is_done(sync, end, failures):
                    group_size = 0 if waited or self._tail.depth else sync.group_size
                    if group_size < 2:
                        self._sync(sync)
                        return
            finally:
                self._header.leave()
            if group_size > 1:  # without the lock, or appenders whose record is on the disk could not look
                waited = True
                self._let_others_join(group_size, end)

    def _is_done(self, sync: Sync, end: int, failures: int) -> bool:
        if sync.failures != failures:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sync.synced >= end

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other committers out for the length of the block."""
        self._header.enter()
        try:
            yield
        finally:
            self._header.leave()

    def admitting(self) -> contextlib.AbstractContextManager[None]:
        """See `LockedHeader.admitting`."""
        return self._header.admitting()

    def all(self) -> None:
        """Commit all that is prepared. Called in `alone` and under the lock on ``tail``."""
        if self._tail.values.prepared_end:
            self._sync(self._header.values)

    def _let_others_join(self, group_size: int, end: int) -> None:
        until = clock.monotonic() + min(MAX_JOIN_SHARE * self._sync_s, MAX_JOIN_S)
        while self._tail.peek().prepared_count < group_size and clock.monotonic() < until:
            if self._header.peek().synced >= end:
                return
            os.sched_yield()

    def _sync(self, sync: Sync) -> None:
        tail = self._tail.peek()
        end, pending = tail.prepared_end or tail.end, tail.prepared_count
        begun = clock.monotonic()
        for file in self._segments.written_since(sync.synced, tail.base):
            try:
                os.fdatasync(file)
            except OSError:
                self._abandon(sync)
                raise
        self._sync_s = clock.monotonic() - begun
        tail = self._tail.enter_again()
        try:
            if end > tail.end:
                tail.end = end
                tail.appended += pending
                tail.prepared_count -= pending
                if tail.prepared_end == end:
                    tail.prepared_end = 0
                self._tail.save()
            sync.group_size = max(pending + tail.prepared_count, sync.group_size * 3 // 4)
        except BaseException:
            self._tail.spoil()
            raise
        finally:
            self._tail.leave()
        sync.synced = end
        try:
            self._header.save()
        except OSError:
            self._header.spoil()  # the records are on the disk, and exist; the next committer syncs once more

    def _abandon(self, sync: Sync) -> None:
        """Drop all that is prepared, since the disk failed, and make later records go to another file."""
        tail = self._tail.enter_again()
        try:
            end = tail.end
            tail.prepared_end = tail.prepared_count = 0
            if end > tail.base:
                with contextlib.suppress(OSError):
                    self._segments.cut(end, tail.base)
                tail.base = end
            else:
                self._segments.replace(end)
            self._tail.save()
            sync.failures += 1
            self._header.save()
        finally:
            self._tail.leave()

    def spoil(self) -> None:
        self._header.spoil()

    def descriptors(self) -> int:
        return self._header.descriptors() + self._segments.descriptors()

    def idle(self) -> AbstractContextManager[bool]:
        """See `LockedHeader.idle`."""
        return self._header.idle()

    def forget(self) -> None:
        self._header.forget()

    def close(self) -> None:
        """While `idle`."""
        self._header.close()
        self._segments.close()

    def after_fork(self) -> None:
        self._header.after_fork()
        self._segments.close()
