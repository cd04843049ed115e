"""Positions in a file, one after the other: where to look for records of some kind. Who counts them, and who may
write, is `logs`' matter."""

from __future__ import annotations

import os
import struct
from binascii import crc_hqx
from collections.abc import Sequence

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import CHANGE, open_made, read_all, write_all
from psync.engine.encoding.framing import Unreadable

_SIZE = 8
_BITS = 48
"""Of an entry, for the position; the others are its checksum."""


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
        """`positions` are the entries from number `at` on."""
        checked = [position | _check(position) << _BITS for position in positions]
        write_all(self._file(), struct.pack(f"<{len(checked)}Q", *checked), at * _SIZE)

    def get(self, at: int) -> int:
        """Raises `Unreadable`."""
        return self._checked(int.from_bytes(os.pread(self._file(), _SIZE, at * _SIZE), "little"))

    def first(self, count: int) -> list[int]:
        """Raises `Unreadable`."""
        data = read_all(self._file(), count * _SIZE)
        if len(data) < count * _SIZE:
            raise Unreadable(f"{self._path} ends before its entry {count}")
        return [self._checked(entry) for entry in struct.unpack(f"<{count}Q", data)]

    def _checked(self, entry: int) -> int:
        position = entry & (1 << _BITS) - 1
        if entry >> _BITS != _check(position):
            raise Unreadable(f"an entry of {self._path} does not fit its checksum")
        return position

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
