"""After the host was started anew a log is looked through once: records and marks say what ``tail`` and ``front`` are.

A power cut may have kept any pages and lost others; ``tail``, ``front`` and the hints are changed far too often to be
asked for each time. So a log whose `BOOT` is not this one is put in order by the first process that uses it:

* It ends behind the last record that was appended whole, with all that were appended with it. What lies behind that is
  nothing: a mark there would be taken for that of a later record.
* Positions, and with them the ids of tasks, are not used again, though the records that had them be lost: something
  else may still speak of them. One record that is DEAD takes their room, which is a hole from now on (see `holes`).
* FRONT lies behind every record that somebody was ever at; those of them that wait, or are delayed, are hinted at.

Everything is written before `BOOT` says that it was: killed in the middle, the next one begins anew.
"""

from __future__ import annotations

from psync.engine.contract.log import WAITING, Mark, State
from psync.engine.directory.log.group_commit import APPENDED, BASE, BOOT, END, LATER, MARKED, PENDING, PREPARED
from psync.engine.directory.log.record_format import HEAD
from psync.engine.directory.log.state import (
    ARRIVED,
    DELAYED,
    FRONT,
    LOW,
    RETAKEN,
    RETURNED,
    ROOM,
    SKIPPED,
    TAKEN,
    LogFiles,
)
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import boot_time

MARGIN = 1 << 26
"""Bytes that may have been appended since the kernel last wrote ``tail`` by itself, and lost."""


class Mending(LogFiles):
    """What every verb of a log asks for, first of all."""

    def _examine(self) -> None:
        """Once in each process: is this log as it was in this boot of the host?"""
        now = boot_time.number()
        if self._mapped:  # else the boot that counts is the server's
            tail, damaged = self._tail.enter_damaged()
            try:
                if damaged is not None and any(damaged):
                    raise Unreadable("its numbers do not fit their checksum")  # zeros are what a power cut leaves
                if tail[BOOT] != now:
                    bases = self._taken.bases()
                    if bases or tail[END]:
                        self._mend(tail, bases)
                    tail[PREPARED] = tail[PENDING] = tail[MARKED] = 0
                    tail[BOOT] = now
                    self._tail.save()
            finally:
                self._tail.leave()
        self._examined = True

    def _mend(self, tail: list[int], bases: list[int]) -> None:
        files = self._taken
        front, _ = self._front.enter_damaged()
        try:
            tail[END], more = files.follow(max([tail[END], *bases[:1]]))
            tail[APPENDED] += more
            tail[BASE] = files.drop_behind(tail[END])
            self._fill(tail)
            self._find_front(tail, front, bases[0] if bases else tail[END])
            self._front.save()
        except BaseException:
            self.spoil()
            raise
        finally:
            self._front.leave()

    def _count_from_records(self, tail: list[int], count: int) -> None:
        """`tail` was lost: so many records are left of all that were ever appended."""
        tail[APPENDED] = count

    def _fill(self, tail: list[int]) -> None:
        """The positions that may have been given before, and be lost."""
        end, base = tail[END], tail[BASE]
        payload = bytes(MARGIN - HEAD)
        self._holes.add(end, end + MARGIN)
        self._taken.fill(payload, end, base)
        self._taken.write_mark(end, base, Mark(State.DEAD, 1))
        tail[END] += MARGIN
        tail[APPENDED] += 1

    def _find_front(self, tail: list[int], front: list[int], low: int) -> None:
        end, base = tail[END], tail[BASE]
        touched, rest = low, 0
        for position, state, size in self._taken.scan(low, end, base):
            rest += 1
            if state is not State.WAITING:
                touched, rest = position + size, 0
        waiting, delayed = [], []
        for position, state, _ in self._taken.scan(low, touched, base):
            if state is State.WAITING:
                waiting.append(position)
            elif state is State.DELAYED:
                delayed.append(position)
        for position in waiting:  # a mark, even of those that nobody was ever at: where FRONT has passed there is one
            self._taken.write_mark(position, base, self._taken.mark(position, base) or WAITING)
        if waiting:
            self._returned.put(ROOM, waiting)
        if delayed:
            self._later.put(0, delayed)
        front[FRONT], front[LOW], front[TAKEN] = touched, low, tail[APPENDED] - rest
        front[RETAKEN], front[RETURNED], front[DELAYED] = ROOM, ROOM + len(waiting), len(delayed)
        front[SKIPPED], front[ARRIVED] = 0, tail[LATER]
