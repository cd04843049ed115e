"""Every system call of every operation is refused: the old value stays, the error helps, and the process goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.harness import Operation
from tests.crash.operations import OPENING, OPERATIONS
from tests.crash.refusal import refuse_everywhere

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_refused_call_changes_nothing_and_the_process_goes_on(operation: Operation, root: Path) -> None:
    seen = refuse_everywhere(operation, root)
    assert seen.refused, f"{operation.name}: no refusal was ever reported"


def test_a_store_that_can_not_be_opened_says_why_and_can_be_opened_later(root: Path) -> None:
    assert refuse_everywhere(OPENING, root).refused
