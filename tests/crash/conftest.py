"""Every test here needs the tracer, and a process that strikes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash import lean, ptrace


@pytest.fixture(autouse=True, scope="session")
def helper() -> Iterator[None]:
    end = lean.start()
    yield
    end()


@pytest.fixture(autouse=True)
def tracer() -> None:
    if reason := ptrace.unavailable():
        pytest.skip(reason)
