"""Register slots: words beside a register, each written by one owner without a lock.

The slots take the second half of the register's first page. A slot is two numbers, its owner and its word. One store
or `pwrite` writes a word whole, and no update of the register writes there, so no lock is needed. The `closed` number
lies behind the words, and is read last.

In shared memory (`MappedSlots`) `put` is one store, and `look` some loads. That needs a processor on which other
processes see stores in the order in which they were made, and a fence between a process's own store and its loads after
that: of the supported ones that is x86, where taking or releasing a lock is such a fence.

On a network file system (`PageSlots`) the file is open with O_DIRECT, and the server does one request after the other.
It fills a reply from the beginning, so that `closed` is no older than the words. look, words: READ. put, give, close:
WRITE.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from psync.engine.contract.register import Slot, Slots, SlotsRead

T = TypeVar("T")

SLOTS_BYTES = 2048
"""Bytes of the page that are for slots."""
_SLOT = struct.Struct("<QQ")
SLOT_COUNT = SLOTS_BYTES // _SLOT.size - 1
_ALL = struct.Struct(f"<{2 * SLOT_COUNT + 2}Q")
_WORD = struct.Struct("<Q")


def _slots_read(numbers: Sequence[int]) -> SlotsRead:
    return SlotsRead([*map(Slot, numbers[:-2:2], numbers[1:-2:2])], numbers[-1])


class OpenPage(Protocol):
    """A register's file on a network file system, as far as its slots use it."""

    def with_file(self, use: Callable[[int], T]) -> T:
        """``use(descriptor)``, with the file open. `use` may write only within `apart` or `Register.update`."""

    def while_open(self, write: Callable[[], object]) -> None:
        """``write()``, while no thread closes the file, which is open for writing."""


class MappedPage(Protocol):
    """A register's page in shared memory, as far as its slots use it."""

    def numbers(self) -> memoryview:
        """The slots, two numbers each. They may be changed only within `Register.update`, or by `store_word`."""

    def store_word(self, at: int, number: int) -> None:
        """Store one number. Loads that this thread makes afterwards are made after the store."""

    def allocate(self) -> None:
        """Allocate the page on the disk: a store that finds no room would kill the process by SIGBUS."""


class PageSlots(Slots):
    """Slots read by `pread` and written by `pwrite`, where the server does one request after the other."""

    count = SLOT_COUNT

    def __init__(self, register: OpenPage, begin: int) -> None:
        super().__init__()
        self._register = register
        self._begin = begin

    def _numbers(self) -> tuple[int, ...]:
        data = self._register.with_file(lambda fd: os.pread(fd, SLOTS_BYTES, self._begin))
        return _ALL.unpack(data.ljust(SLOTS_BYTES, b"\0"))

    def look(self) -> SlotsRead:
        return _slots_read(self._numbers())

    def words(self, slots: Sequence[int]) -> tuple[Sequence[int], int]:
        numbers = self._numbers()
        return [numbers[2 * slot + 1] for slot in slots], numbers[-1]

    def put(self, slot: int, word: int) -> None:
        self._register.while_open(lambda: self._write(_WORD.pack(word), slot * _SLOT.size + _WORD.size))

    def give(self, slot: int, owner: int) -> None:
        self._write(_SLOT.pack(owner, 0), slot * _SLOT.size)

    def close(self, number: int) -> None:
        self._write(_SLOT.pack(0, number), SLOT_COUNT * _SLOT.size)

    def _write(self, data: bytes, at: int) -> None:
        self._register.with_file(lambda fd: os.pwrite(fd, data, self._begin + at))


class MappedSlots(Slots):
    """Slots read by loads and written by stores of words in shared memory. Only `give` makes a system call."""

    count = SLOT_COUNT

    def __init__(self, register: MappedPage) -> None:
        super().__init__()
        self._register = register
        self._fence = threading.RLock()  # a signal's handler may come in between

    def look(self) -> SlotsRead:
        return _slots_read(self._register.numbers())

    def words(self, slots: Sequence[int]) -> tuple[Sequence[int], int]:
        numbers = self._register.numbers()
        words = [numbers[2 * slot + 1] for slot in slots]
        return words, numbers[2 * SLOT_COUNT + 1]

    def put(self, slot: int, word: int) -> None:
        self._register.store_word(2 * slot + 1, word)

    def give(self, slot: int, owner: int) -> None:
        self._register.allocate()
        numbers = self._register.numbers()
        numbers[2 * slot + 1] = 0
        numbers[2 * slot] = owner

    def close(self, number: int) -> None:
        self._register.numbers()[2 * SLOT_COUNT + 1] = number
        with self._fence:
            pass
