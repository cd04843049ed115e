"""Status file: the mutable statuses of one segment's records, in a file beside it, at half the offset of their record.

So no status lies across the end of a page, and an appender never waits for the inode that claimers write to. A status
is two words. The first holds state, attempt, checksum, beat and lease (a half-precision float), the second the owner.
The owner counts, and the checksum covers it, only in a state that has one (CLAIMED, DELAYED). A status that was never
written is zero: WAITING.

The fact that decides is the first word. Where statuses lie in memory that the processes share, it is one store, which
no kill can tear. A claimer stores the owner first, which means nothing yet; a settle leaves the owner where it is. If
both words count before and after, or if a status is written by a system call, one `pwrite` of 16 bytes changes both.

Only windows that were allocated before are mapped (a store into a page that the disk has no room for kills the
process), and only on file systems that overwrite a page in place. Not promised: that a process survives if somebody
makes the file shorter while it has the file mapped.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from binascii import crc_hqx

from psync.engine.contract.log import Mark, State
from psync.engine.directory.fs.fd_cache import with_room
from psync.engine.directory.fs.syscalls import write_all
from psync.engine.encoding.framing import Unreadable

STATUS_BYTES = 16
"""Bytes of a status."""
MAX_ATTEMPTS = 0xFFFF
"""A status counts no further."""
Words = tuple[int, int]
words_at = struct.Struct("<QQ").unpack_from
"""The words of the status at an offset of some bytes."""
_pack = struct.Struct("<QQ").pack
_STATUS = struct.Struct("<BHHBeQ")
_WRITTEN = 0x80
"""Added to the state: no status that was written is zero."""
CLAIMED = _WRITTEN | State.CLAIMED
"""The first byte of the status of a CLAIMED record."""
FINAL = _WRITTEN | State.DONE, _WRITTEN | State.DEAD
_OWNED = CLAIMED, _WRITTEN | State.DELAYED
_STATES = {_WRITTEN | state: state for state in State}
_UNTOUCHED = Mark(State.WAITING)
WINDOW_BYTES = max(1 << 14, mmap.ALLOCATIONGRANULARITY)
"""Bytes that are mapped at once."""
MAX_WINDOWS = 4
"""Windows that stay mapped, at most."""


@functools.lru_cache(1024)
def first_word(first: int, attempt: int, owner: int, beat: int, lease: float) -> int:
    """The first word of a status at position 0 that begins with the byte `first`.

    Cached: few different ones are needed again and again, and a look-up is quicker than packing.
    """
    raw = _STATUS.pack(first, min(attempt, MAX_ATTEMPTS), 0, beat, lease, owner)
    return int.from_bytes(raw[:8], "little") | crc_hqx(raw, 0) << 24


def at_position(word: int, position: int) -> int:
    """Convert the first word of a status from position 0 to `position`, or back.

    Bits 5 to 20 of the position are part of the checksum (bits 24 to 39).
    """
    return word ^ (position & 0x1FFFE0) << 19


@functools.lru_cache(1024)
def words_of(status: Mark) -> Words:
    """The two words of a status at position 0."""
    state, attempt, owner, beat, lease = status
    return first_word(_WRITTEN | state, attempt, owner, beat, lease), owner


@functools.lru_cache(1024)
def _meaning(word: int, owner: int) -> Mark | None:
    """Parse the words of a status at position 0; None if they do not fit their checksum."""
    first, attempt, _, beat, lease, _ = _STATUS.unpack(_pack(word, owner))
    if first not in _STATES or word != first_word(first, attempt, owner, beat, lease):
        return None
    return Mark(_STATES[first], attempt, owner, beat, lease)


def status_of(word: int, owner: int, position: int) -> Mark:
    """Parse the words of the status of the record at `position`. Raises `Unreadable`."""
    if not word:
        return _UNTOUCHED
    status = _meaning(at_position(word, position), owner if word & 0xFF in _OWNED else 0)
    if status is None:
        raise Unreadable(f"the status of the record at {position} does not fit its checksum")
    return status


class StatusFile:
    """The file, by pread and pwrite. Not locked: the log does that."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def get(self, offset: int) -> Words:
        """The words of the status at an offset. pread. Raises `Unreadable`."""
        raw = os.pread(self._fd, STATUS_BYTES, offset)
        if len(raw) == STATUS_BYTES:
            word, owner = words_at(raw)
            return word, owner
        if raw:
            raise Unreadable("the statuses end in the middle of one")
        return 0, 0

    def put(self, offset: int, word: int, owner: int) -> None:
        """Overwrite both words of a status at once. pwrite."""
        os.pwrite(self._fd, _pack(word, owner), offset)

    def put_if_unwritten(self, offset: int, word: int, owner: int) -> Words | None:
        """Write a status if none was written there; else return the words that stay. pread, pwrite."""
        words = self.get(offset)
        if words[0]:
            return words
        self.put(offset, word, owner)
        return None

    def read(self, size: int, offset: int) -> bytes:
        """Read many statuses at once. pread."""
        return os.pread(self._fd, size, offset)

    def write(self, data: bytes, offset: int) -> None:
        """Write many statuses at once. After a kill in the middle, each is the old or the new one. pwrite."""
        write_all(self._fd, data, offset)

    def cut(self, offset: int) -> None:
        """Remove all statuses from `offset` on. The window around it stays allocated: other processes may map it."""
        kept = -(-offset // WINDOW_BYTES) * WINDOW_BYTES
        size = os.fstat(self._fd).st_size
        if size > kept:
            os.ftruncate(self._fd, kept)
        if size > offset:
            write_all(self._fd, bytes(min(size, kept) - offset), offset)

    def sync(self) -> None:
        """Write the statuses to the disk. fdatasync."""
        os.fdatasync(self._fd)

    def descriptors(self) -> int:
        return 1

    def close(self) -> None:
        os.close(self._fd)


class MappedStatusFile(StatusFile):
    """The file, with single statuses by stores into memory: no system call but one for each window."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._windows: dict[int, memoryview] = {}
        """The mapped windows, as words, by their number."""

    def _map(self, number: int) -> memoryview:
        begin = number * WINDOW_BYTES
        os.posix_fallocate(self._fd, begin, WINDOW_BYTES)
        if len(self._windows) >= MAX_WINDOWS:
            del self._windows[next(iter(self._windows))]
        window = with_room(lambda: mmap.mmap(self._fd, WINDOW_BYTES, offset=begin))
        words = self._windows[number] = memoryview(window).cast("Q")
        return words

    def get(self, offset: int) -> Words:
        words = self._windows.get(offset // WINDOW_BYTES) or self._map(offset // WINDOW_BYTES)
        at = offset % WINDOW_BYTES >> 3
        return words[at], words[at + 1]

    def put(self, offset: int, word: int, owner: int) -> None:
        """After a kill between the stores the old status stands: its owner does not count."""
        words = self._windows.get(offset // WINDOW_BYTES) or self._map(offset // WINDOW_BYTES)
        at = offset % WINDOW_BYTES >> 3
        if word & 0xFF in _OWNED and words[at + 1] != owner:
            if words[at] & 0xFF in _OWNED:
                return super().put(offset, word, owner)
            words[at + 1] = owner
        words[at] = word
        return None

    def put_if_unwritten(self, offset: int, word: int, owner: int) -> Words | None:
        words = self._windows.get(offset // WINDOW_BYTES) or self._map(offset // WINDOW_BYTES)
        at = offset % WINDOW_BYTES >> 3
        if words[at]:
            return words[at], words[at + 1]
        words[at + 1] = owner
        words[at] = word
        return None

    def descriptors(self) -> int:
        return 1 + len(self._windows)  # a map has a descriptor of its own

    def close(self) -> None:
        self._windows.clear()
        super().close()
