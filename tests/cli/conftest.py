"""Where the commands are tried: in a directory, or, with PSYNC_TEST_ENGINE, on a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import ENGINE


@pytest.fixture
def place(root: Path | str) -> str:
    """What to name to a command; a longer name is another store. Files of a test's own are in `tmp_path`."""
    return str(root) if ENGINE else f"{root}/db"
