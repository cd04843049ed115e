"""Registers on the server: read with one GET, and changed by compare-and-swap.

The fact that decides: whether its version is the one that the change was made from, in the script that writes it.
"""

from __future__ import annotations

from psync.engine.contract.register import Register
from psync.engine.contract.values import Update
from psync.engine.redis import encoding, lua
from psync.engine.redis.client import Server
from psync.errors import CorruptValue, PsyncError

REFUSALS = PsyncError, ValueError, TypeError, RuntimeError
"""The errors with which a caller's function refuses a change; any other, from a signal's handler, say, is passed on."""


class RedisRegister(Register):
    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._key = name.encode()
        self._known: bytes | None = None
        """The bytes that this handle read or wrote last."""

    def __repr__(self) -> str:
        return f"<RedisRegister {self._name!r}>"

    def read(self) -> bytes | None:
        return self._payload(self._fetch())

    def _fetch(self) -> bytes | None:
        data = self._known = self._server.get(b"r:", self._key)
        return data

    def update(self, function: Update) -> bytes | None:
        """One round trip if no rival has changed the register since this handle saw it; else one more, and one for each
        rival that comes first meanwhile. It locks nothing: the new bytes replace those that `function` was given, or
        none."""
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
                old = new = None  # `function` refused bytes that a rival may have replaced since
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
