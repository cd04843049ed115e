"""Mutexes on the server: locks with a lease that any thread of their process may release."""

from __future__ import annotations

from psync.engine.contract.engine import Mutex
from psync.engine.redis import lua
from psync.engine.redis.locks import LeaseLock, LeaseLocks


class RedisMutex(Mutex):
    """`token` is 0 as soon as this process knows that it lost its lease; a server that is cut off can't tell it."""

    def __init__(self, locks: LeaseLocks, name: str) -> None:
        self._locks = locks
        self._name = name
        self._what = b"m:" + name.encode()

    def __repr__(self) -> str:
        return f"<RedisMutex {self._name!r}{' held here' if self.token else ''}>"

    @property
    def token(self) -> int:  # type: ignore[override]
        held = self._locks.mutexes.get(self._what)
        return held.token if held is not None and self._locks.sessions.is_ours(held.session) else 0

    def acquire(self, timeout: float | None = None) -> bool:
        def keep(lock: LeaseLock) -> None:
            self._locks.mutexes[self._what] = lock

        return self._locks.acquire(self._what, keep, timeout=timeout) is not None

    def release(self) -> None:
        was = self._locks.release(self._what, self._locks.mutexes, self._what)
        if was is None:
            raise RuntimeError("a mutex that is not held can't be released")
        if not was:
            raise RuntimeError(
                "the mutex is not held by this process any more: the server did not hear of it for longer than "
                "its lease"
            )

    def holder(self) -> int:
        return self._locks.sessions.living(int(self._locks.server.run(lua.HOLDER, self._what)[1]))
