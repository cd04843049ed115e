"""SIGINT at every system call of every operation: done or not done, nobody is kept waiting, and the process goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.harness import Operation
from tests.crash.interruption import interrupt_everywhere
from tests.crash.operations import LONG_ONES, OPERATIONS
from tests.crash.test_kill_primitives import ALONE
from tests.support import SCALE

pytestmark = pytest.mark.crash
STRIDE = max(1, round(3 / SCALE))
LASTING = [operation for operation in ALONE if not operation.silent]
"""What the others leave may be held by the one who was interrupted: `tests.sync.test_interrupts` has them."""


@pytest.mark.parametrize("operation", [*OPERATIONS, *LONG_ONES, *LASTING], ids=lambda operation: operation.name)
def test_an_interrupted_operation_is_done_or_not_done_and_keeps_nobody_waiting(
    operation: Operation, root: Path
) -> None:
    assert interrupt_everywhere(operation, root, stride=STRIDE).refused
