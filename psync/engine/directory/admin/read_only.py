"""Read-only engine: opens files for reading only, makes none, repairs none, and takes no lock that others wait for.

So it may read the middle of a change: a count may be off by what happens meanwhile. Every verb that would change
something raises `StoreFailed`. (It is the directory engine on files opened with `reading=True`.)
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, NoReturn

from psync.engine.contract.log import Mark, State
from psync.engine.contract.values import Durability
from psync.engine.directory.engine import DirectoryEngine, OpenDirectory, files_of, layout_of
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import NFS_TYPES, Capabilities, file_system_type, is_network
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.syscalls import READ
from psync.engine.directory.layout import Layout
from psync.engine.directory.log.double_buffer import ReadCopies
from psync.engine.directory.log.header import Block
from psync.engine.directory.log.log import DirectoryLog
from psync.engine.directory.log.position_file import PositionFile
from psync.engine.directory.log.segment_recovery import Salvage
from psync.engine.directory.log.state import DELAYED
from psync.engine.directory.log.status_file import MarkFile
from psync.engine.encoding.framing import Unreadable
from psync.errors import StoreFailed


class ReadOnlyEngine(DirectoryEngine):
    """The reading verbs on a directory that psync works in (see `names.is_used`)."""

    def __init__(self, root: str | os.PathLike[str], *, trust_group: bool = False) -> None:
        layout = layout_of(root, trust_group)
        try:
            layout.trust.check_root()
            kind = file_system_type(layout.root)
        except OSError as error:
            raise translate_os_error(error, str(root), layout.root) from error
        direct = os.O_DIRECT if kind in NFS_TYPES else 0
        can = Capabilities(kind, is_network(kind), unnamed=False, fine_times=False, writable=False, direct=direct)
        layout.trust.unnamed = can.unnamed
        fs = files_of(layout, can, "process", reading=True)
        self._compose(OpenDirectory(layout, can, fs), fs, "process", ("poll", trust_group, "auto"), log_kind=_SeenLog)

    def at(self, durability: Durability | None) -> ReadOnlyEngine:
        return self

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        raise StoreFailed(
            "this engine only looks", key="", errno=errno.EROFS, strerror=os.strerror(errno.EROFS), filename=self.root
        )

    write = create = delete = pop = move = update = append_all = guard = _refuse
    owner = sweep = announce = _refuse


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
