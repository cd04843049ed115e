"""Inspect: read one record, list the delayed or unfinished ones, and count.

A reader locks ``front``, or reads it twice, so that it sees the log at one moment. It changes only entries of position
files, and it removes segments in which all records are final; a read-only log changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from psync.engine.contract.log import FINAL, Counts, Mark, Record, State
from psync.engine.directory.log.fields import Front, Tail
from psync.engine.directory.log.repair import CorruptionRepair, wrap_looks
from psync.engine.directory.log.state import LogState
from psync.engine.encoding.framing import Unreadable
from psync.engine.system.clock import monotonic

_DELAYED = State.DELAYED
MAX_RECORDS_IN_MEMORY = 500
"""Records that `unfinished` reads at a time."""
MAX_STALE_ENTRIES = 64
"""Entries of ``delayed`` that may lead to nothing, beyond as many as lead to records, before it is compacted."""
UNLOCKED_TRIES = 2
"""Attempts to count without the lock, which fail if a claimer is at work."""


class Inspector:
    """The reading verbs of one log."""

    def __init__(self, state: LogState, repair: CorruptionRepair) -> None:
        self._state = state
        self._repair = repair
        self._handle = state.handle
        self._tail = state.tail
        self._front = state.front
        self._segments = state.claiming
        self._presence = state.fs.presence

    @wrap_looks
    def read(self, position: int) -> Record | None:
        if not self._state.is_there():
            return None
        self._front.enter()
        try:
            end, base = self._state.read_reach()
            return self._segments.read(position, base) if 0 <= position < end else None
        except Unreadable:
            if self._state.lost.has(position):
                return None
            raise
        finally:
            self._front.leave()

    @wrap_looks
    def lost(self, position: int) -> bool:
        return self._state.lost.has(position)

    def unfinished(self) -> Iterator[Record]:
        begin: int | None = 0
        while begin is not None:
            found, begin = self._some_unfinished(begin)
            yield from found

    @wrap_looks
    def _some_unfinished(self, begin: int) -> tuple[list[Record], int | None]:
        """The first unfinished records from `begin` on, and the position at which to go on."""
        if not self._state.is_there():
            return [], None
        front = self._front.enter()
        try:
            end, base = self._state.read_reach()
            found: list[Record] = []
            for position, state, _ in self._segments.scan(max(begin, front.low), end, base, front.head):
                if len(found) == MAX_RECORDS_IN_MEMORY:
                    return found, position
                record = None if state in FINAL else self._segments.read(position, base)
                if record is not None and record.mark.state not in FINAL:
                    found.append(record)
            return found, None
        finally:
            self._front.leave()

    @wrap_looks
    def delayed(self) -> list[tuple[int, Mark]]:
        if not self._front.peek().delayed_count:
            return []
        front = self._front.enter()
        try:
            count = front.delayed_count
            end, base = self._state.read_reach()
            found: dict[int, Mark] = {}
            for position in self._state.delayed.first(count):
                status = self._segments.status(position, base) if position < end and position not in found else None
                if status is not None and status.state is _DELAYED:
                    found[position] = status
            if self._state.writable and (count > 2 * len(found) + MAX_STALE_ENTRIES or not found):
                # the entries that count move to the beginning, in order: after a kill in the middle, each is in its new
                # or in its old place
                self._state.delayed.put(0, list(found))
                front.delayed_count = len(found)
                self._front.save()
            return list(found.items())
        finally:
            self._front.leave()

    @wrap_looks
    def finished(self) -> bool:
        if not self._state.is_there():
            return True
        front = self._front.enter()
        try:
            end, base = self._state.read_reach()
            if not self._state.writable:
                return all(state in FINAL for _, state, _ in self._segments.scan(0, end, base))
            if self._state.raise_low(front, base, end):
                self._front.save()
            return front.low == end
        finally:
            self._front.leave()

    @wrap_looks
    def counts(self) -> Counts:
        """No system call if the headers are mapped and no claimer is at work.

        On a network file system READ, READ, READ; then, if a claimer was at work each time, LOCK, READ, READ, LOCKU.
        """
        if monotonic() > self._presence.due:
            self._front.look()
        for _ in range(UNLOCKED_TRIES):
            front = self._front.peek()
            tail = self._tail.peek()
            if self._front.peek() is front:  # so both are as they were at the moment of the second read
                return self._counted(front, tail)
        front = self._front.enter()
        try:
            return self._counted(front, self._tail.peek())
        finally:
            self._front.leave()

    def _counted(self, front: Front, tail: Tail) -> Counts:
        self._handle.noted, self._handle.sealed = front.note, bool(tail.sealed)
        waiting = tail.appended - front.passed + front.requeue_end - front.requeue_head - front.skipped
        waiting -= tail.appended_delayed - front.delayed_passed
        return Counts(max(0, waiting), tail.appended, tail.end, bool(tail.sealed))
