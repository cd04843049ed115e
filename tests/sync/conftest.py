"""After each test, what it opened is closed: to find out that nobody uses it any more takes the collector long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import close_engines


@pytest.fixture(autouse=True)
def engines_closed() -> Iterator[None]:
    yield
    close_engines()
