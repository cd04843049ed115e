"""The seats of a register on a network file system: the second half of its first page.

Each word is written by one `pwrite` of its own, with its owner and a check; nothing else is written there, whoever
changes the register, so no lock is needed. What closes lies behind the words, so that a reply, which is filled from its
beginning on, has no older one. The file is open with O_DIRECT, so all this is done by the server, one after the other.

look: READ. put, give, close: WRITE.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, TypeVar

from psync.engine.seats import Looked, Seat, Seats

if TYPE_CHECKING:
    from psync.engine.directory.network_register import NetworkRegister

T = TypeVar("T")
_WORD = struct.Struct("<QQQ")
"""An owner, its word, and a check; all 0 if it was never written."""
_CHECK = 0x9E3779B97F4A7C15
"""Makes the check of a word that was written differ from 0, and from what was written by anything else."""
_TRIES = 100


class PageSeats(Seats):
    def __init__(self, register: NetworkRegister, begin: int, end: int) -> None:
        super().__init__()
        self._register = register
        self._begin = begin
        self.count = (end - begin) // _WORD.size - 1

    def look(self) -> Looked:
        size = (self.count + 1) * _WORD.size
        for _ in range(_TRIES):
            data = self._register.at_hand(lambda fd: os.pread(fd, size, self._begin))
            words = list(_WORD.iter_unpack(data.ljust(size, b"\0")))
            if all(owner ^ word ^ _CHECK == check or not (owner or word or check) for owner, word, check in words):
                break  # else somebody was in the middle of writing one, or it is damaged, and counts for nothing
        seats = [Seat(owner, word) if owner ^ word ^ _CHECK == check else Seat(0, 0) for owner, word, check in words]
        return Looked(seats[:-1], seats[-1].word)

    def put(self, seat: int, owner: int, word: int) -> None:
        self._register.apart(lambda: self._write(seat, owner, word))

    def give(self, seat: int, owner: int) -> None:
        self._write(seat, owner, 0)

    def close(self, number: int) -> None:
        self._write(self.count, 0, number)

    def _write(self, seat: int, owner: int, word: int) -> None:
        data = _WORD.pack(owner, word, owner ^ word ^ _CHECK)
        self._register.at_hand(lambda fd: os.pwrite(fd, data, self._begin + seat * _WORD.size))
