"""Whoever reads while a writer stands still at any of its system calls sees old or new."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.concurrent_reader import look_everywhere
from tests.crash.harness import Operation
from tests.crash.operations import HASHED, PLAIN

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("operation", [*PLAIN, *HASHED], ids=lambda operation: operation.name)
def test_a_reader_beside_a_writer_that_stands_still_sees_old_or_new(operation: Operation, root: Path) -> None:
    seen = look_everywhere(operation, root)
    assert seen.before, f"{operation.name}: nobody looked before the deed"
