"""How every primitive waits: watch, look, pause; and look for the dead now and then, because they announce nothing."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from psync.engine.contract import Alive, Engine
from psync.store.waiting import NOT_YET

T = TypeVar("T")
LOOK_FOR_DEAD = 0.25
"""Seconds between two looks for the dead, by each process that waits."""


def until(
    engine: Engine,
    names: Sequence[str],
    look: Callable[[], T],
    timeout: float | None,
    look_for_dead: Callable[[], object] | None = None,
) -> T:
    """What `look` returns as soon as that is not NOT_YET; NOT_YET after `timeout` seconds (None: never).

    `look_for_dead` is called now and then, if the death of others matters to who waits.
    """
    begun = now = engine.now()
    deadline = math.inf if timeout is None else begun + timeout
    next_look = math.inf if look_for_dead is None else begun + LOOK_FOR_DEAD
    with engine.watch(names) as watch:
        while (found := look()) is NOT_YET:
            now = engine.now()
            if look_for_dead is not None and now >= next_look:
                next_look = now + LOOK_FOR_DEAD
                look_for_dead()
            elif now >= deadline:
                break
            else:
                end = min(deadline, next_look)
                watch.pause(None if end == math.inf else end - now)
    return found


def patience(blocking: bool, timeout: float | None) -> float | None:
    """`blocking` and `timeout` as `threading` takes them, in seconds: 0 looks once, None waits for ever."""
    if not blocking:
        if timeout not in (None, -1):
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0.0
    if timeout is None or timeout == -1:
        return None
    if timeout < 0:
        raise ValueError(f"timeout must not be negative: {timeout!r}")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError(f"timeout is too large: {timeout!r}")
    return timeout


def dead_of(engine: Engine, owners: Iterable[int]) -> list[int]:
    """Those of `owners` that are proven dead."""
    return [owner for owner in owners if engine.alive(owner) is Alive.NO]


def names_of(engine: Engine, owners: Iterable[int]) -> tuple[str, ...]:
    """`owners` for people."""
    return tuple(map(engine.describe, owners))


def some_seconds(timeout: Any) -> str:
    return f"{timeout:g} seconds"
