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
from psync.engine.directory.log.header import Front, Tail
from psync.engine.directory.log.record_format import HEAD
from psync.engine.directory.log.state import ROOM, LogFiles
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
                if tail.boot != now:
                    bases = self._taken.bases()
                    if bases or tail.end:
                        self._mend(tail, bases)
                    tail.prepared_end = tail.prepared_count = tail.status_end = 0
                    tail.boot = now
                    self._tail.save()
            finally:
                self._tail.leave()
        self._examined = True

    def _mend(self, tail: Tail, bases: list[int]) -> None:
        files = self._taken
        front, _ = self._front.enter_damaged()
        try:
            tail.end, more = files.follow(max([tail.end, *bases[:1]]))
            tail.appended += more
            tail.base = files.drop_behind(tail.end)
            self._fill(tail)
            self._find_front(tail, front, bases[0] if bases else tail.end)
            self._front.save()
        except BaseException:
            self.spoil()
            raise
        finally:
            self._front.leave()

    def _count_from_records(self, tail: Tail, count: int) -> None:
        """`tail` was lost: so many records are left of all that were ever appended."""
        tail.appended = count

    def _fill(self, tail: Tail) -> None:
        """The positions that may have been given before, and be lost."""
        end, base = tail.end, tail.base
        payload = bytes(MARGIN - HEAD)
        self._holes.add(end, end + MARGIN)
        self._taken.fill(payload, end, base)
        self._taken.write_mark(end, base, Mark(State.DEAD, 1))
        tail.end += MARGIN
        tail.appended += 1

    def _find_front(self, tail: Tail, front: Front, low: int) -> None:
        end, base = tail.end, tail.base
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
        front.head, front.low, front.passed = touched, low, tail.appended - rest
        front.requeue_head, front.requeue_end, front.delayed_count = ROOM, ROOM + len(waiting), len(delayed)
        front.skipped, front.delayed_passed = 0, tail.appended_delayed
