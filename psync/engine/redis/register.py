"""A register on the server: a string that is read with one GET, and replaced by who knows what stands there.

The fact that decides: whether its version is the one that the change was made from, in the script that writes it.
"""

from __future__ import annotations

from psync.engine.contract.register import Register
from psync.engine.contract.values import Update
from psync.engine.redis import encoding, lua
from psync.engine.redis.client import Server
from psync.errors import CorruptValue, PsyncError

REFUSALS = PsyncError, ValueError, TypeError, RuntimeError
"""How those above refuse a change; all else that is raised meanwhile, by a signal's handler, say, goes on its way."""


class RedisRegister(Register):
    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._key = name.encode()
        self._known: bytes | None = None
        """What stood there when this handle read or wrote it last."""

    def __repr__(self) -> str:
        return f"<RedisRegister {self._name!r}>"

    def read(self) -> bytes | None:
        return self._payload(self._fetch())

    def _fetch(self) -> bytes | None:
        data = self._known = self._server.get(b"r:", self._key)
        return data

    def update(self, function: Update) -> bytes | None:
        """A round trip if nobody else changed it since this handle saw it; else one more, and one for each who comes
        first meanwhile. Nobody is kept out: what is written replaces what `function` was given, or nothing."""
        data, sure = self._known, False
        if data is None:
            data, sure = self._fetch(), True
        while True:
            try:
                old = self._payload(data)
                new = function(old)
            except REFUSALS:
                if sure:
                    raise
                old = new = None  # of what does not stand there any more, perhaps
            if new is not None and new is not old:
                fresh = encoding.cell(bytes(new))
                _, won, *now = self._server.run(lua.SWAP, self._key, (data or b"")[: encoding.VERSION], fresh)
                if won:
                    self._known = fresh
                    return new
                data, sure = now[0], True
            elif sure:
                return old
            else:
                data, sure = self._fetch(), True

    def _payload(self, data: bytes | None) -> bytes | None:
        if data is None:
            return None
        try:
            return encoding.uncell(data)[0]
        except encoding.Unreadable as error:
            text = f"the register {self._name!r} is damaged ({error}); its bytes stay at {self._name!r}"
            raise CorruptValue(text, key=self._name, path=self._name, reason=str(error)) from error
