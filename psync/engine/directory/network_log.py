"""A log on a network file system: many who find nothing to take must not queue for a lock to find it again.

Who found nothing last time looks first, at ``front`` and ``tail``, without a lock: READ, READ. A take is LOCK, READ,
READ, READ, READ, WRITE, WRITE, LOCKU, less a READ for what was read ahead; of many at once, little more. An append is
LOCK, READ, WRITE, WRITE, LOCKU; an answer READ, WRITE.
"""

from __future__ import annotations

from psync.engine.contract import Counts, Record
from psync.engine.directory.log_files import FRONT, NOTE, RETAKEN, RETURNED, in_words
from psync.engine.directory.logs import DirectoryLog


class NetworkLog(DirectoryLog):
    _dry = False
    """Whether the last take found nothing."""

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        if self._dry and self._is_dry():
            return []
        taken = super().take(owner, limit, beat, lease)
        self._dry = not taken
        return taken

    @in_words
    def _is_dry(self) -> bool:
        front = self._front.peek()
        self.noted = front[NOTE]
        return front[FRONT] >= self._look()[0] and front[RETAKEN] == front[RETURNED]

    @in_words
    def counts(self) -> Counts:
        """READ, READ, READ, if nobody takes in the middle of it; then LOCK, READ, READ, LOCKU."""
        for _ in range(2):
            front = self._front.peek()
            tail = self._tail.peek()
            if self._front.peek() is front:  # so both were as they are at the moment of the second look
                return self._counted(front, tail)
        return super().counts()
