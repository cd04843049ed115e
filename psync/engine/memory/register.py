"""A register in memory is a cell; its seats are words of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psync.engine.contract import Register, Update
from psync.engine.seats import Looked, Seat, Seats

if TYPE_CHECKING:
    from psync.engine.memory.engine import MemoryEngine

FREE = Seat(0, 0)


class MemoryRegister(Register):
    def __init__(self, engine: MemoryEngine, name: str, seats: Seats | None) -> None:
        self._engine = engine
        self._name = name
        self.seats = seats

    def read(self) -> bytes | None:
        cell = self._engine.read(self._name)
        return None if cell is None else cell.payload

    def update(self, function: Update) -> bytes | None:
        return self._engine.update(self._name, function)


class MemorySeats(Seats):
    def __init__(self, engine: MemoryEngine, name: str, count: int) -> None:
        super().__init__()
        self.count = count
        self._engine = engine
        self._name = name

    def look(self) -> Looked:
        with self._engine._turn("look at the seats of", self._name) as space:
            return space.seats.get(self._name, Looked((FREE,) * self.count, 0))

    def put(self, seat: int, owner: int, word: int) -> None:
        self._set("put a word beside", seat, Seat(owner, word))

    def give(self, seat: int, owner: int) -> None:
        self._set("give a seat of", seat, Seat(owner, 0))

    def _set(self, verb: str, seat: int, what: Seat) -> None:
        with self._engine._turn(verb, self._name) as space:
            seats, closed = space.seats.get(self._name, Looked((FREE,) * self.count, 0))
            space.seats[self._name] = Looked((*seats[:seat], what, *seats[seat + 1 :]), closed)

    def close(self, number: int) -> None:
        with self._engine._turn("close the seats of", self._name) as space:
            seats, _ = space.seats.get(self._name, Looked((FREE,) * self.count, 0))
            space.seats[self._name] = Looked(seats, number)
