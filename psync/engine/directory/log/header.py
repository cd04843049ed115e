"""A few numbers in a file that many change: always under the file's lock, always all of them at once.

Who only wants to know them reads without the lock, and again if it met a half-made change. How they lie in the file,
and the fact that decides, is `copies`' matter.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, flock

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import CHANGE
from psync.engine.directory.log.double_buffer import ReadCopies, ShownCopies, StoredCopies
from psync.engine.encoding.framing import Unreadable


class Block:
    """The numbers in one file, which is kept open. Threads may share it; who has the lock may take it again."""

    def __init__(
        self,
        path: str,
        count: int,
        fs: AtomicFiles,
        opened: Callable[[], None],
        *,
        blank: bool = True,
    ) -> None:
        self.path = path
        self._blank = blank
        self._trust = fs.trust
        self.values = [0] * count
        """As they are while the block is entered; change them and `save`."""
        self.depth = 0
        self._fs = fs
        self._opened = opened
        shown = StoredCopies if fs.in_place else ShownCopies
        self._kind = shown if fs.shared is None else ReadCopies
        self._threads = threading.RLock()
        self._fd = -1
        # to look takes a descriptor of its own, so that nobody who only looks waits for a thread that waits for others
        self._looking = threading.Lock()
        self._copies: ReadCopies | None = None
        self._number = 0
        """Of the change that was the last when the block was entered last."""
        self._known: int | None = None
        """The number of the change that `values` are; None when they must be read again."""
        self._peeked: tuple[int | None, list[int]] = None, self.values
        """The number of the change seen at the last `peek`, and what came of it. One tuple: threads share it."""

    def enter(self, how: int = LOCK_EX) -> list[int]:
        """Lock the block, for threads and processes, and return its values. flock; a pread where it is not mapped.

        With ``LOCK_EX | LOCK_NB`` for `how` it raises BlockingIOError if another process has it.
        """
        if self.depth and self._threads._is_owned():  # type: ignore[attr-defined]
            self.depth += 1
            return self.values
        try:  # a signal's handler may raise at any call, and so when both locks are ours
            self._threads.acquire()
            fd = self._fd
            if fd < 0:
                fd = self._fd = self._open()
            flock(fd, how)
            found = (self._copies or self._show(fd)).since(self._known)
            if found is not None:  # somebody else was here
                self._number, self.values = found
                self._known = self._number
        except BaseException:
            if self._threads._is_owned():  # type: ignore[attr-defined]
                if self._fd >= 0:
                    flock(self._fd, LOCK_UN)
                self._threads.release()
            raise
        self.depth = 1
        return self.values

    def enter_damaged(self) -> tuple[list[int], bytes | None]:
        """`enter`, though the block may be damaged: its values are all 0 then, and its bytes come with them."""
        self.spoil()
        try:
            return self.enter(), None
        except Unreadable:
            pass  # so it was not entered before, either
        damaged = None
        try:
            self._threads.acquire()
            fd = self._fd
            if fd < 0:
                fd = self._fd = self._open()
            flock(fd, LOCK_EX)
            damaged = self._begin_anew(fd)
            self.spoil()
        except BaseException:
            if self._threads._is_owned():  # type: ignore[attr-defined]
                if self._fd >= 0:
                    flock(self._fd, LOCK_UN)
                self._threads.release()
            raise
        self.depth = 1
        return self.values, damaged

    def _begin_anew(self, fd: int) -> bytes | None:
        """While locked: its bytes, if they are damaged still; then its values are 0, though not yet in the file."""
        size = self._kind.size(len(self.values))
        damaged = os.pread(fd, size, 0)
        if len(damaged) < size:
            os.ftruncate(fd, size)
        try:
            self._number, self.values = (self._copies or self._show(fd)).since(None) or (0, [])
            return None
        except Unreadable:
            self._number = int.from_bytes(os.urandom(6), "little")  # none that anybody may have seen before
            self.values = [0] * len(self.values)
            return damaged

    def await_leaving(self) -> None:
        """Return when who has the lock now has it no more; all who wait for that go on at the same time."""
        with self._threads:
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
            self._close()  # which unlocks it too
        except BaseException:  # a signal's handler came by an audit hook, before the kernel was asked
            flock(self._fd, LOCK_UN)
            raise
        finally:
            self._threads.release()

    def save(self) -> None:
        """While entered: what is in `values` is in the file. No system call; a pwrite where it is not mapped."""
        assert self._copies is not None
        self._known = None
        self._number = number = self._number + 1
        self._copies.write(self._fd, number, self.values)
        self._known = number

    def spoil(self) -> None:
        """What is in `values` may be ahead of the file, because something failed: read it again next time."""
        self._known = None

    def peek(self) -> list[int]:
        """The values at some moment during the call, without the lock; not to be changed. No system call; a pread where
        it is not mapped."""
        if self.depth and self._threads.acquire(blocking=False):
            try:
                if self.depth:
                    return self.values
            finally:
                self._threads.release()
        for _ in range(100):
            try:
                known, values = self._peeked
                found = (self._copies or self._show()).since(known)
                if found is None:
                    return values
                self._peeked = found
                return found[1]
            except Unreadable:
                continue  # a writer was in the middle of it
            except ValueError:
                continue  # it was closed meanwhile, to make room for others
        self.enter()
        try:
            return list(self.values)
        finally:
            self.leave()

    def _open(self) -> int:
        while True:
            try:
                fd = self._fs.open(self.path, CHANGE)
            except FileNotFoundError:
                self._fs.make(self.path, self._kind.zeros(len(self.values)))
                continue
            self._trust.checked(fd, self.path)
            self._opened()
            return fd

    def _show(self, opened: int | None = None) -> ReadCopies:
        """What the file holds, which may be `opened`, to be looked at. Raises `Unreadable`."""
        fd = self._open() if opened is None else opened
        try:
            with self._looking:
                if self._copies is None:
                    self._copies = self._kind(fd, len(self.values), blank=self._blank)
                return self._copies
        finally:
            if opened is None:
                os.close(fd)

    def close_if_idle(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        try:
            if not self.depth:  # the lock is reentrant
                self._close()
            return not self.depth
        finally:
            self._threads.release()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        with self._looking:
            if self._copies is not None:
                self._copies.close()
            self._copies = None

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._threads = threading.RLock()
        self._looking = threading.Lock()
        self.depth = 0
        self._close()
