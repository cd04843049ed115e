"""Positions in a file, one after the other: where to look for records of some kind. Who counts them, and who may
write, is `logs`' matter."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from psync.engine.directory.files import CHANGE, open_made, read_all, write_all
from psync.engine.directory.whole import Whole

_SIZE = 8


class Entries:
    """The file, which is kept open."""

    def __init__(self, path: str, whole: Whole) -> None:
        self._path = path
        self._trust = whole.trust
        self._flags = CHANGE | whole.direct
        self._fd = -1

    def _file(self) -> int:
        if self._fd < 0:
            self._fd = self._trust.kept(open_made(self._path, self._trust.access, self._flags), self._path)
        return self._fd

    def put(self, at: int, positions: Sequence[int]) -> None:
        """`positions` are the entries from number `at` on."""
        write_all(self._file(), struct.pack(f"<{len(positions)}Q", *positions), at * _SIZE)

    def get(self, at: int) -> int:
        return int.from_bytes(os.pread(self._file(), _SIZE, at * _SIZE), "little")

    def first(self, count: int) -> list[int]:
        data = read_all(self._file(), count * _SIZE)
        return list(struct.unpack(f"<{len(data) // _SIZE}Q", data))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
