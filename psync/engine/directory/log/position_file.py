"""Position file: an array of positions, each with a checksum, that leads to records of one kind.

``front`` counts the entries (see `header.Front`), and its lock covers every access.
"""

from __future__ import annotations

import os
import struct
from binascii import crc_hqx
from collections.abc import Sequence

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import CHANGE, open_made, read_all, write_all
from psync.engine.encoding.framing import Unreadable

ENTRY_BYTES = 8
POSITION_BITS = 48
"""Bits of the position in an entry; the upper 16 hold its checksum."""


def _check(position: int) -> int:
    return crc_hqx(position.to_bytes(6, "little"), 0xA5A5)


class PositionFile:
    """The file, which is kept open."""

    def __init__(self, path: str, fs: AtomicFiles) -> None:
        self._path = path
        self._trust = fs.trust
        self._flags = CHANGE | fs.direct
        self._fd = -1

    def _file(self) -> int:
        if self._fd < 0:
            self._fd = self._trust.checked(open_made(self._path, self._trust.access, self._flags), self._path)
        return self._fd

    def put(self, at: int, positions: Sequence[int]) -> None:
        """Write `positions` as the entries from number `at` on. pwrite."""
        checked = [position | _check(position) << POSITION_BITS for position in positions]
        write_all(self._file(), struct.pack(f"<{len(checked)}Q", *checked), at * ENTRY_BYTES)

    def get(self, at: int) -> int:
        """Entry number `at`. pread. Raises `Unreadable`."""
        return self._checked(int.from_bytes(os.pread(self._file(), ENTRY_BYTES, at * ENTRY_BYTES), "little"))

    def first(self, count: int) -> list[int]:
        """The first `count` entries. Raises `Unreadable`."""
        data = read_all(self._file(), count * ENTRY_BYTES)
        if len(data) < count * ENTRY_BYTES:
            raise Unreadable(f"{self._path} ends before its entry {count}")
        return [self._checked(entry) for entry in struct.unpack(f"<{count}Q", data)]

    def _checked(self, entry: int) -> int:
        position = entry & (1 << POSITION_BITS) - 1
        if entry >> POSITION_BITS != _check(position):
            raise Unreadable(f"an entry of {self._path} does not fit its checksum")
        return position

    def descriptors(self) -> int:
        return int(self._fd >= 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
