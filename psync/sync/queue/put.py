"""How tasks come into a queue when that takes more than an append: priorities, delays, ids, and room for so many.

What decides is always an append to a log. Whoever has to look at something first (is the id known, is there room,
is the queue closed?) holds the main log meanwhile, so that nobody else who has to look can come in between.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import WAITING, Mark, Sealed
from psync.errors import QueueClosed
from psync.sync.queue.delays import until_later
from psync.sync.queue.priorities import BOUNDED, Level, Levels, Location
from psync.sync.queue.task_index import Ledger
from psync.sync.wait import LOOK_FOR_DEAD


def closed_error(name: str) -> QueueClosed:
    return QueueClosed(
        f"the queue {name!r} was closed: it takes no more tasks; reopen() lets it take some again", queue=name
    )


class Intake:
    """Puts tasks into one queue."""

    def __init__(self, engine: Engine, where: str, name: str, levels: Levels, ledger: Ledger, maxsize: int) -> None:
        self._engine = engine
        self._where = where
        self._name = name
        self._levels = levels
        self._main = levels.main.log
        self._ledger = ledger
        self._maxsize = maxsize

    def put(
        self, payloads: list[bytes], id: str | None, priority: int, delay: float, block: bool, timeout: float | None
    ) -> list[str]:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout!r}")
        level = self._levels.level(priority)
        mark = until_later(self._engine, delay) if delay else WAITING
        try:
            if id is None and not priority and not self._maxsize:
                return [Location(0, position).id for position in self._main.append(payloads, mark)]
            ids = self._put_held(level, payloads, id, mark)
            if ids is None:
                ids = self._await_room(lambda: self._put_held(level, payloads, id, mark), block, timeout)
            return ids
        except Sealed:
            raise closed_error(self._name) from None

    def _put_held(self, level: Level, payloads: list[bytes], id: str | None, mark: Mark) -> list[str] | None:
        """The ids of what was put; None if there is no room. Raises `Sealed`."""
        with self._main.held():
            if id is not None and self._ledger.is_known(id):
                return [id]
            if self._main.counts().sealed:
                raise Sealed
            if self._maxsize > 0 and self._levels.waiting() + len(payloads) > self._maxsize:
                return None
            # the record first: if we die before the id is known, whoever takes the record makes it known
            locations = [Location(level.priority, position) for position in level.append(payloads, mark)]
            if id is None:
                return [location.id for location in locations]
            self._ledger.set_location(id, locations[0])
            return [id]

    def _await_room(self, put: Callable[[], list[str] | None], block: bool, timeout: float | None) -> list[str]:
        deadline = None if timeout is None else self._engine.now() + timeout
        if block:
            self._main.note(lambda note: note | BOUNDED)  # who takes says so from now on
            with self._engine.watch([self._where + "/room"]) as watch:
                while (left := LOOK_FOR_DEAD if deadline is None else deadline - self._engine.now()) > 0:
                    if (ids := put()) is not None:
                        return ids
                    watch.pause(min(left, LOOK_FOR_DEAD))
        raise queue.Full
