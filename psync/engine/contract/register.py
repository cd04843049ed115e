"""The contract of a register describes a small shared value, and slots beside it that one owner each writes.

A slot's owner writes its word without a lock, so it waits for nobody. That is cheaper than a change of the register: it
saves the two system calls of a lock, or the lock request to a server. The fact that decides: every read that begins
after a word was put sees that word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from psync.engine.contract.values import Update
from psync.engine.system.reentry import Section


class Slot(NamedTuple):
    owner: int
    """0: the slot is free."""
    word: int


class SlotsRead(NamedTuple):
    """One read of all slots. `closed`, which is 0 at first, is no older than any of the words."""

    slots: Sequence[Slot]
    closed: int


class Slots(ABC):
    """The slots of one register in one process, whose threads share this one object."""

    count: int
    """The number of slots."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        self.section = Section("the slots of a barrier")
        """Excludes the other threads of this process that use the slots."""
        self.known: Any = None
        """State that these threads keep between their calls."""

    @abstractmethod
    def look(self) -> SlotsRead:
        """Read all slots as they are now."""

    @abstractmethod
    def words(self, slots: Sequence[int]) -> tuple[Sequence[int], int]:
        """Read the words of some slots, and `closed`, as `look` would see them."""

    @abstractmethod
    def put(self, slot: int, word: int) -> None:
        """Write `word`, of at most 64 bits, to a slot that is this owner's. One thread at a time, and not within
        `Register.update`."""

    # -- only within `Register.update` of the register ---------------------------------------------------

    @abstractmethod
    def give(self, slot: int, owner: int) -> None:
        """Assign a slot that is free, or whose owner has ended, to `owner`, with the word 0."""

    @abstractmethod
    def close(self, number: int) -> None:
        """Set `SlotsRead.closed` to `number`."""


class Register(ABC):
    """A register holds a small value that many processes read and change all the time. Handles may be kept.

    It differs from a cell in that it stays open. Do not use cell verbs on a register's name. Its payload is any bytes,
    mostly a few hundred.
    """

    slots: Slots | None = None
    """The slots beside the payload, each written by one owner; None where the engine has none."""

    @abstractmethod
    def read(self) -> bytes | None:
        """Read the payload, never torn or stale; None if it was never set. Raises `CorruptValue`."""

    @abstractmethod
    def update(self, function: Update) -> bytes | None:
        """Replace the payload by ``function(payload)`` and return it; nobody else changes it in between.

        `function` gets None if the payload was never set. Returning None, or the very object it was given, leaves it as
        it is. It must be short, and must not use this register. Either other writers wait while it runs, or they don't,
        and it is called again if one of them was first: only its last call counts.
        """
