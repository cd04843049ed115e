"""Every system call of every operation is refused: the old value stays, the error helps, and the process goes on."""

from __future__ import annotations

import dataclasses
import errno
import functools
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from tests.crash.harness import Operation
from tests.crash.operations import LONG_ONES, OPENING, OPERATIONS
from tests.crash.refusal import REFUSALS, refuse_everywhere
from tests.support import SCALE

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("operation", [*OPERATIONS, *LONG_ONES], ids=lambda operation: operation.name)
def test_a_refused_call_changes_nothing_and_the_process_goes_on(operation: Operation, root: Path) -> None:
    seen = refuse_everywhere(operation, root)
    assert seen.refused, f"{operation.name}: no refusal was ever reported"


def test_a_store_that_can_not_be_opened_says_why_and_can_be_opened_later(root: Path) -> None:
    assert refuse_everywhere(OPENING, root).refused


DURABLE = ["set a new key", "overwrite in place", "del", "hset of a new item", "put", "get", "done with a result"]


@pytest.mark.parametrize("level", ["file", "power"])
@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.name in DURABLE], ids=lambda operation: operation.name
)
def test_what_the_disk_refuses_a_durable_operation_was_not_done(operation: Operation, level: Any, root: Path) -> None:
    """An fsync that fails is a write that failed: among all other calls, each is refused in turn."""
    durable = dataclasses.replace(operation, open=functools.partial(PickleShareDB, durability=level), spare=2)
    assert refuse_everywhere(durable, root, (errno.EIO, errno.ENOSPC) if SCALE < 2 else REFUSALS).refused
