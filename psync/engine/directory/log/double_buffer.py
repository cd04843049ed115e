"""A row of numbers in a small file, twice: which of the two copies counts is said by the first word, the number of the
change that made it. An odd change lies in the second copy, an even one in the first.

The fact that decides: the store of that word, after the copy that does not count yet was written. No kill can tear it;
who looks without a lock finds a copy that belongs to its number and fits its checksum, or looks again. Where no stores
can be made (see `Capabilities.in_place`), all of it is one `pwrite` of less than a page (whole or not at all under
SIGKILL), and where other hosts write too, each look is a `pread`.
"""

from __future__ import annotations

import mmap
import os
import struct
from zlib import crc32

from psync.engine.encoding.framing import Unreadable

_WORD = 8


class ReadCopies:
    """The file, by system calls. Not locked: the block does that."""

    def __init__(self, fd: int, count: int, *, blank: bool) -> None:
        self._count = count
        self._blank = blank
        """Whether all zeros are no damage, but what a power cut leaves of a file that was never on the disk."""
        self._size = _WORD * (count + 2)
        self._pack = struct.Struct(f"<{count + 1}Q").pack
        self._open(fd)

    @staticmethod
    def size(count: int) -> int:
        """Bytes of a file for so many numbers."""
        return _WORD + 2 * _WORD * (count + 2)

    @classmethod
    def zeros(cls, count: int) -> bytes:
        """What a new file holds: numbers that are all 0."""
        body = bytes(_WORD * (count + 1))
        return bytes(_WORD) + 2 * (body + crc32(body).to_bytes(_WORD, "little"))

    def _open(self, fd: int) -> None:
        self._fd = os.dup(fd)

    def since(self, known: int | None) -> tuple[int, list[int]] | None:
        """The number of the last change, and what came of it; None if it is `known`. pread. Raises `Unreadable`;
        ValueError after `close`."""
        if self._fd < 0:
            raise ValueError("it is closed")
        return self._since(os.pread(self._fd, _WORD + 2 * self._size, 0), known)

    def _since(self, data: bytes, known: int | None) -> tuple[int, list[int]] | None:
        number = int.from_bytes(data[:_WORD], "little")
        return None if number == known else self._found(number, data[self._at(number) :][: self._size])

    def _at(self, number: int) -> int:
        return _WORD + (number & 1) * self._size

    def _found(self, number: int, copy: bytes) -> tuple[int, list[int]]:
        if not number and self._blank and not any(copy):
            return 0, [0] * self._count
        if len(copy) == self._size:
            first, *values, check = struct.unpack(f"<{self._count + 2}Q", copy)
            if first == number and crc32(copy[:-_WORD]) == check:
                return number, values
        raise Unreadable("it does not fit its checksum")

    def _copy(self, number: int, values: list[int]) -> bytes:
        body = self._pack(number, *values)
        return body + crc32(body).to_bytes(_WORD, "little")

    def write(self, fd: int, number: int, values: list[int]) -> None:
        """They are `values` from now on, by that change. pwrite."""
        os.pwrite(fd, number.to_bytes(_WORD, "little") + 2 * self._copy(number, values), 0)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class ShownCopies(ReadCopies):
    """The same, mapped to be looked at: no system call."""

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


class StoredCopies(ShownCopies):
    """The same, mapped to be changed, too: no system call either."""

    def _open(self, fd: int) -> None:
        size = self.size(self._count)
        if os.fstat(fd).st_size < size and not self._blank:
            raise Unreadable("it is too short")
        os.posix_fallocate(fd, 0, size)  # a store that finds no room for its page would kill the process
        self._map = mmap.mmap(fd, size)
        self._words = memoryview(self._map)[:_WORD].cast("Q")

    def since(self, known: int | None) -> tuple[int, list[int]] | None:
        number = self._words[0]
        if number == known:
            return None
        at = self._at(number)
        return self._found(number, self._map[at : at + self._size])

    def write(self, fd: int, number: int, values: list[int]) -> None:
        body = self._pack(number, *values)
        at = _WORD + self._size if number & 1 else _WORD
        self._map[at : at + self._size] = body + crc32(body).to_bytes(_WORD, "little")
        self._words[0] = number

    def close(self) -> None:
        self._words.release()
        self._map.close()
