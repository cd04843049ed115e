"""Log state: the open files of one log, and what this process knows of it. The parts of `log.DirectoryLog` share it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from psync.engine.contract.log import Log, Mark
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.layout import Layout
from psync.engine.directory.liveness.registry import OwnerRegistry
from psync.engine.directory.log.fields import Front, Sync, Tail
from psync.engine.directory.log.group_commit import Commit
from psync.engine.directory.log.header import LockedHeader
from psync.engine.directory.log.lost_ranges import LostRanges
from psync.engine.directory.log.nfs_segments import NfsSegments
from psync.engine.directory.log.position_file import PositionFile
from psync.engine.directory.log.segment_files import SEGMENT_BYTES
from psync.engine.directory.log.segments import Segments
from psync.engine.encoding.framing import Unreadable
from psync.engine.system.reentry import Section
from psync.errors import CorruptValue, PsyncError

USUAL_DESCRIPTORS = 12
"""An open log is counted as at least so many: it opens most of them after it was counted."""


class FileKinds(NamedTuple):
    """The classes that open the files of a log."""

    header: type[LockedHeader[Any]]
    local_segments: type[Segments]
    nfs_segments: type[Segments]
    positions: type[PositionFile]
    writable: bool
    """False: no file is made, locked or mended."""


WRITABLE = FileKinds(LockedHeader, Segments, NfsSegments, PositionFile, writable=True)


class LogState:
    """The files of one log. Threads may share them; a forked child opens them anew."""

    def __init__(
        self,
        handle: Log,
        name: str,
        layout: Layout,
        *,
        fs: AtomicFiles,
        owners: OwnerRegistry,
        kept: DescriptorCache,
        kinds: FileKinds,
        changed: Callable[[int], None],
        finished: Callable[[], None],
    ) -> None:
        self.handle = handle
        """Shows `Log.noted` and `Log.sealed` as they were read last."""
        self.name = name
        self.fs = fs
        self.owners = owners
        self.wake_claimers = changed
        """Wakes waiting claimers, at most as many as there are records to claim since."""
        self.wake_final = finished
        """Wakes all who wait for records to become final."""
        self.local = fs.local
        """False on a network file system."""
        self.writable = kinds.writable
        opened = functools.partial(kept.opened, self, keep=False)  # it lasts until the next collection anyway
        self.tail: LockedHeader[Tail] = kinds.header(layout.log(name, "tail"), Tail, fs, opened, blank=False)
        self.front: LockedHeader[Front] = kinds.header(layout.log(name, "front"), Front, fs, opened, blank=False)
        segments = kinds.local_segments if self.local else kinds.nfs_segments
        # threads append, claim and settle at the same time, so each has descriptors of its own
        self.appending = segments(layout, name, fs)
        """Used under the lock on ``tail``."""
        self.tail.look_further = self._look_at_last_segment
        self.claiming = segments(layout, name, fs)
        """Used under the lock on ``front``."""
        self.settling = segments(layout, name, fs)
        """Used under `settle_section`."""
        self.settle_section = Section(f"a task of {name!r}")
        """Keeps the threads of this process from changing a status at the same time."""
        self.commit: Commit | None = None
        """None if records and statuses need not be on the disk."""
        if fs.sync_file:
            sync: LockedHeader[Sync] = kinds.header(layout.log(name, "sync"), Sync, fs, opened)
            self.commit = Commit(sync, self.tail, segments(layout, name, fs))
        self.requeued = kinds.positions(layout.log(name, "returned"), fs)
        self.delayed = kinds.positions(layout.log(name, "delayed"), fs)
        self.lost = LostRanges(layout, name, fs)
        if not kinds.writable:
            opened()  # its segments are opened without a word
        self.checked = not kinds.writable
        """Whether `recovery` has looked for a power cut."""
        self.claims: dict[int, Mark] = {}
        """The statuses without a lease that this process wrote and has not changed since, by position.

        As long as the process lives no other one touches them, so they need not be read. Kept only on a local file
        system, where no server can lose our locks.
        """
        self.passed = 0
        """All records before this position have a status. 0 if unknown: it is kept only on a network file system."""
        self._seen: object = None
        """What `was_used` saw last."""
        self.reach = 0, 0
        """End of the log and base of its last segment, as last read. One tuple: threads share it."""

    def is_there(self) -> bool:
        """Whether anybody has begun the log. A listing, unless it is open."""
        if self.tail.is_open or self.front.is_open:
            return True
        try:
            return bool(self.fs.listing(os.path.dirname(self.tail.path)))
        except FileNotFoundError:
            return False

    # -- cursors -----------------------------------------------------------------------------------------

    def read_reach(self) -> tuple[int, int]:
        """End of the log and base of its last segment; every record appended before this call lies before the end."""
        tail = self.tail.peek()
        self.reach = reach = tail.end, tail.base
        self.handle.sealed = bool(tail.sealed)
        return reach

    def reach_for(self, position: int) -> tuple[int, int]:
        """The same, but read only if `position` lies behind the end that is known."""
        reach = self.reach
        return reach if position < reach[0] else self.read_reach()

    def _look_at_last_segment(self) -> None:
        self.appending.look(self.tail.values.base)

    def raise_low(self, front: Front, base: int, limit: int) -> bool:
        """Move the low-water mark over final records, up to `limit`, and remove the segments before it.

        Returns whether the mark has moved. The caller holds the lock on ``front`` and saves it.
        """
        low = front.low
        front.low = self.claiming.final_up_to(low, limit, base, front.head)
        if low // SEGMENT_BYTES != front.low // SEGMENT_BYTES:
            self.claiming.clear(front.low, base)
        return low != front.low

    # -- failures ----------------------------------------------------------------------------------------

    def translate(self, error: OSError | Unreadable) -> PsyncError:
        """The error to raise for a failure of the file system, or for damage."""
        path = os.path.dirname(self.tail.path)
        if isinstance(error, OSError):
            return translate_os_error(error, self.name, path)
        return CorruptValue(
            f"the log {self.name!r} is damaged ({error}); it is still at {path}",
            key=self.name,
            path=path,
            reason=str(error),
        )

    def refuse(self, *args: Any, **options: Any) -> NoReturn:
        """Raise the error of a change where this user may only read."""
        code = self.fs.refused
        raise self.translate(OSError(code, os.strerror(code), self.tail.path))

    def spoil(self) -> None:
        """Read all headers again next time: something failed, and their fields may be ahead of the files."""
        self.tail.spoil()
        self.front.spoil()
        if self.commit is not None:
            self.commit.spoil()

    # -- descriptors -------------------------------------------------------------------------------------

    def descriptors(self) -> int:
        number = sum([each.descriptors() for each in (*self._headers(), *self._files())])
        return max(number, USUAL_DESCRIPTORS if self.writable else 1) if number or not self.writable else 0

    def was_used(self) -> bool:
        before, self._seen = self._seen, (self.tail.seen(), self.front.seen(), len(self.claims))
        return self._seen != before

    def close_if_idle(self) -> bool:
        with contextlib.ExitStack() as held:
            if not all(held.enter_context(header.idle()) for header in self._headers()):
                return False
            if not self.settle_section.try_enter():
                return False
            held.callback(self.settle_section.leave)
            for header in self._headers():
                header.close()
            self._close()
        return True

    def forget(self) -> None:
        """Begin anew with the files that are there, as they are not those that were opened."""
        if self.close_if_idle():
            self.checked = not self.writable
            for header in self._headers():
                header.forget()

    def _headers(self) -> tuple[LockedHeader[Any] | Commit, ...]:
        return (self.tail, self.front) if self.commit is None else (self.commit, self.tail, self.front)

    def _files(self) -> tuple[PositionFile | Segments, ...]:
        return self.requeued, self.delayed, self.appending, self.claiming, self.settling

    def _close(self) -> None:
        self.claims.clear()
        for files in self._files():
            files.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is going down
            self.after_fork()  # which closes all; no thread is left that could be in here

    def after_fork(self) -> None:
        """Close all files in a child: they share their locks with the parent."""
        self.tail.after_fork()
        self.front.after_fork()
        if self.commit is not None:
            self.commit.after_fork()
        self.settle_section = Section(self.settle_section.what)
        self._close()
