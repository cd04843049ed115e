"""Store on a server: changes values for every part of the engine, once nobody else's lock is in the way.

Each change is one script. The fact that decides: whether the server runs it, or answers that a lock is in the way
(BUSY), that no value can stand there (NO_PLACE), or that the caller's own lock has ended with its lease (LOST).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from psync.engine.contract.values import Cell, Version
from psync.engine.redis import encoding, lua
from psync.engine.redis.client import Server
from psync.engine.redis.locks import LeaseLocks
from psync.engine.redis.lua import Script
from psync.engine.redis.pubsub import Channels
from psync.engine.redis.sessions import Sessions
from psync.errors import CorruptValue, InvalidKey

HIDDEN = ".psync"


class RedisStore:
    """The parts that buckets, logs, registers and mutexes share: server, session, locks, and changes of values."""

    def __init__(self, server: Server, grace: float) -> None:
        self.server = server
        self.sessions = Sessions(server)
        self.channels = Channels(server)
        self.locks = LeaseLocks(server, self.sessions, self.channels, grace)
        self.sound: set[bytes] = set()
        """Keys of the buckets that this process has read since they were created: their chunks are sound."""
        self.spares: Callable[[], bool] = bool
        """Whether damaged bytes stay where they are just now."""

    # -- changes -------------------------------------------------------------------------------------

    def put(self, script: Script, name: bytes, *arguments: Any) -> list[Any]:
        """Run a script that changes `name`, once nobody else holds it. Raises `InvalidKey` where no value can stand."""
        what = b"n:" + name
        return self.checked(what, self.locks.until_free(what, lambda: self.server.run(script, name, *arguments)))

    def checked(self, what: bytes, answer: list[Any]) -> list[Any]:
        """Return the answer of a script that changes `what`. Raises `InvalidKey`; `StoreFailed` for a lost lock."""
        if answer[0] == lua.NO_PLACE:
            name = what[2:].decode()
            why = "is a folder of values" if answer[1] == b"folder" else "lies below another value"
            raise InvalidKey(f"{name!r} can't hold a value: it {why}; use another key", key=name)
        if answer[0] == lua.LOST:
            raise self.locks.lost(what)
        return answer

    def append(self, parts: Sequence[tuple[bytes, bytes]], name: str, proof: bytes = b"") -> int:
        """Append items to buckets at one instant. Returns about how large the last one is now, 0 if one is foreign."""
        arguments = [x for key, ops in parts for x in (key, encoding.bucket_head(), encoding.chunk(ops))]
        while True:
            answer = self.server.run(lua.APPEND, proof, *arguments)
            if answer[0] != lua.BUSY:
                return int(self.checked(b"n:" + name.encode(), answer)[1])
            for key, _ in parts:
                self.until_let_go(b"n:" + key, proof)

    def until_let_go(self, what: bytes, shown: bytes = b"") -> None:
        """Return once nobody else holds `what`, as far as one look tells: at once if it is held by the proof that was
        `shown`. Raises `ReentrantCall` if a call that this one interrupts holds it."""

        def look() -> list[Any]:
            session = self.server.run(lua.HOLDER, what)[1]
            return [lua.OK] if session == b"0" else [lua.BUSY, session]

        held = self.locks.proof(what)
        if not held or held != shown:
            self.locks.until_free(what, look)

    # -- damage --------------------------------------------------------------------------------------

    def cell(self, name: str, data: bytes) -> Cell:
        """Decode the value at `name`. Raises `CorruptValue`, once the damaged bytes are in quarantine."""
        try:
            return Cell(*encoding.uncell(data))
        except encoding.Unreadable as error:
            raise self.damaged(name, str(error)) from error

    def damaged(self, name: str, reason: str) -> CorruptValue:
        """Move the damaged bytes at `name` to quarantine; returns the error to raise."""
        refuge = None if self.spares() else self.set_aside(name, reason)
        kept = f"its bytes are kept at {refuge}" if refuge else "its bytes were left where they are"
        text = f"the value of {name!r} is damaged ({reason}); {kept}. Set the key again"
        return CorruptValue(text, key=name, path=name, quarantine=refuge, reason=reason)

    def set_aside(self, name: str, reason: str, seen: Version | None = None) -> str | None:
        """Move the damaged bytes at `name` to quarantine: see `Engine.set_aside`."""
        if self.server.read_only:
            return None
        key = name.encode()
        data = self.server.get(b"n:", key)
        if data is None or not is_damaged(data, seen):
            return None
        refuge = f"{HIDDEN}/quarantine/{encoding.fresh().hex()}-{name.replace('/', '%2F')}"
        what = b"n:" + key
        proof = self.locks.proof(what)
        # The script moves only these very bytes: a value that a rival has set meanwhile stays.
        answer = self.locks.until_free(what, lambda: self.server.run(lua.MOVE, key, refuge.encode(), proof, data))
        return refuge if self.checked(what, answer)[1] else None

    def close(self) -> None:
        """End the session and give back the connections, which are opened again on the next use."""
        self.sessions.close()
        self.channels.close()
        self.server.close()


def is_damaged(data: bytes, seen: Version | None) -> bool:
    """Whether `data` fails its check; or, with `seen`, whether it still has that version (``()``: any)."""
    if seen is not None:
        return not seen or int.from_bytes(data[1:9], "little") == seen[0]
    try:
        encoding.uncell(data)
    except encoding.Unreadable:
        return True
    return False
