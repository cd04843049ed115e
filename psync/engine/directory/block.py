"""A few numbers in a file that many change: always under the file's lock, always all of them by one write.

Who only wants to know them reads without the lock, and again if it met a half-made write. The fact that decides: one
`pwrite` of less than a page at offset 0 (whole or not at all under SIGKILL). Where only this host writes, the file is
mapped into memory, and to read costs no system call; else (a network file system) each reading is a `pread`.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, flock
from zlib import crc32

from psync.engine.directory.files import CHANGE
from psync.engine.directory.whole import Whole
from psync.engine.seal import Unreadable

_MAGIC = b"psync#1\n"
_CRC = struct.Struct("<I")


class _Read:
    """What `mmap` shows of a file, by a `pread` each time."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = os.dup(fd)
        self._size = size

    def __getitem__(self, part: slice) -> bytes:
        if self._fd < 0:
            raise ValueError("it is closed")
        return os.pread(self._fd, self._size, 0)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Block:
    """The numbers in one file, which is kept open. Threads may share it; who has the lock may take it again."""

    def __init__(
        self,
        path: str,
        count: int,
        whole: Whole,
        opened: Callable[[], None],
        *,
        blank: bool = True,
    ) -> None:
        self.path = path
        self._blank = blank
        """Whether all zeros are no damage, but what a power cut leaves of a file that was never on the disk."""
        self._trust = whole.trust
        self.values = [0] * count
        """As they are while the block is entered; change them and `save`."""
        self.depth = 0
        self._struct = struct.Struct(f"<8s{count}Q")
        self._pack = self._struct.pack
        self._size = self._struct.size + _CRC.size
        self._whole = whole
        self._opened = opened
        self._mapped = whole.shared is None
        self._threads = threading.RLock()
        self._fd = -1
        # to look takes a descriptor of its own, so that nobody who only looks waits for a thread that waits for others
        self._looking = threading.Lock()
        self._page: mmap.mmap | _Read | None = None
        self._peeked = b"", self.values
        """What was read at the last `peek`, and what that stands for. One tuple: threads share it."""
        self._raw = b""
        """The bytes that `values` were read from or written to; b"" when they must be read again."""

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
            page = self._page or self._show()
            raw = page[:]
            if raw != self._raw:  # somebody else was here
                self.values = self._unpack(raw)
                self._raw = raw
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
            raw = os.pread(fd, self._size, 0)
            try:
                self.values = self._unpack(raw)
            except Unreadable:
                self.values, damaged = [0] * len(self.values), raw
            self.spoil()
        except BaseException:
            if self._threads._is_owned():  # type: ignore[attr-defined]
                if self._fd >= 0:
                    flock(self._fd, LOCK_UN)
                self._threads.release()
            raise
        self.depth = 1
        return self.values, damaged

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
        """While entered."""
        body = self._pack(_MAGIC, *self.values)
        raw = body + crc32(body).to_bytes(4, "little")
        self._raw = b""
        os.pwrite(self._fd, raw, 0)
        self._raw = raw

    def spoil(self) -> None:
        """What is in `values` may be ahead of the file, because something failed: read it again next time."""
        self._raw = b""

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
                raw = (self._page or self._show())[:]
                last, values = self._peeked
                if raw != last:
                    values = self._unpack(raw)
                    self._peeked = raw, values
                return values
            except Unreadable:
                continue  # a writer was in the middle of it
            except ValueError:
                continue  # it was closed meanwhile, to make room for others
        self.enter()
        try:
            return list(self.values)
        finally:
            self.leave()

    def _unpack(self, raw: bytes) -> list[int]:
        body = raw[: self._struct.size]
        if self._blank and not any(raw):
            return [0] * len(self.values)  # a power cut came before it was ever on the disk
        if len(raw) < self._size or _CRC.unpack_from(raw, self._struct.size)[0] != crc32(body) or body[:8] != _MAGIC:
            raise Unreadable(f"{self.path} does not fit its checksum")
        return list(self._struct.unpack(body)[1:])

    def _open(self) -> int:
        while True:
            try:
                fd = self._whole.open(self.path, CHANGE)
            except FileNotFoundError:
                body = self._struct.pack(_MAGIC, *[0] * len(self.values))
                self._whole.make(self.path, body + _CRC.pack(crc32(body)))
                continue
            self._trust.kept(fd, self.path)
            self._opened()
            return fd

    def _show(self) -> mmap.mmap | _Read:
        """What the file holds, to be looked at. Raises `Unreadable`."""
        fd = self._open()
        try:
            with self._looking:
                if self._page is None and self._mapped:
                    if not os.fstat(fd).st_size:
                        os.ftruncate(fd, self._size)  # as above
                    self._page = mmap.mmap(fd, self._size, access=mmap.ACCESS_READ)
                elif self._page is None:
                    self._page = _Read(fd, self._size)
                return self._page
        except ValueError as error:
            raise Unreadable(f"{self.path} is too short") from error
        finally:
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
            if self._page is not None:
                self._page.close()
            self._page = None

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._threads = threading.RLock()
        self._looking = threading.Lock()
        self.depth = 0
        self._close()
