"""Each verb interrupted by each other one, at any line: nothing hangs, nothing is lost, nothing is done twice."""

from __future__ import annotations

import faulthandler
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import psync
from tests.reentry.operations import OPERATIONS, PLACES, World, perform, store_of
from tests.support import ENGINE, scaled

PACKAGE = os.path.dirname(psync.__file__) + os.sep
HANG_S = 10.0
"""After this time a call counts as one that waits for itself."""


def interrupted_at(line: int, call: Callable[[], Any], handler: Callable[[], Any]) -> int:
    """Make `call`, and call `handler` before its `line`-th line within psync; returns how many lines it ran."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "call":
            return trace if frame.f_code.co_filename.startswith(PACKAGE) else None
        if event == "line":
            count += 1
            if count == line:
                handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """End the process with all stacks where a call waits for itself."""
    faulthandler.dump_traceback_later(HANG_S * max(1, scaled(1)) * 6, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=[ENGINE] if ENGINE else PLACES)
def world(request: pytest.FixtureRequest, root: Path | str) -> Iterator[World]:
    db = psync.PickleShareDB(root) if ENGINE else store_of(request.param, root)
    yield World(db)
    db.close()


@pytest.mark.parametrize("interrupted", OPERATIONS)
def test_an_operation_that_interrupts_another_one_takes_effect_or_refuses(world: World, interrupted: str) -> None:
    perform(world, interrupted)  # what is loaded and opened at the first use is tried elsewhere
    seen = random.Random(interrupted)
    for handler in OPERATIONS:
        world.fill()
        lines = interrupted_at(0, lambda: perform(world, interrupted), print)
        for line in sorted(seen.sample(range(1, lines + 1), min(lines, scaled(3)))):
            world.fill()
            interrupted_at(line, lambda: perform(world, interrupted), lambda: perform(world, handler))  # noqa: B023
        world.check()
    world.check_queue()
