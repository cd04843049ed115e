"""A log on a network file system: many who find nothing to take must not queue for a lock to find it again.

Who found nothing last time looks first, at ``front`` and ``tail``, without a lock: READ, READ. A take is LOCK, READ,
READ, WRITE, WRITE, LOCKU, and two READs more for what was not read ahead; of many at once, little more. An append is
LOCK, READ, WRITE, WRITE, LOCKU; an answer READ, WRITE; a claim that goes on the same. Many of those, if their records
lie in a row, are the same, too, and an append for each bucket that gets letters. `tests/nfs/test_costs.py` counts them,
with the FREE_STATEID that follows each LOCKU on version 4.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator

from psync.engine.contract.log import Counts, Mark, Record
from psync.engine.directory.log.header import Front
from psync.engine.directory.log.log import DirectoryLog
from psync.engine.directory.log.state import in_words
from psync.engine.directory.notify.nfs_poll import ChangeToken


class NetworkLog(DirectoryLog):
    _marks_of: tuple[int, tuple[str, ...]] = -1, ()
    """Where the log ended when its files of marks were listed, and those files."""
    _dry = False
    """Whether the last take found nothing."""

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        if self._dry and self._is_dry():
            return []
        taken = super().take(owner, limit, beat, lease)
        self._dry = not taken
        self._passed = self._front.values.head
        return taken

    @in_words
    def _front_now(self) -> Front:
        return self._front.peek()

    @in_words
    def _is_dry(self) -> bool:
        front = self._front.peek()
        self.noted = front.note
        return front.head >= self._look()[0] and front.requeue_head == front.requeue_end

    @in_words
    def counts(self) -> Counts:
        """READ, READ, READ, if nobody takes in the middle of it; then LOCK, READ, READ, LOCKU."""
        for _ in range(2):
            front = self._front.peek()
            tail = self._tail.peek()
            if self._front.peek() is front:  # so both were as they are at the moment of the second look
                return self._counted(front, tail)
        return super().counts()

    def delayed(self) -> list[tuple[int, Mark]]:
        """READ, if there are none."""
        return super().delayed() if self._front_now().delayed_count else []

    def signs(self, *, final: bool) -> Iterator[ChangeToken]:
        """READ, READ. Where records become final, which only their marks show, two GETATTRs for each file of marks, of
        which there is mostly one, and a listing when the log has grown."""
        yield ChangeToken(f"{self._name}/log", self._numbers)
        if final:
            yield ChangeToken(f"{self._name}/log/marks", self._marked, exact=False)

    def _numbers(self, asked: dict[str, bool]) -> Hashable:
        return self._front.peek().pack(0), self._tail.peek().pack(0)

    def _marked(self, asked: dict[str, bool]) -> Hashable:
        shared = self._fs.shared
        assert shared is not None
        folder = os.path.dirname(self._tail.path)
        end = self._tail.peek().end
        if end != self._marks_of[0]:
            self._marks_of = end, tuple(name for name in shared.lookups.listing(folder) if name.endswith(".marks"))
        return tuple(shared.lookups.status(f"{folder}/{name}", asked) for name in self._marks_of[1])
