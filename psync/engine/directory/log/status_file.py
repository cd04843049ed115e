"""The marks of one segment's records, in a file of their own beside it, at half the offset of their record.

So no mark lies across the end of a page, and who appends never waits for the inode that takers write to. A mark is two
words: state, attempt, checksum, beat and lease (a half-precision float); and the owner. The owner counts, and the
checksum covers it, only in a state that has one (CLAIMED, DELAYED). One that was never written is zero: WAITING.

The fact that decides is the first word. Where marks lie in memory that the processes share, it is one store, which no
kill can tear: who claims stores the owner first, which means nothing yet, and who settles leaves it where it is. Should
both words count before and after, or where a mark is written by a system call, both change by one `pwrite` of 16 bytes.

Mapped are only windows for which room was asked before (a store that finds no room for its page kills the process), on
file systems that overwrite a page in place. Not promised: that processes survive it if somebody makes the file shorter
while they have it mapped.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from binascii import crc_hqx

from psync.engine.contract.log import Mark, State
from psync.engine.directory.fs.syscalls import write_all
from psync.engine.encoding.framing import Unreadable

SIZE = 16
"""Bytes of a mark."""
MOST_ATTEMPTS = 0xFFFF
"""A mark counts no further."""
Words = tuple[int, int]
words_at = struct.Struct("<QQ").unpack_from
"""The words of the mark at an offset of some bytes."""
_pack = struct.Struct("<QQ").pack
_MARK = struct.Struct("<BHHBeQ")
_WRITTEN = 0x80
"""Added to the state: no mark that was written is zero."""
CLAIMED = _WRITTEN | State.CLAIMED
"""The first byte of such a mark."""
FINAL = _WRITTEN | State.DONE, _WRITTEN | State.DEAD
_OWNED = CLAIMED, _WRITTEN | State.DELAYED
_STATES = {_WRITTEN | state: state for state in State}
_UNTOUCHED = Mark(State.WAITING)
_WINDOW = max(1 << 14, mmap.ALLOCATIONGRANULARITY)
"""Bytes that are mapped at once."""
_WINDOWS = 4
"""As many are kept, at most."""


@functools.lru_cache(1024)
def first_word(first: int, attempt: int, owner: int, beat: int, lease: float) -> int:
    """The first word of a mark at position 0, of which `first` is the first byte. Few different ones are needed again
    and again, and to find one is quicker than to make it."""
    raw = _MARK.pack(first, min(attempt, MOST_ATTEMPTS), 0, beat, lease, owner)
    return int.from_bytes(raw[:8], "little") | crc_hqx(raw, 0) << 24


def at_position(word: int, position: int) -> int:
    """The first word of a mark at position 0 as it is at another, and the other way round: bits 5 to 20 of the position
    are part of the checksum (bits 24 to 39)."""
    return word ^ (position & 0x1FFFE0) << 19


@functools.lru_cache(1024)
def words_of(mark: Mark) -> Words:
    """How a mark at position 0 is kept."""
    state, attempt, owner, beat, lease = mark
    return first_word(_WRITTEN | state, attempt, owner, beat, lease), owner


@functools.lru_cache(1024)
def _meaning(word: int, owner: int) -> Mark | None:
    """What a mark at position 0 says; None if it does not fit its checksum."""
    first, attempt, _, beat, lease, _ = _MARK.unpack(_pack(word, owner))
    if first not in _STATES or word != first_word(first, attempt, owner, beat, lease):
        return None
    return Mark(_STATES[first], attempt, owner, beat, lease)


def mark_of(word: int, owner: int, position: int) -> Mark:
    """What the words of a mark say. Raises `Unreadable`."""
    if not word:
        return _UNTOUCHED
    mark = _meaning(at_position(word, position), owner if word & 0xFF in _OWNED else 0)
    if mark is None:
        raise Unreadable(f"the mark of the record at {position} does not fit its checksum")
    return mark


class MarkFile:
    """The file, by system calls. Not locked: the log does that."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def get(self, offset: int) -> Words:
        """The words of the mark at an offset. pread. Raises `Unreadable`."""
        raw = os.pread(self._fd, SIZE, offset)
        if len(raw) == SIZE:
            word, owner = words_at(raw)
            return word, owner
        if raw:
            raise Unreadable("the marks end in the middle of one")
        return 0, 0

    def put(self, offset: int, word: int, owner: int) -> None:
        """The words of a mark, whatever they were, all at once. pwrite."""
        os.pwrite(self._fd, _pack(word, owner), offset)

    def put_first(self, offset: int, word: int, owner: int) -> Words | None:
        """The words of a mark that was never written; else what it says, and it stays. pread, pwrite."""
        words = self.get(offset)
        if words[0]:
            return words
        self.put(offset, word, owner)
        return None

    def read(self, size: int, offset: int) -> bytes:
        """pread: of many marks at once."""
        return os.pread(self._fd, size, offset)

    def write(self, data: bytes, offset: int) -> None:
        """pwrite: of many marks at once. Killed in the middle, each of them is the old or the new one."""
        write_all(self._fd, data, offset)

    def forget_from(self, offset: int) -> None:
        """Nothing is marked from `offset` on. The window that it lies in stays there: others may have mapped it."""
        kept = -(-offset // _WINDOW) * _WINDOW
        size = os.fstat(self._fd).st_size
        if size > kept:
            os.ftruncate(self._fd, kept)
        if size > offset:
            write_all(self._fd, bytes(min(size, kept) - offset), offset)

    def sync(self) -> None:
        """They are on the disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class MappedMarkFile(MarkFile):
    """The same, single marks by stores into memory: no system call but once in so many marks."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._windows: dict[int, memoryview] = {}
        """The words of each window that is mapped, by its number."""

    def _map(self, number: int) -> memoryview:
        begin = number * _WINDOW
        os.posix_fallocate(self._fd, begin, _WINDOW)
        if len(self._windows) >= _WINDOWS:
            del self._windows[next(iter(self._windows))]
        words = self._windows[number] = memoryview(mmap.mmap(self._fd, _WINDOW, offset=begin)).cast("Q")
        return words

    def get(self, offset: int) -> Words:
        words = self._windows.get(offset // _WINDOW) or self._map(offset // _WINDOW)
        at = offset % _WINDOW >> 3
        return words[at], words[at + 1]

    def put(self, offset: int, word: int, owner: int) -> None:
        """Killed between the stores, it is the old one: its owner does not count."""
        words = self._windows.get(offset // _WINDOW) or self._map(offset // _WINDOW)
        at = offset % _WINDOW >> 3
        if word & 0xFF in _OWNED and words[at + 1] != owner:
            if words[at] & 0xFF in _OWNED:
                return super().put(offset, word, owner)
            words[at + 1] = owner
        words[at] = word
        return None

    def put_first(self, offset: int, word: int, owner: int) -> Words | None:
        words = self._windows.get(offset // _WINDOW) or self._map(offset // _WINDOW)
        at = offset % _WINDOW >> 3
        if words[at]:
            return words[at], words[at + 1]
        words[at + 1] = owner
        words[at] = word
        return None

    def close(self) -> None:
        self._windows.clear()
        super().close()
