"""kill -9 at every system call of every operation and of its recovery: nothing lost, doubled, torn or left lying."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

import pickleshare
import pytest

from psync import PickleShareDB
from tests.crash.harness import Operation, kill_everywhere
from tests.crash.operations import HASHED, HSET, IN_A_LOOP, OPENING, OPERATIONS, QUEUE, SETTING, read_by_pickleshare
from tests.support import SCALE, scaled

pytestmark = pytest.mark.crash
STRIDE = max(1, round(2 / SCALE))


def each(operations: list[Operation]) -> Any:
    return pytest.mark.parametrize("operation", operations, ids=lambda operation: operation.name)


@each(OPERATIONS)
def test_a_kill_leaves_the_state_before_or_the_state_after(operation: Operation, root: Path) -> None:
    seen = kill_everywhere(operation, root, stride=STRIDE, again=scaled(2))
    if STRIDE > 1 and not (seen.before and seen.after):
        seen = kill_everywhere(operation, root, stride=1)  # so few calls that every second one is not enough
    assert seen.before, f"{operation.name}: no kill came before the deed"
    assert seen.after, f"{operation.name}: no kill came after the deed"


def test_a_kill_in_a_loop_leaves_each_task_answered_or_to_be_had(root: Path) -> None:
    """Where answers are recorded together."""
    assert kill_everywhere(IN_A_LOOP, root, stride=max(2, 3 * STRIDE)).points


@each([*HSET, *[operation for operation in HASHED if operation.name in ("hdel", "hcompress")]])
def test_what_a_killed_hset_committed_is_read_by_pickleshare(operation: Operation, root: Path) -> None:
    seen = kill_everywhere(dataclasses.replace(operation, look=read_by_pickleshare), root, stride=STRIDE)
    assert seen.before or STRIDE > 2
    assert seen.after or STRIDE > 2


@each(SETTING)
def test_what_a_killed_set_committed_is_read_by_pickleshare(operation: Operation, root: Path) -> None:
    def look(db: Any) -> Any:
        old = pickleshare.PickleShareDB(str(db.root))
        return {key: old[key] for key in db}

    kill_everywhere(dataclasses.replace(operation, look=look), root, stride=STRIDE)


@each([SETTING[0], SETTING[2], SETTING[7], HSET[0], HSET[2], HSET[3], QUEUE[0]])
@pytest.mark.parametrize("durability", ["file", "power"])
def test_a_kill_in_a_durable_store_leaves_the_state_before_or_after(
    operation: Operation, durability: Literal["file", "power"], root: Path
) -> None:
    durable = functools.partial(PickleShareDB, durability=durability)
    seen = kill_everywhere(dataclasses.replace(operation, open=durable), root, stride=STRIDE)
    assert seen.before or STRIDE > 2
    assert seen.after or STRIDE > 2


def test_a_kill_while_a_store_is_opened_harms_nothing(root: Path) -> None:
    assert kill_everywhere(OPENING, root, stride=STRIDE, again=scaled(2)).before


def test_an_append_that_crosses_a_page_is_cut_there(root: Path) -> None:
    (operation,) = [operation for operation in HSET if "across a page" in operation.name]
    assert kill_everywhere(operation, root, stride=STRIDE).torn
