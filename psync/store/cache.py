"""Value cache: keeps the pickled values that were read, with their versions; each read unpickles a copy of its own."""

from __future__ import annotations

from psync.engine.contract.values import Cell

MAX_VALUE_BYTES = 1 << 20
"""A larger value is read again each time, which costs little compared with unpickling it."""
MAX_CACHE_BYTES = 64 << 20
"""The value that was read first is evicted first."""


class Cache:
    """Pickled values by key. Threads may share it: a lost update only costs another read."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self._used = 0

    def remember(self, key: str, cell: Cell) -> None:
        if len(cell.payload) > MAX_VALUE_BYTES:
            self.forget(key)
            return
        old = self.cells.get(key)
        self.cells[key] = cell
        self._used += len(cell.payload) - (len(old.payload) if old else 0)
        while self._used > MAX_CACHE_BYTES and self.cells:
            self.forget(next(iter(self.cells)))

    def forget(self, key: str) -> None:
        cell = self.cells.pop(key, None)
        if cell is not None:
            self._used -= len(cell.payload)

    def clear(self) -> None:
        self.cells.clear()
        self._used = 0
