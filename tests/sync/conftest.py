"""After each test, what it opened is closed: to find out that nobody uses it any more takes the collector long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from psync.engine import DirectoryEngine, forks


@pytest.fixture(autouse=True)
def engines_closed() -> Iterator[None]:
    yield
    for one in list(forks._concerned):
        if isinstance(one, DirectoryEngine):
            one.close()
