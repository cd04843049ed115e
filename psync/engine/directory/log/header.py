"""Locked header: a few named numbers in a file that many processes change, always all at once and under a lock.

A reader needs no lock: it reads again if it met a change that was half made. `double_buffer` says how the numbers lie
in the file, and which store decides; `fields` names them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from typing import Generic

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.fd_cache import with_room
from psync.engine.directory.fs.presence import Inode, inode_of
from psync.engine.directory.fs.syscalls import CHANGE
from psync.engine.directory.log.double_buffer import DoubleBuffer, MappedDoubleBuffer, ReadMappedDoubleBuffer
from psync.engine.directory.log.fields import FieldsT
from psync.engine.encoding.framing import Unreadable
from psync.engine.system.clock import monotonic
from psync.engine.system.reentry import FileSection, catch_up, postponed, reentrant

_PEEKS = 100
"""Reads without the lock that may meet a half-made change before the reader takes the lock."""


def _nothing() -> None:
    """Without files beside the header."""


class LockedHeader(Generic[FieldsT]):
    """The header in one file, which is kept open. Threads may share it; the holder may enter it again."""

    def __init__(
        self,
        path: str,
        fields: type[FieldsT],
        fs: AtomicFiles,
        opened: Callable[[], None],
        *,
        blank: bool = True,
    ) -> None:
        self.path = path
        self._fields = fields
        self._blank = blank
        self._trust = fs.trust
        self._presence = fs.presence
        self._inode: Inode | None = None
        """Which file it opened last."""
        self.values = self._loaded([0] * fields.COUNT)
        """The fields, while the header is entered; change them and `save`."""
        self.depth = 0
        """How often the holder has entered it."""
        self._admits = -1
        """The `depth` at which the holder's own verbs may enter: see `admitting`."""
        self._fs = fs
        self._opened = opened
        mapped = MappedDoubleBuffer if fs.in_place else ReadMappedDoubleBuffer
        self._kind = mapped if fs.local else DoubleBuffer
        self.look_further: Callable[[], object] = _nothing
        """Called with the thread's lock when the file was looked at: raises `DirectoryGone` for others beside it."""
        self._section = FileSection(path)
        self._fd = -1
        # `peek` opens a descriptor of its own, so that a reader never waits for a thread that waits for the file's lock
        self._opening = threading.RLock()
        self._buffer: DoubleBuffer | None = None
        self._change = 0
        """The number of the change that was the last when the header was entered last."""
        self._known: int | None = None
        """The number of the change that `values` show; None if they must be read again."""
        self._absent = self.values
        """The fields while there is no file."""
        self._peeked: tuple[int | None, FieldsT] = None, self.values
        """The number of the change that the last `peek` saw, and its fields. One tuple: threads share it."""

    def _loaded(self, numbers: Sequence[int]) -> FieldsT:
        values = self._fields()
        values.load(numbers)
        return values

    def enter(self, how: int = LOCK_EX) -> FieldsT:
        """Lock the header, for threads and processes, and return its fields. flock; a pread where it is not mapped.

        With ``LOCK_EX | LOCK_NB`` for `how` it raises BlockingIOError if another process has it. Raises `ReentrantCall`
        for a verb that interrupts another one of this thread.
        """
        section = self._section
        if section.is_mine():
            if self.depth != self._admits:
                raise reentrant(self.path)
            self.depth += 1
            return self.values
        try:  # a signal's handler may raise at any call, and so when this thread has both locks
            section.lock.acquire()
            fd = self._fd
            if fd < 0:
                fd = self._fd = self._open()
            elif monotonic() > self._presence.due:
                self.look()
            try:
                flock(fd, how | LOCK_NB)
            except BlockingIOError:
                if how & LOCK_NB:
                    raise
                section.wait_for(fd, how)
            buffer = self._buffer or self._attach(fd)
            words = buffer.words
            if words is None or words[0] != self._known:  # the beginning of `since`, written out
                self._load(buffer)
        except BaseException:
            self._give_back()
            raise
        self.depth = 1
        return self.values

    def _load(self, buffer: DoubleBuffer) -> None:
        """While locked: read the fields, unless they are known."""
        found = buffer.since(self._known)
        if found is not None:
            self.values = self._loaded(found[1])
            self._known = self._change = found[0]

    def look(self) -> None:
        """Raise `DirectoryGone` unless the file is where it was opened."""
        self._presence.look_at(self.path, self._inode)
        if self._presence.thorough:
            self.look_further()

    def enter_again(self) -> FieldsT:
        """`enter`, also from within the same verb."""
        if not self.depth or not self._section.is_mine():
            return self.enter()
        self.depth += 1
        return self.values

    @contextlib.contextmanager
    def admitting(self) -> Iterator[None]:
        """While entered: let this thread's verbs enter during the block, each after the other."""
        before, self._admits = self._admits, self.depth
        try:
            yield
        finally:
            self._admits = before

    def _give_back(self) -> None:
        """Undo an `enter` that failed at any point."""
        if self._section.is_mine():
            if self._fd >= 0:
                flock(self._fd, LOCK_UN)
            self._section.leave()

    def enter_damaged(self) -> tuple[FieldsT, bytes | None]:
        """`enter` a header that may be damaged. If it is, all fields are 0, and the second result is its bytes."""
        self.spoil()
        try:
            return self.enter(), None
        except Unreadable:
            pass  # so this thread had not entered before, either
        try:
            self._section.lock.acquire()
            fd = self._fd
            if fd < 0:
                fd = self._fd = self._open()
            flock(fd, LOCK_EX)
            damaged = self._reset(fd)
            self.spoil()
        except BaseException:
            self._give_back()
            raise
        self.depth = 1
        return self.values, damaged

    def _reset(self, fd: int) -> bytes | None:
        """While locked: set all fields to 0, though not yet in the file; returns its bytes. None if it is sound now."""
        size = self._kind.size(self._fields.COUNT)
        damaged = os.pread(fd, size, 0)
        if len(damaged) < size:
            os.ftruncate(fd, size)
        try:
            found = (self._buffer or self._attach(fd)).since(None)
            assert found is not None
            self._change, self.values = found[0], self._loaded(found[1])
            return None
        except Unreadable:
            self._change = int.from_bytes(os.urandom(6), "little")  # a number that no process has seen before
            self.values = self._loaded([0] * self._fields.COUNT)
            return damaged

    def await_leaving(self) -> None:
        """Return when the present holder has released the lock. All waiters go on at the same time."""
        with self._section, self._section.lock:
            if not self.depth and self._fd >= 0:
                flock(self._fd, LOCK_SH)
                flock(self._fd, LOCK_UN)

    def leave(self) -> None:
        self.depth -= 1
        if self.depth:
            return
        try:
            flock(self._fd, LOCK_UN)
        except OSError:
            self._close()  # which unlocks the file too
        except BaseException:  # an audit hook let a signal's handler run, before the system call
            flock(self._fd, LOCK_UN)
            raise
        finally:
            self._section.lock.release()  # `Section.leave`, written out: this is a hot path
            if postponed:
                catch_up()

    def save(self) -> None:
        """Write `values` to the file, while entered. No system call; a pwrite where the file is not mapped."""
        assert self._buffer is not None
        self._known = None
        self._change = change = self._change + 1
        self._buffer.write(self._fd, change, self.values.pack(change))
        self._known = change

    def spoil(self) -> None:
        """Read the file again next time: something failed, and `values` may be ahead of it."""
        self._known = None

    def peek(self) -> FieldsT:
        """The fields at some moment during the call, without the lock; not to be changed. All are 0 while there is no
        file, and none is made.

        No system call; a pread where the file is not mapped.
        """
        if self.depth and self._section.is_mine():
            return self.values
        for _ in range(_PEEKS):
            try:
                known, values = self._peeked
                found = (self._buffer or self._attach(making=False)).since(known)
                if found is None:
                    return values
                self._peeked = seen = found[0], self._loaded(found[1])
                return seen[1]
            except Unreadable:
                continue  # a writer was in the middle of a change
            except FileNotFoundError:
                return self._absent
            except ValueError:
                continue  # another thread closed the file meanwhile, to make room for others
        values = self.enter()
        try:
            return copy(values)
        finally:
            self.leave()

    @property
    def is_open(self) -> bool:
        """Whether the file is known to be there, because it is open."""
        return self._fd >= 0 or self._buffer is not None

    def make(self) -> None:
        """Make the file unless it is there."""
        if not self.is_open:
            os.close(self._open())

    def _open(self, *, making: bool = True) -> int:
        self._presence.check()
        while True:
            known = self._inode  # before the open: another thread may make the file, and open it, at any moment
            try:
                fd = self._fs.open(self.path, CHANGE)
            except FileNotFoundError:
                if known is not None:
                    raise self._presence.file_gone(self.path) from None
                if not making:
                    raise
                self._fs.make(self.path, self._kind.zeros(self._fields.COUNT))
                continue
            self._trust.checked(fd, self.path)
            inode = inode_of(os.fstat(fd))
            if known not in (None, inode):
                os.close(fd)
                raise self._presence.file_gone(self.path)
            self._inode = inode
            self._opened()
            return fd

    def _attach(self, opened: int | None = None, *, making: bool = True) -> DoubleBuffer:
        """The double buffer of the file, which is `opened` already or is opened here. Raises `Unreadable`; without
        `making` FileNotFoundError."""
        fd = self._open(making=making) if opened is None else opened
        try:
            with self._opening:
                if self._buffer is None:
                    self._buffer = with_room(lambda: self._kind(fd, self._fields.COUNT, blank=self._blank))
                return self._buffer
        finally:
            if opened is None:
                os.close(fd)

    def descriptors(self) -> int:
        return (self._fd >= 0) + (self._buffer is not None)

    def seen(self) -> tuple[int | None, int | None]:
        """Numbers that differ once this process has changed the header, or has read it after a change."""
        return self._known, self._peeked[0]

    @contextlib.contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep all threads out; False if one is in already, or opens the file: perhaps this one, interrupted. Never
        waits."""
        if not self._section.try_enter():
            yield False
            return
        try:
            mine: bool = self._opening._is_owned()  # type: ignore[attr-defined]
            if free := not mine and self._opening.acquire(blocking=False):
                self._opening.release()
            yield free
        finally:
            self._section.leave()

    def forget(self) -> None:
        """Take whatever file is at the path when it is opened next."""
        self._inode = None

    def close(self) -> None:
        """While `idle`. A thread that peeks meanwhile finds it closed, and opens it anew."""
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1  # before it is closed, so that nobody closes another file of this number
        if fd >= 0:
            os.close(fd)
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.close()

    def after_fork(self) -> None:
        """Close the descriptor in a child: it shares its lock with the parent (closing unlocks nothing)."""
        self._section = FileSection(self.path)
        self._opening = threading.RLock()
        self.depth = 0
        self._close()
