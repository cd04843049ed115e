"""What was read is remembered as bytes with its version, as much as fits; each read unpickles a copy of its own."""

from __future__ import annotations

from psync.engine.contract.values import Cell

LARGEST = 1 << 20
"""Bytes: larger values are read again each time, which costs little beside unpickling them."""
ROOM = 64 << 20
"""Bytes of all that is remembered; what was read first goes first."""


class Cache:
    """Pickled values by key. Threads may share it: a lost update only costs another read."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self._used = 0

    def remember(self, key: str, cell: Cell) -> None:
        if len(cell.payload) > LARGEST:
            self.forget(key)
            return
        old = self.cells.get(key)
        self.cells[key] = cell
        self._used += len(cell.payload) - (len(old.payload) if old else 0)
        while self._used > ROOM and self.cells:
            self.forget(next(iter(self.cells)))

    def forget(self, key: str) -> None:
        cell = self.cells.pop(key, None)
        if cell is not None:
            self._used -= len(cell.payload)

    def clear(self) -> None:
        self.cells.clear()
        self._used = 0
