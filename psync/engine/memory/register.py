"""Registers in memory: the payload is a cell; the slots are kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psync.engine.contract.register import Looked, Register, Seat, Seats
from psync.engine.contract.values import Cell, Update
from psync.engine.memory.turns import Turns

FREE = Seat(0, 0)


class MemoryRegister(Register):
    """`read` and `update` are the engine's verbs on cells."""

    def __init__(
        self,
        name: str,
        read: Callable[[str], Cell | None],
        update: Callable[[str, Update], bytes | None],
        seats: Seats | None,
    ) -> None:
        self._name = name
        self._read = read
        self._update = update
        self.seats = seats

    def read(self) -> bytes | None:
        cell = self._read(self._name)
        return None if cell is None else cell.payload

    def update(self, function: Update) -> bytes | None:
        return self._update(self._name, function)


class MemorySeats(Seats):
    """Behind the slots that can be taken, one more is kept: its word says whether they are closed."""

    def __init__(self, turns: Turns, name: str, count: int) -> None:
        super().__init__()
        self.count = count
        self._turns = turns
        self._name = name

    def _all(self, verb: str) -> tuple[Seat, ...]:
        with self._turns.turn(verb, self._name) as state:
            return state.seats.get(self._name) or (FREE,) * (self.count + 1)

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
        """Set the word of a slot, and its `owner` unless that is None."""
        with self._turns.turn(verb, self._name) as state:
            seats = state.seats.get(self._name) or (FREE,) * (self.count + 1)
            what = Seat(seats[seat].owner if owner is None else owner, word)
            state.seats[self._name] = (*seats[:seat], what, *seats[seat + 1 :])
