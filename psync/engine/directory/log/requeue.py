"""Where to look for the records of a log that were passed and can be taken again, and for those that are delayed.

A hint is left before what it speaks of is so: killed in between, somebody looks in vain. While ``front`` is locked.
"""

from __future__ import annotations

from collections.abc import Callable

from psync.engine.contract.log import State
from psync.engine.directory.log.inspect import LogLooks
from psync.engine.directory.log.state import (
    DELAYED,
    RETAKEN,
    RETURNED,
    ROOM,
)

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State


class LogHints(LogLooks):
    """The two files of hints."""

    def _hint(self, front: list[int], position: int, before: Callable[[], object] | None, *, first: bool) -> None:
        """Say that the record can be taken again before it is so: else nobody would come past it any more."""
        if before is not None:
            before()
        if front[RETAKEN] == front[RETURNED]:
            front[RETAKEN] = front[RETURNED] = ROOM
        if first and front[RETAKEN]:
            self._returned.put(front[RETAKEN] - 1, [position])
            front[RETAKEN] -= 1
        else:
            self._returned.put(front[RETURNED], [position])
            front[RETURNED] += 1
        self._front.save()

    def _hint_delayed(self, front: list[int], positions: list[int], before: Callable[[], object] | None = None) -> None:
        """Say that the records are DELAYED before they are so: else nobody would find them any more."""
        if before is not None:
            before()
        self._later.put(front[DELAYED], positions)
        front[DELAYED] += len(positions)
        self._front.save()

    def _next(self, front: list[int]) -> int:
        """The position of what was given back and not taken since."""
        position = self._returned.get(front[RETAKEN])
        front[RETAKEN] += 1
        return position
