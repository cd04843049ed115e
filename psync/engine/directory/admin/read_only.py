"""An engine for who only looks: it opens for reading, makes no file, locks nothing that others wait for, mends nothing.

So it sees a moment that may be half over: a count may be off by what happens meanwhile. Every verb that would change
something raises `StoreFailed`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, NoReturn

from psync.engine.contract.log import Mark, State
from psync.engine.contract.values import Durability
from psync.engine.directory import format_version
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
from psync.engine.directory.log.double_buffer import ReadCopies
from psync.engine.directory.log.header import Block
from psync.engine.directory.log.log import DirectoryLog
from psync.engine.directory.log.position_file import PositionFile
from psync.engine.directory.log.segment_recovery import Salvage
from psync.engine.directory.log.state import DELAYED
from psync.engine.directory.log.status_file import MarkFile
from psync.engine.directory.notify.wakeup import Wakeup
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import exit_hooks
from psync.errors import StoreFailed


class ReadOnlyEngine(DirectoryEngine):
    """The reading verbs on a directory that psync works in (see `layout.is_used`)."""

    def __init__(self, root: str | os.PathLike[str], *, trust_group: bool = False) -> None:
        self.root = os.path.abspath(os.path.expanduser(os.fspath(root)))
        self.wakeups, self.trust_group, self.sharing = "poll", trust_group, "auto"
        self.layout = Layout(self.root, Permissions(self.root, team=trust_group, own=OWN_FOLDERS))
        try:
            self.layout.trust.look()
            format_version.check(self.layout)
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
            log = self._logs[name] = _SeenLog(
                name,
                self.layout,
                fs=self._fs,
                owners=self._owners,
                changed=_nothing,
                finished=_nothing,
                kept=self._kept,
            )
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


class _SeenBlock(Block):
    """Another block, read without its lock; its numbers are all 0 where there is no file yet."""

    def __init__(self, block: Block) -> None:
        self.__dict__.update(block.__dict__)

    def peek(self) -> list[int]:
        try:
            fd = self._fs.open(self.path, READ)
        except FileNotFoundError:
            return [0] * len(self.values)
        try:
            copies = ReadCopies(fd, len(self.values), blank=self._blank)
        finally:
            os.close(fd)
        try:
            for _ in range(100):
                with contextlib.suppress(Unreadable):  # a writer was in the middle of it
                    return (copies.since(None) or (0, []))[1]
            return (copies.since(None) or (0, []))[1]
        finally:
            copies.close()

    def enter(self, how: int = 0) -> list[int]:
        return self.peek()

    def leave(self) -> None:
        """It was not entered."""


class _SeenSegments(Salvage):
    def __init__(self, layout: Layout, log: str, fs: AtomicFiles) -> None:
        super().__init__(layout, log, fs)
        self._unmarked: set[int] = set()
        """Segments that had no file of marks yet."""

    def _find(self, position: int, tail: int) -> tuple[int, MarkFile, int] | None:
        while self._unmarked:
            self._forget(self._unmarked.pop())  # they may have one by now
        return super()._find(position, tail)

    def _file(self, base: int, *, create: bool = False) -> int:
        fd = self._files.get(base)
        if fd is None:
            fd = self._fs.open(self._layout.segment(self._log, base), READ)
            self._make_room(self._files)
            self._files[base] = fd
            if base not in self._bases:
                self._bases = sorted([*self._bases, base])
        return fd

    def _mark_file(self, base: int) -> MarkFile:
        marks = self._marks.get(base)
        if marks is None:
            try:
                fd = self._fs.open(self._layout.marks(self._log, base), READ)
            except FileNotFoundError:
                fd = os.open(os.devnull, READ)  # nothing is marked: nothing is in there
                self._unmarked.add(base)
            self._make_room(self._marks)
            marks = self._marks[base] = MarkFile(fd)
        return marks


class _SeenEntries(PositionFile):
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


class _SeenLog(DirectoryLog):
    def __init__(self, name: str, layout: Layout, **options: Any) -> None:
        super().__init__(name, layout, **options)
        self._tail = _SeenBlock(self._tail)
        self._front = _SeenBlock(self._front)
        self._taken = _SeenSegments(layout, name, options["fs"])
        self._later = _SeenEntries(layout.log(name, "delayed"), options["fs"])
        options["kept"].opened(self)

    def _examine(self) -> None:
        """What is to be mended stays so."""

    def _repair(self, error: BaseException) -> bool:
        return False

    def delayed(self) -> list[tuple[int, Mark]]:
        end, base, _ = self._look()
        found: dict[int, Mark] = {}
        for position in self._later.first(self._front.peek()[DELAYED]):
            mark = self._taken.mark(position, base) if position < end and position not in found else None
            if mark is not None and mark.state is State.DELAYED:
                found[position] = mark
        return list(found.items())

    def finished(self) -> bool:
        end, base, _ = self._look()
        states = (state for _, state, _ in self._taken.scan(0, end, base))
        return all(state in (State.DONE, State.DEAD) for state in states)
