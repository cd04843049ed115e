"""Where to look for the records of a log that were passed and can be taken again, and for those that are delayed.

A hint is left before what it speaks of is so: killed in between, somebody looks in vain. While ``front`` is locked.
"""

from __future__ import annotations

from collections.abc import Callable

from psync.engine.contract.log import State
from psync.engine.directory.log.header import Front
from psync.engine.directory.log.inspect import LogLooks
from psync.engine.directory.log.state import ROOM

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State


class LogHints(LogLooks):
    """The two files of hints."""

    def _hint(self, front: Front, position: int, before: Callable[[], object] | None, *, first: bool) -> None:
        """Say that the record can be taken again before it is so: else nobody would come past it any more."""
        if before is not None:
            before()
        if front.requeue_head == front.requeue_end:
            front.requeue_head = front.requeue_end = ROOM
        if first and front.requeue_head:
            self._returned.put(front.requeue_head - 1, [position])
            front.requeue_head -= 1
        else:
            self._returned.put(front.requeue_end, [position])
            front.requeue_end += 1
        self._front.save()

    def _hint_delayed(self, front: Front, positions: list[int], before: Callable[[], object] | None = None) -> None:
        """Say that the records are DELAYED before they are so: else nobody would find them any more."""
        if before is not None:
            before()
        self._later.put(front.delayed_count, positions)
        front.delayed_count += len(positions)
        self._front.save()

    def _next(self, front: Front) -> int:
        """The position of what was given back and not taken since."""
        position = self._returned.get(front.requeue_head)
        front.requeue_head += 1
        return position
