"""Every test here needs the tracer, and a process that strikes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash import ptrace, small_process


@pytest.fixture(autouse=True, scope="session")
def helper() -> Iterator[None]:
    end = small_process.start()
    yield
    end()


@pytest.fixture(autouse=True)
def tracer() -> None:
    if reason := ptrace.unavailable():
        pytest.skip(reason)
