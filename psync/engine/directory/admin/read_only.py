"""An engine for who only looks: it opens for reading, makes no file, locks nothing that others wait for, mends nothing.

So it sees a moment that may be half over: a count may be off by what happens meanwhile. Every verb that would change
something raises `StoreFailed`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, NoReturn

from psync.engine.contract.values import Durability
from psync.engine.directory.buckets.bucket import DirectoryBucket
from psync.engine.directory.buckets.file import OpenBucket
from psync.engine.directory.engine import KEPT, DirectoryEngine
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import NFS, Capabilities, file_system_type, is_network
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.fs.permissions import Permissions
from psync.engine.directory.fs.syscalls import READ
from psync.engine.directory.layout import OWN_FOLDERS, Layout
from psync.engine.directory.liveness.registry import Owners
from psync.engine.directory.log.double_buffer import DoubleBuffer
from psync.engine.directory.log.header import FieldsT, LockedHeader
from psync.engine.directory.log.log import DirectoryLog
from psync.engine.directory.log.position_file import PositionFile
from psync.engine.directory.log.segments import Segments
from psync.engine.directory.log.state import FileKinds
from psync.engine.directory.log.status_file import StatusFile
from psync.engine.directory.notify.wakeup import Wakeup
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import exit_hooks
from psync.errors import StoreFailed

READS = 100
"""Reads of a header that may meet a half-made change before it is taken for damaged."""


class ReadOnlyEngine(DirectoryEngine):
    """The reading verbs on a directory that psync works in (see `names.is_used`)."""

    def __init__(self, root: str | os.PathLike[str], *, trust_group: bool = False) -> None:
        self.root = os.path.abspath(os.path.expanduser(os.fspath(root)))
        self.wakeups, self.trust_group, self.sharing = "poll", trust_group, "auto"
        self.layout = Layout(self.root, Permissions(self.root, team=trust_group, own=OWN_FOLDERS))
        try:
            self.layout.trust.look()
            kind = file_system_type(self.root)
        except OSError as error:
            raise translate_os_error(error, str(root), self.root) from error
        network = is_network(kind)
        direct = os.O_DIRECT if kind in NFS else 0
        self.can = Capabilities(kind, network, unnamed=False, fine_times=False, writable=False, direct=direct)
        self._set_level("process")
        self._owners = Owners(self.layout, self._fs)
        self._wake = Wakeup(self.layout, self._fs, announce=False, inotify=False)
        self._kept = DescriptorCache(KEPT)
        self._mutexes = {}
        self._first = None
        self._farewells = exit_hooks.CloseCallbacks()

    def at(self, durability: Durability | None) -> ReadOnlyEngine:
        return self

    def bucket(self, name: str) -> DirectoryBucket:
        kept = self._buckets.get(name)
        if kept is None:
            kept = self._buckets[name] = _SeenBucket(
                name,
                self.layout,
                self._fs,
                changed=_nothing,
                damaged=self._damaged,
                together=self._together,
                kept=self._kept,
            )
        return kept

    def log(self, name: str) -> DirectoryLog:
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = DirectoryLog(
                name,
                self.layout,
                fs=self._fs,
                owners=self._owners,
                changed=_nothing,
                finished=_nothing,
                kept=self._kept,
                kinds=_SEEN,
            )
            self._kept.opened(log)  # so that `close` closes its files
        return log

    def set_aside(self, name: str, reason: str, seen: object = None) -> None:
        """Damaged bytes stay where they are."""

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        raise StoreFailed(
            "this engine only looks", key="", errno=errno.EROFS, strerror=os.strerror(errno.EROFS), filename=self.root
        )

    write = create = delete = pop = move = update = append_all = guard = _refuse
    owner = sweep = announce = _refuse


def _nothing(*_: object) -> None:
    """Nobody is told anything."""


class _SeenBucket(DirectoryBucket):
    def _attach(self) -> tuple[OpenBucket, os.stat_result] | None:
        file = self._open
        if file is not None:
            status = self._status(file.fd)
            if status is not None and status.st_size:
                return file, status
            self._close()
        try:
            attached = self._fs.attach(self._path, READ)
        except NotADirectoryError:
            return None
        if attached is None:
            return None
        self._open = file = OpenBucket(attached[0], OSError(errno.EROFS, os.strerror(errno.EROFS)))
        self._kept.opened(self)
        return file, attached[1]

    def _attach_locked(self) -> tuple[OpenBucket, os.stat_result] | None:
        """Without the lock: the end of a bucket that somebody is in the middle of is looked for instead."""
        return self._attach()


class _SeenHeader(LockedHeader[FieldsT]):
    """A header that is read without its lock; its fields are all 0 where there is no file yet."""

    def peek(self) -> FieldsT:
        try:
            fd = self._fs.open(self.path, READ)
        except FileNotFoundError:
            return self._loaded([0] * self._fields.COUNT)
        try:
            buffer = DoubleBuffer(fd, self._fields.COUNT, blank=self._blank)
        finally:
            os.close(fd)
        try:
            for _ in range(READS):
                with contextlib.suppress(Unreadable):  # a writer was in the middle of a change
                    return self._loaded((buffer.since(None) or (0, []))[1])
            return self._loaded((buffer.since(None) or (0, []))[1])
        finally:
            buffer.close()

    def enter(self, how: int = 0) -> FieldsT:
        return self.peek()

    def leave(self) -> None:
        """There is no lock to release."""


class _SeenSegments(Segments):
    """Segments that are opened for reading."""

    def __init__(self, layout: Layout, log: str, fs: AtomicFiles) -> None:
        super().__init__(layout, log, fs)
        self._unwritten: set[int] = set()
        """Segments that had no file of statuses yet."""

    def find(self, position: int, tail: int) -> tuple[int, StatusFile, int] | None:
        while self._unwritten:
            self._evict(self._unwritten.pop())  # they may have one by now
        return super().find(position, tail)

    def _open_segment(self, path: str, create: bool) -> int:
        return self._fs.open(path, READ)

    def _open_statuses(self, path: str, base: int) -> StatusFile:
        try:
            fd = self._fs.open(path, READ)
        except FileNotFoundError:
            fd = os.open(os.devnull, READ)  # nothing is in there: no status was written
            self._unwritten.add(base)
        return StatusFile(fd)


class _SeenPositions(PositionFile):
    """A position file that is opened for reading."""

    _absent = False

    def _file(self) -> int:
        if self._absent:
            self.close()  # it may be there by now
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, READ | self._flags & os.O_DIRECT)
                self._absent = False
            except FileNotFoundError:
                self._fd = os.open(os.devnull, READ)
                self._absent = True
        return self._fd


_SEEN = FileKinds(_SeenHeader, _SeenSegments, _SeenSegments, _SeenPositions, writable=False)
