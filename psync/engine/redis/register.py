"""A register on the server: a string that is read with one GET, and changed by who holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psync.engine.contract import Register, Update
from psync.engine.redis import stored
from psync.errors import CorruptValue

if TYPE_CHECKING:
    from psync.engine.redis.engine import RedisEngine


class RedisRegister(Register):
    def __init__(self, engine: RedisEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._key = name.encode()

    def __repr__(self) -> str:
        return f"<RedisRegister {self._name!r}>"

    def read(self) -> bytes | None:
        return self._payload(self._engine.server.get(b"r:", self._key))

    def update(self, function: Update) -> bytes | None:
        """Two round trips: take hold and read; write and let go."""
        return self._engine.change_held(b"r:", self._key, self._payload, function)

    def _payload(self, data: bytes | None) -> bytes | None:
        if data is None:
            return None
        try:
            return stored.uncell(data)[0]
        except stored.Unreadable as error:
            text = f"the register {self._name!r} is damaged ({error}); its bytes stay at {self._name!r}"
            raise CorruptValue(text, key=self._name, path=self._name, reason=str(error)) from error
