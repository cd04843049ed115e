"""A mutex on the server: a hold that any thread of its process may let go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from psync.engine.contract import Mutex
from psync.engine.redis import scripts
from psync.engine.redis.holds import Hold

if TYPE_CHECKING:
    from psync.engine.redis.engine import RedisEngine


class RedisMutex(Mutex):
    """`token` is 0 as soon as this process knows that it lost its lease; a server that is cut off can't tell it."""

    def __init__(self, engine: RedisEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._what = b"m:" + name.encode()
        self._held: Hold | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"<RedisMutex {self._name!r}{' held here' if self.token else ''}>"

    @property
    def token(self) -> int:  # type: ignore[override]
        held = self._mine()
        return held.token if held is not None and self._engine.owners.holds(held.session) else 0

    def _mine(self) -> Hold | None:
        return self._held if self._pid == os.getpid() else None

    def acquire(self, timeout: float | None = None) -> bool:
        hold = self._engine.holds.lay(self._what, timeout=timeout)
        if hold is None:
            return False
        self._held, self._pid = hold, os.getpid()
        self._engine.held_mutexes[self._what] = hold
        return True

    def release(self) -> None:
        hold = self._engine.held_mutexes.pop(self._what, None)
        if hold is None:
            raise RuntimeError("a mutex that is not held can't be released")
        self._held = None
        if not self._engine.holds.let_go(self._what, hold):
            raise RuntimeError(
                "the mutex is not held by this process any more: the server did not hear of it for longer than "
                "its lease"
            )

    def holder(self) -> int:
        return self._engine.owners.held_by(int(self._engine.server.run(scripts.HOLDER, self._what)[1]))
