"""A store to test: `store` opens handles of one and the same store, `db` is the first; on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from psync import PickleShareDB
from psync.engine import MemoryEngine
from tests.support import ENGINE, about_files


class Store:
    """One store. Calling it opens one more handle; all are closed when the test ends."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.root = root
        self.place = MemoryEngine() if kind == "memory" else root
        self.handles: list[PickleShareDB] = []

    def __call__(self) -> PickleShareDB:
        self.handles.append(PickleShareDB(self.place))
        return self.handles[-1]

    def close(self) -> None:
        for handle in self.handles:
            handle.close()


@pytest.fixture(params=[ENGINE] if ENGINE else ["directory", "memory"])
def store(request: pytest.FixtureRequest, root: Path) -> Iterator[Store]:
    opened = Store(request.param, root)
    yield opened
    opened.close()


@pytest.fixture
def db(store: Store) -> PickleShareDB:
    return store()


@pytest.fixture
def disk(root: Path) -> Iterator[Store]:
    """A store in a directory, for tests that look at its files."""
    about_files()
    opened = Store("directory", root)
    yield opened
    opened.close()
