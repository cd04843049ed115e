"""Servers of the test's own, which it may kill, and lines to them, which it may cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import close_engines
from tests.redis.proxy import Proxy
from tests.redis_server import AOF, RedisServer, why_not


@pytest.fixture
def start() -> Iterator[Callable[..., RedisServer]]:
    """Starts a server with more options for redis-server."""
    if reason := why_not():
        pytest.skip(reason)
    running: list[RedisServer] = []

    def begin(*options: str, **terms: object) -> RedisServer:
        running.append(RedisServer(*options, **terms))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    close_engines()
    for thread in threading.enumerate():
        if thread.name == "psync leases":
            thread.join(2)  # it may be between two tries, and would go on trying when the server is gone
    for one in running:
        one.close()


@pytest.fixture
def server(start: Callable[..., RedisServer]) -> RedisServer:
    """Every command is on its disk before it is answered."""
    return start(*AOF)


@pytest.fixture
def line(server: RedisServer) -> Iterator[Proxy]:
    """To `server`."""
    proxy = Proxy(str(server.socket))
    yield proxy
    close_engines()
    proxy.close()
