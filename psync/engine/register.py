"""A register that is a cell: for engines on which a cell is all that is needed."""

from __future__ import annotations

from psync.engine.contract import Engine, Register, Update


class CellRegister(Register):
    """The cell `name` of an engine, as a register."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def read(self) -> bytes | None:
        cell = self._engine.read(self._name)
        return None if cell is None else cell.payload

    def update(self, function: Update) -> bytes | None:
        return self._engine.update(self._name, function)
