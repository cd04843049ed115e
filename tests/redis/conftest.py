"""A server of the test's own, which it may kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import AOF, RedisServer, why_not


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Every command is on its disk before it is answered."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    running = RedisServer(*AOF)
    yield running
    running.close()
