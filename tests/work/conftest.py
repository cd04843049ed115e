"""The marks that joblib's own tests carry, so that they can be imported where marks must be known."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for mark in ("thread_unsafe", "no_cover", "timeout"):
        config.addinivalue_line("markers", f"{mark}: of joblib's own tests")
