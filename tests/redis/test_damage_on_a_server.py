"""What is said of damaged bytes on a server, and where they are then. These tests need no server."""

from __future__ import annotations

from typing import Any

from psync.engine.redis import lua
from psync.engine.redis.client import Server
from psync.engine.redis.lua import Script
from psync.engine.redis.store import RedisStore
from psync.engine.redis.url import parse


class OneValue(Server):
    """A server with one damaged value, at "a". A rival sets that anew just before it is moved, if `repaired`."""

    def __init__(self, *, repaired: bool = False) -> None:
        super().__init__(parse("redis://localhost:1"))
        self.repaired = repaired

    def get(self, kind: bytes, name: bytes) -> bytes | None:
        return b"damaged" if name == b"a" else None

    def run(self, script: Script, *arguments: Any) -> list[Any]:
        assert script is lua.MOVE
        return [lua.OK, int(not self.repaired)]


class OneValueToRead(OneValue):
    read_only = True


def test_damaged_bytes_are_said_to_be_where_they_were_moved() -> None:
    error = RedisStore(OneValue(), 0.5).damaged("a", "torn")
    assert error.quarantine and error.quarantine.startswith(".psync/quarantine/")
    assert f"its bytes are kept at {error.quarantine}" in str(error)


def test_what_was_not_moved_is_not_said_to_be_kept_anywhere() -> None:
    for server, name in ((OneValue(), "gone"), (OneValue(repaired=True), "a"), (OneValueToRead(), "a")):
        error = RedisStore(server, 0.5).damaged(name, "torn")
        assert error.quarantine is None
        assert "None" not in str(error) and "left where they are" in str(error)
