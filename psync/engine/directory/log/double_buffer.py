"""Double buffer: two copies of a few numbers in a small file, and a first word that selects one of them.

The first word is the number of the last change. An odd change lies in the second copy, an even one in the first. Each
copy repeats the number of its change, and ends with a checksum.

The fact that decides: the store of the first word, after the other copy was written. No kill can tear it. A reader
without a lock finds a copy that repeats the number and fits its checksum, or it reads again. Where stores into memory
are not possible (see `Capabilities.in_place`), one `pwrite` of less than a page changes word and copies; it is whole or
not at all under SIGKILL. Where other hosts write too, each read is a `pread`.
"""

from __future__ import annotations

import mmap
import os
import struct
from zlib import crc32

from psync.engine.encoding.framing import Unreadable

_WORD_BYTES = 8


class DoubleBuffer:
    """The file, by pread and pwrite. Not locked: `LockedHeader` does that."""

    words: memoryview | None = None
    """If the file is mapped to be changed: its first word, the number of the last change."""

    def __init__(self, fd: int, count: int, *, blank: bool) -> None:
        self._count = count
        self._blank = blank
        """Whether all zeros are valid: a power cut leaves them in a file that was never on the disk."""
        self._size = _WORD_BYTES * (count + 2)
        self._open(fd)

    @staticmethod
    def size(count: int) -> int:
        """Bytes of a file for `count` numbers."""
        return _WORD_BYTES + 2 * _WORD_BYTES * (count + 2)

    @classmethod
    def zeros(cls, count: int) -> bytes:
        """The content of a new file: all numbers are 0."""
        body = bytes(_WORD_BYTES * (count + 1))
        return bytes(_WORD_BYTES) + 2 * (body + crc32(body).to_bytes(_WORD_BYTES, "little"))

    def _open(self, fd: int) -> None:
        self._fd = os.dup(fd)

    def since(self, known: int | None) -> tuple[int, list[int]] | None:
        """The number of the last change, and the numbers after it; None if the change is `known`. pread.

        Raises `Unreadable`, and ValueError after `close`.
        """
        if self._fd < 0:
            raise ValueError("the double buffer is closed")
        return self._since(os.pread(self._fd, _WORD_BYTES + 2 * self._size, 0), known)

    def _since(self, data: bytes, known: int | None) -> tuple[int, list[int]] | None:
        change = int.from_bytes(data[:_WORD_BYTES], "little")
        return None if change == known else self._checked(change, data[self._offset(change) :][: self._size])

    def _offset(self, change: int) -> int:
        return _WORD_BYTES + (change & 1) * self._size

    def _checked(self, change: int, copy: bytes) -> tuple[int, list[int]]:
        if not change and self._blank and not any(copy):
            return 0, [0] * self._count
        if len(copy) == self._size:
            first, *numbers, check = struct.unpack(f"<{self._count + 2}Q", copy)
            if first == change and crc32(copy[:-_WORD_BYTES]) == check:
                return change, numbers
        raise Unreadable("it does not fit its checksum")

    def write(self, fd: int, change: int, body: bytes) -> None:
        """Make `body` current: the number of the `change` and the numbers, as words. pwrite."""
        copy = body + crc32(body).to_bytes(_WORD_BYTES, "little")
        os.pwrite(fd, change.to_bytes(_WORD_BYTES, "little") + 2 * copy, 0)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class ReadMappedDoubleBuffer(DoubleBuffer):
    """The file, mapped to be read without a system call; changed by pwrite."""

    def _open(self, fd: int) -> None:
        """Raises `Unreadable` if the file is too short."""
        size = self.size(self._count)
        if self._blank and not os.fstat(fd).st_size:
            os.ftruncate(fd, size)
        try:
            self._map = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise Unreadable("it is too short") from error

    def since(self, known: int | None) -> tuple[int, list[int]] | None:
        return self._since(self._map[:], known)

    def close(self) -> None:
        self._map.close()


class MappedDoubleBuffer(ReadMappedDoubleBuffer):
    """The file, mapped to be read and changed without a system call."""

    def _open(self, fd: int) -> None:
        size = self.size(self._count)
        if os.fstat(fd).st_size < size and not self._blank:
            raise Unreadable("it is too short")
        os.posix_fallocate(fd, 0, size)  # a store into a page that the disk has no room for would kill the process
        self._map = mmap.mmap(fd, size)
        self.words: memoryview = memoryview(self._map)[:_WORD_BYTES].cast("Q")

    def since(self, known: int | None) -> tuple[int, list[int]] | None:
        change = self.words[0]
        if change == known:
            return None
        at = self._offset(change)
        return self._checked(change, self._map[at : at + self._size])

    def write(self, fd: int, change: int, body: bytes) -> None:
        at = _WORD_BYTES + self._size if change & 1 else _WORD_BYTES
        # a kill in this store tears only the copy that is not selected
        self._map[at : at + self._size] = body + crc32(body).to_bytes(_WORD_BYTES, "little")
        self.words[0] = change

    def close(self) -> None:
        self.words.release()
        self._map.close()
