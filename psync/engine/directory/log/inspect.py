"""The verbs of a log that look: at one record, at all that are claimed or delayed, at how many there are.

They lock ``front``, or look at it twice, so that what they see is of one moment. What they change is only hints;
segments in which all is final are removed.
"""

from __future__ import annotations

from collections.abc import Iterator

from psync.engine.contract.log import FINAL, Counts, Mark, Record, State
from psync.engine.directory.log.header import Front, Tail
from psync.engine.directory.log.repair import Repair
from psync.engine.directory.log.segment_files import SEGMENT
from psync.engine.directory.log.state import in_words
from psync.engine.encoding.framing import Unreadable

_WAITING, _CLAIMED, _, _, _DELAYED = State
AT_ONCE = 500
"""Records that are in memory at a time, where all are gone through."""


class LogLooks(Repair):
    """What can be seen of one log."""

    @in_words
    def read(self, position: int) -> Record | None:
        self._front.enter()
        try:
            end, base, _ = self._look()
            return self._taken.read(position, base) if 0 <= position < end else None
        except Unreadable:
            if self._holes.has(position):
                return None
            raise
        finally:
            self._front.leave()

    @in_words
    def lost(self, position: int) -> bool:
        return self._holes.has(position)

    @in_words
    def claims(self) -> list[Record]:
        front = self._front.enter()
        try:
            end, base, _ = self._look()
            found = []
            for position, state, _ in self._taken.scan(front.low, end, base, front.head):
                if state is _CLAIMED:
                    record = self._taken.read(position, base)
                    if record is not None:
                        found.append(record)
                elif state is _WAITING and position >= front.head:
                    break  # nobody was ever further than this
            return found
        finally:
            self._front.leave()

    def unfinished(self) -> Iterator[Record]:
        begin: int | None = 0
        while begin is not None:
            found, begin = self._some_unfinished(begin)
            yield from found

    @in_words
    def _some_unfinished(self, begin: int) -> tuple[list[Record], int | None]:
        """The first from `begin` on, and where to go on."""
        front = self._front.enter()
        try:
            end, base, _ = self._look()
            found: list[Record] = []
            for position, state, _ in self._taken.scan(max(begin, front.low), end, base, front.head):
                if len(found) == AT_ONCE:
                    return found, position
                record = None if state in FINAL else self._taken.read(position, base)
                if record is not None and record.mark.state not in FINAL:
                    found.append(record)
            return found, None
        finally:
            self._front.leave()

    @in_words
    def delayed(self) -> list[tuple[int, Mark]]:
        front = self._front.enter()
        try:
            count = front.delayed_count
            if not count:
                return []
            end, base, _ = self._look()
            found: dict[int, Mark] = {}
            for position in self._later.first(count):
                mark = self._taken.mark(position, base) if position < end and position not in found else None
                if mark is not None and mark.state is _DELAYED:
                    found[position] = mark
            if count > 2 * len(found) + 64 or not found:
                # those that count move to the beginning, in order: killed in the middle, each is there or still there
                self._later.put(0, list(found))
                front.delayed_count = len(found)
                self._front.save()
            return list(found.items())
        finally:
            self._front.leave()

    @in_words
    def finished(self) -> bool:
        front = self._front.enter()
        try:
            reach = self._look()
            if self._raise_low(front, reach, reach[0]):
                self._front.save()
            return front.low == reach[0]
        finally:
            self._front.leave()

    def _raise_low(self, front: Front, reach: tuple[int, int, int], limit: int) -> bool:
        """Step over what is final, up to `limit`, and remove segments that hold nothing else; True if it was a step."""
        low = front.low
        front.low = self._taken.final_up_to(low, limit, reach[1], front.head)
        if low // SEGMENT != front.low // SEGMENT:
            self._taken.clear(front.low, reach[1])
        return low != front.low

    @in_words
    def counts(self) -> Counts:
        """No system call, if nobody takes in the middle of it and the files are mapped."""
        if self._mapped:
            for _ in range(3):
                front = self._front.peek()
                tail = self._tail.peek()
                if self._front.peek() is front:  # so both were as they are at the moment of the second look
                    return self._counted(front, tail)
        front = self._front.enter()
        try:
            return self._counted(front, self._tail.peek())
        finally:
            self._front.leave()

    def _counted(self, front: Front, tail: Tail) -> Counts:
        self.noted, self.sealed = front.note, bool(tail.sealed)
        waiting = tail.appended - front.passed + front.requeue_end - front.requeue_head - front.skipped
        waiting -= tail.appended_delayed - front.delayed_passed
        return Counts(max(0, waiting), tail.appended, tail.end, bool(tail.sealed))
