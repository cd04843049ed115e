"""Read-only engine: reads a store on a server; it writes and moves nothing, and is no owner."""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

from psync.engine.redis.client import Server
from psync.engine.redis.engine import RedisEngine
from psync.engine.redis.lua import Script
from psync.errors import StoreFailed


class _ReadOnlyServer(Server):
    read_only = True

    def run(self, script: Script, *arguments: Any) -> list[Any]:
        if script.changes:
            raise refused(self.address.shown)
        return super().run(script, *arguments)


class ReadOnlyEngine(RedisEngine):
    """The reading verbs. Every verb that would change something raises `StoreFailed`; damaged bytes stay where they
    are."""

    read_only = True
    serving = _ReadOnlyServer

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        raise refused(self.root)

    guard = owner = sweep = announce = _refuse


def refused(place: str) -> StoreFailed:
    return StoreFailed(
        "this engine only looks", key="", errno=errno.EROFS, strerror=os.strerror(errno.EROFS), filename=place
    )
