"""Registers in memory: the payload is a cell; the slots are kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psync.engine.contract.register import Register, Slot, Slots, SlotsRead
from psync.engine.contract.values import Cell, Update
from psync.engine.memory.turns import Turns

FREE = Slot(0, 0)


class MemoryRegister(Register):
    """`read` and `update` are the engine's verbs on cells."""

    def __init__(
        self,
        name: str,
        read: Callable[[str], Cell | None],
        update: Callable[[str, Update], bytes | None],
        slots: Slots | None,
    ) -> None:
        self._name = name
        self._read = read
        self._update = update
        self.slots = slots

    def read(self) -> bytes | None:
        cell = self._read(self._name)
        return None if cell is None else cell.payload

    def update(self, function: Update) -> bytes | None:
        return self._update(self._name, function)


class MemorySlots(Slots):
    """Behind the slots that can be taken, one more is kept: its word says whether they are closed."""

    def __init__(self, turns: Turns, name: str, count: int) -> None:
        super().__init__()
        self.count = count
        self._turns = turns
        self._name = name

    def _all(self, verb: str) -> tuple[Slot, ...]:
        with self._turns.turn(verb, self._name) as state:
            return state.slots.get(self._name) or (FREE,) * (self.count + 1)

    def look(self) -> SlotsRead:
        *slots, closed = self._all("look at the slots of")
        return SlotsRead(slots, closed.word)

    def words(self, slots: Sequence[int]) -> tuple[Sequence[int], int]:
        found = self._all("look at words beside")
        return [found[slot].word for slot in slots], found[-1].word

    def put(self, slot: int, word: int) -> None:
        self._set("put a word beside", slot, None, word)

    def give(self, slot: int, owner: int) -> None:
        self._set("give a slot of", slot, owner, 0)

    def close(self, number: int) -> None:
        self._set("close the slots of", self.count, 0, number)

    def _set(self, verb: str, slot: int, owner: int | None, word: int) -> None:
        """Set the word of a slot, and its `owner` unless that is None."""
        with self._turns.turn(verb, self._name) as state:
            slots = state.slots.get(self._name) or (FREE,) * (self.count + 1)
            what = Slot(slots[slot].owner if owner is None else owner, word)
            state.slots[self._name] = (*slots[:slot], what, *slots[slot + 1 :])
