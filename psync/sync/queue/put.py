"""Producers: put tasks that need more than one append: with a priority, a delay, an id, or a limit on the queue.

The fact that decides is always an append to a log. A producer that must check something first (is the id known, is
there room, is the queue closed) holds the main log meanwhile, so that no other producer that checks can come in
between.
"""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable, Mapping
from typing import Any

from psync.engine.contract.log import WAITING, Mark, Sealed
from psync.errors import QueueClosed
from psync.sync.queue.delays import delayed_mark
from psync.sync.queue.priorities import NOTE_BOUNDED, Priorities, Priority
from psync.sync.queue.task_id import TaskLocation
from psync.sync.queue.task_index import TaskIndex
from psync.sync.wait import PROBE_INTERVAL_S


def closed_error(name: str) -> QueueClosed:
    """The error of every verb that a closed queue refuses."""
    return QueueClosed(
        f"the queue {name!r} was closed: it takes no more tasks; reopen() lets it take some again", queue=name
    )


class Producer:
    """Puts tasks into one queue."""

    def __init__(self, queue_name: str, priorities: Priorities, index: TaskIndex, maxsize: int) -> None:
        self._engine = priorities.engine
        self._queue_name = queue_name
        self._priorities = priorities
        self._main = priorities.main.log
        self._index = index
        self._maxsize = maxsize

    def put(
        self, payloads: list[bytes], id: str | None, priority: int, delay: float, block: bool, timeout: float | None
    ) -> list[str]:
        """See `WorkQueue.put` and `WorkQueue.put_many`."""
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout!r}")
        target = self._priorities.use(priority)
        mark = delayed_mark(self._engine, delay) if delay else WAITING
        try:
            if id is None and not priority and not self._maxsize:
                return [TaskLocation(0, position).id for position in self._main.append(payloads, mark)]
            put = functools.partial(self._put_locked, target, payloads, id, mark)
            return put() or self._wait_for_room(put, block, timeout)
        except Sealed:
            raise closed_error(self._queue_name) from None

    def _put_locked(self, target: Priority, payloads: list[bytes], id: str | None, mark: Mark) -> list[str] | None:
        """The ids of the tasks that were put; None if there is no room. Raises `Sealed`."""
        with self._main.held():
            if id is not None and self._index.is_known(id):
                return [id]
            if self._main.counts().sealed:
                raise Sealed
            if self._maxsize > 0 and self._priorities.waiting() + len(payloads) > self._maxsize:
                return None
            # The record before the id: after a crash in between, the consumer that claims the record makes the id
            # known. The other order would leave an id that leads nowhere, and the task would be lost.
            locations = [TaskLocation(target.number, position) for position in target.append(payloads, mark)]
            if id is None:
                return [location.id for location in locations]
            self._index.set_location(id, locations[0])
            return [id]

    def _wait_for_room(self, put: Callable[[], list[str] | None], block: bool, timeout: float | None) -> list[str]:
        deadline = None if timeout is None else self._engine.now() + timeout
        if block:
            self._main.note(lambda note: note | NOTE_BOUNDED)  # consumers announce free room from now on
            with self._engine.watch([self._priorities.where + "/room"]) as watch:
                while (left := PROBE_INTERVAL_S if deadline is None else deadline - self._engine.now()) > 0:
                    if ids := put():
                        return ids
                    watch.pause(min(left, PROBE_INTERVAL_S))
        raise queue.Full

    def put_new(self, values: Mapping[str, Any]) -> list[str]:
        """Put those tasks of `values` (id: value) whose id nobody put before; returns their ids. Raises `QueueClosed`.

        Each task exists once, however often and by how many processes it is put. One append for all, and one for each
        bucket that ids fall into, at most 256.
        """
        payloads = {id: self._priorities.codec.pack((id, value)) for id, value in values.items()}
        try:
            with self._main.held():
                new = (
                    [id for id in payloads if not self._index.is_known(id)] if self._index.knows_any() else [*payloads]
                )
                # The records before the ids, as in `_put_locked`. If a task is put again after a crash in between, one
                # of its two records is worked on: see `TaskIndex.is_duplicate`.
                positions = self._main.append([payloads[id] for id in new])
                locations = {id: TaskLocation(0, position) for id, position in zip(new, positions, strict=True)}
                self._index.set_locations(locations)
        except Sealed:
            raise closed_error(self._queue_name) from None
        return new
