"""Every test here needs the tracer."""

from __future__ import annotations

import pytest

from tests.crash import ptrace


@pytest.fixture(autouse=True)
def tracer() -> None:
    if reason := ptrace.unavailable():
        pytest.skip(reason)
