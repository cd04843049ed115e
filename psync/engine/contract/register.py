"""Words beside a register, each of them written by one owner alone, without a lock: it waits for nobody.

That is cheaper than a change of the register: by two locks' system calls, or a lock that is asked of a server. What
decides is that a word that was put is in every look that begins after that.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from psync.engine.contract.values import Update


class Seat(NamedTuple):
    owner: int
    """0: it is free."""
    word: int


class Looked(NamedTuple):
    """What `Seats.look` saw. `closed`, which is 0 at first, is no older than any of the words."""

    seats: Sequence[Seat]
    closed: int


class Seats(ABC):
    """The seats of one register, in one process: it has one such object, which its threads share."""

    count: int
    """So many there are."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        """For who uses them, among the threads of this process."""
        self.known: Any = None
        """What those remember."""

    @abstractmethod
    def look(self) -> Looked:
        """All of them as they are now."""

    @abstractmethod
    def words(self, seats: Sequence[int]) -> tuple[Sequence[int], int]:
        """The words of some of them, and `closed`, as `look` would see them."""

    @abstractmethod
    def put(self, seat: int, word: int) -> None:
        """The word of a seat that is this owner's becomes `word`, of at most 64 bits. One thread at a time, and not
        within `Register.update`."""

    # -- only within `Register.update` of the register ---------------------------------------------------

    @abstractmethod
    def give(self, seat: int, owner: int) -> None:
        """A seat that is free, or whose owner has ended, is `owner`'s, and its word 0."""

    @abstractmethod
    def close(self, number: int) -> None:
        """`Looked.closed` is `number` from now on."""


class Register(ABC):
    """A small value that many look at and change, all the time: what a cell is, but kept at hand. Handles may be kept.

    Its name is no cell's: the verbs on cells must not be used on it. Its payload is any bytes, mostly a few hundred.
    """

    seats: Seats | None = None
    """Words beside the payload, each of one owner; None where they are not to be had."""

    @abstractmethod
    def read(self) -> bytes | None:
        """The payload, never torn or stale; None if it was never set. Raises `CorruptValue`."""

    @abstractmethod
    def update(self, function: Update) -> bytes | None:
        """The payload becomes ``function(payload)``, which is returned; nobody else changes it in between.

        `function` gets None if it was never set. Returning None, or the very object it was given, leaves it. Others
        who change it wait, so it must be short, and must not use this register; or they don't wait, and it is called
        again if they were first: what it did counts when this returns.
        """
