"""A log's segments on a network file system: one that another host has cleared away may still be open here.

NFS says ESTALE then (or goes on showing it, which is as good: all in it is final). It is opened anew by name, and
found to be gone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TypeVar

from psync.engine.contract.log import Mark, Record
from psync.engine.directory.log.segment_recovery import Salvage
from psync.engine.directory.log.status_batch import MarkRuns

T = TypeVar("T")


class NetworkSegments(Salvage):
    def _once_more(self, verb: Callable[[], T]) -> T:
        try:
            return verb()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        self.close()
        return verb()

    def mark(self, position: int, tail: int) -> Mark | None:
        return self._once_more(lambda: super(NetworkSegments, self).mark(position, tail))

    def marks_at(self, positions: Sequence[int], tail: int) -> MarkRuns:
        return self._once_more(lambda: super(NetworkSegments, self).marks_at(positions, tail))

    def read(self, position: int, tail: int) -> Record | None:
        return self._once_more(lambda: super(NetworkSegments, self).read(position, tail))

    def exchange_mark(
        self, position: int, tail: int, held: Mark, new: Mark, before: Callable[[], object] | None
    ) -> bool:
        """`before` may run twice, as after a crash."""
        return self._once_more(lambda: super(NetworkSegments, self).exchange_mark(position, tail, held, new, before))

    def claim(
        self, position: int, end: int, tail: int, owner: int, beat: int, lease: float
    ) -> tuple[Record | None, int, Mark | None]:
        return self._once_more(lambda: super(NetworkSegments, self).claim(position, end, tail, owner, beat, lease))

    def final_up_to(self, begin: int, end: int, tail: int, passed: int = 0) -> int:
        return self._once_more(lambda: super(NetworkSegments, self).final_up_to(begin, end, tail, passed))
