"""Requeue index: two position files that lead to records that were passed and can be claimed again, or are DELAYED.

An entry is written before the status that it leads to: after a kill in between, a claimer finds that the entry leads to
nothing. The other way round the record would be lost from sight. Every verb needs the lock on ``front``.
"""

from __future__ import annotations

from collections.abc import Callable

from psync.engine.directory.log.fields import Front
from psync.engine.directory.log.state import LogState

REQUEUE_ROOM_ENTRIES = 512
"""Free entries before the first one of ``returned``, for records that go back to the head of the queue."""


class RequeueIndex:
    """The position files ``returned`` and ``delayed`` of one log."""

    def __init__(self, state: LogState) -> None:
        self._requeued = state.requeued
        self._delayed = state.delayed
        self._header = state.front

    def add(self, front: Front, position: int, before: Callable[[], object] | None, *, first: bool) -> None:
        """Enter a record that becomes WAITING again, after `before` has run; `first`: it is the next to be claimed."""
        if before is not None:
            before()
        if front.requeue_head == front.requeue_end:
            front.requeue_head = front.requeue_end = REQUEUE_ROOM_ENTRIES
        if first and front.requeue_head:
            self._requeued.put(front.requeue_head - 1, [position])
            front.requeue_head -= 1
        else:
            self._requeued.put(front.requeue_end, [position])
            front.requeue_end += 1
        self._header.save()

    def add_delayed(self, front: Front, positions: list[int], before: Callable[[], object] | None = None) -> None:
        """Enter records that become DELAYED, after `before` has run."""
        if before is not None:
            before()
        self._delayed.put(front.delayed_count, positions)
        front.delayed_count += len(positions)
        self._header.save()

    def next(self, front: Front) -> int:
        """Move the requeue cursor over one entry; returns the position in it."""
        position = self._requeued.get(front.requeue_head)
        front.requeue_head += 1
        return position
