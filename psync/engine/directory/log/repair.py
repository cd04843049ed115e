"""What is damaged in a log is put in order by whoever meets it: nothing is lost but what was damaged.

Called when something does not fit its checksum, it holds ``tail`` and ``front`` and looks again, at all that is not
known to be final (somebody may just have been in the middle of writing a mark):

* A record that is damaged, or whose mark is, can be taken by nobody any more: its bytes go to quarantine, it is DEAD,
  and where it was is a hole from now on (see `holes`). Where its length can't be known, it reaches to the next record
  that fits; a checksum covers its position, so nothing else looks like one.
* ``front`` and the hints are made anew from the marks, as after a power cut (see `mending`); ``tail`` from the records.

What was found is told by a RuntimeWarning each. Killed in the middle, the next one who meets the damage begins anew.
"""

from __future__ import annotations

import warnings

from psync.engine.directory.log.header import Tail
from psync.engine.directory.log.recovery import Mending
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import boot_time

PATIENCE = 3
"""So often in a row something may not fit though nothing is damaged: a mark was being written."""
EVERYTHING = (1 << 32) - 1
"""What a lost note says: who leaves one sets bits, and who takes does too much rather than too little."""


class Repair(Mending):
    """What a log does about damage."""

    _in_vain = 0

    def _repair(self, error: BaseException) -> bool:
        """True if the verb that met `error` is to be tried again."""
        if not isinstance(error, Unreadable):
            return False
        self.spoil()
        try:
            found = self._put_in_order()
        except (OSError, Unreadable):
            return False
        for told in found:
            warnings.warn(f"the log {self._name!r} was damaged: {told}", RuntimeWarning, stacklevel=5)
        self._in_vain = 0 if found else self._in_vain + 1
        return self._in_vain <= PATIENCE

    def _put_in_order(self) -> list[str]:
        """What was done, in words."""
        found: list[str] = []
        tail, damaged_tail = self._tail.enter_damaged()
        try:
            front, damaged_front = self._front.enter_damaged()
            try:
                bases = self._taken.bases()
                if damaged_tail is not None:
                    found.append(self._keep("tail", damaged_tail, "its numbers do not fit their checksum"))
                    self._find_tail(tail, bases)
                low, passed = front.low, front.head
                if damaged_front is not None:
                    found.append(self._keep("front", damaged_front, "its numbers do not fit their checksum"))
                    front.note = EVERYTHING
                if damaged_front is not None or tail.boot != boot_time.number():
                    low, passed = bases[0] if bases else tail.end, 0  # a power cut may have taken what was final, too
                found += self._retire_damaged(low, tail, passed)
                self._find_front(tail, front, low)
                self._tail.save()
                self._front.save()
            finally:
                self._front.leave()
        finally:
            self._tail.leave()
        return found

    def _find_tail(self, tail: Tail, bases: list[int]) -> None:
        files = self._taken
        tail.end, more = files.follow(bases[0] if bases else 0)
        if any(base > tail.end for base in bases):
            raise Unreadable("a record is damaged, too, and so it can't be told where the log ends")
        self._count_from_records(tail, more)
        tail.base = files.drop_behind(tail.end)
        tail.prepared_end = tail.prepared_count = 0
        tail.boot = boot_time.number()

    def _retire_damaged(self, low: int, tail: Tail, passed: int) -> list[str]:
        found = []
        files, position, end, base = self._taken, low, tail.end, tail.base
        files.close()  # what was read ahead may be what is damaged
        files.bases()
        while position < end:
            following, wrong = files.examine(position, end, base, passed)
            if wrong is not None:
                with self._settling:
                    self._claimed.pop(position, None)
                self._holes.add(position, following)
                data = files.retire(position, following, base)
                found.append(self._keep(f"{position:x}", data, str(wrong)))
            position = following
        return found

    def _keep(self, part: str, data: bytes, reason: str) -> str:
        refuge = self._fs.keep(f"{self._name}#{part}", data, reason)
        return f"{reason}; its bytes are kept at {refuge}"
