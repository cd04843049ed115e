"""A register in memory is a cell; its seats are words of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from psync.engine.contract.register import Looked, Register, Seat, Seats
from psync.engine.contract.values import Update

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
    """The last of those that are kept is what closes."""

    def __init__(self, engine: MemoryEngine, name: str, count: int) -> None:
        super().__init__()
        self.count = count
        self._engine = engine
        self._name = name

    def _all(self, verb: str) -> tuple[Seat, ...]:
        with self._engine._turn(verb, self._name) as space:
            return space.seats.get(self._name) or (FREE,) * (self.count + 1)

    def look(self) -> Looked:
        *seats, closed = self._all("look at the seats of")
        return Looked(seats, closed.word)

    def words(self, seats: Sequence[int]) -> tuple[Sequence[int], int]:
        found = self._all("look at words beside")
        return [found[seat].word for seat in seats], found[-1].word

    def put(self, seat: int, word: int) -> None:
        self._set("put a word beside", seat, None, word)

    def give(self, seat: int, owner: int) -> None:
        self._set("give a seat of", seat, owner, 0)

    def close(self, number: int) -> None:
        self._set("close the seats of", self.count, 0, number)

    def _set(self, verb: str, seat: int, owner: int | None, word: int) -> None:
        """`owner`: None if that stays the same."""
        with self._engine._turn(verb, self._name) as space:
            seats = space.seats.get(self._name) or (FREE,) * (self.count + 1)
            what = Seat(seats[seat].owner if owner is None else owner, word)
            space.seats[self._name] = (*seats[:seat], what, *seats[seat + 1 :])
