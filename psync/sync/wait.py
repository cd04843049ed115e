"""Waiting: every primitive watches names, looks, and pauses; now and then it looks for dead processes.

A process that dies announces nothing, so a waiter that depends on others has to look for their death itself.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from psync.engine.contract.engine import Engine
from psync.engine.contract.values import Alive
from psync.store.sentinels import NOT_YET

T = TypeVar("T")
LOOK_FOR_DEAD_S = 0.25
"""The time between two looks for dead processes, by each process that waits."""
MIN_REMOTE_LOOK_S, REMOTE_LOOK_RATIO, MAX_REMOTE_LOOK_S = 1.0, 100, 15.0
"""The same where a server is asked: so many times as long as the last look took, within these bounds. So all waiting
processes together take a small part of what the server can do."""


def until_next_look(engine: Engine, took: float) -> float:
    """Seconds until this process should look for the dead again, when the last look took so long."""
    return (
        max(MIN_REMOTE_LOOK_S, min(REMOTE_LOOK_RATIO * took, MAX_REMOTE_LOOK_S)) if engine.remote else LOOK_FOR_DEAD_S
    )


class Waiter:
    """Waits for changes of some names, for one handle of a primitive.

    To fall asleep takes some ten microseconds, and to be woken as long. So when the last wait was shorter than that,
    the next one spins for a moment before it sleeps: it looks again and again, and yields the processor in between."""

    def __init__(self, engine: Engine, *names: str) -> None:
        self._engine = engine
        self._names = names
        self._brief = False
        """Whether the last wait was too short for a sleep. Threads share it: it is a guess."""

    def until(
        self, look: Callable[[], T], timeout: float | None, look_for_dead: Callable[[], object] | None = None
    ) -> T:
        """What `look` returns as soon as that is not NOT_YET; NOT_YET after `timeout` seconds (None: never).

        `look_for_dead`, if given, is called now and then.
        """
        engine = self._engine
        begun = engine.now()
        deadline = math.inf if timeout is None else begun + timeout
        if self._brief:
            end = min(deadline, begun + engine.spin)
            while (found := look()) is NOT_YET and engine.now() < end:
                engine.give_way()
            if found is not NOT_YET:
                return found
        found = self._sleep(look, begun, deadline, look_for_dead)
        self._brief = engine.now() - begun < engine.spin
        return found

    def _sleep(
        self, look: Callable[[], T], begun: float, deadline: float, look_for_dead: Callable[[], object] | None
    ) -> T:
        engine = self._engine
        next_look = math.inf if look_for_dead is None else begun + until_next_look(engine, 0.0)
        with engine.watch(self._names) as watch:
            while (found := look()) is NOT_YET:
                now = engine.now()
                if look_for_dead is not None and now >= next_look:
                    look_for_dead()
                    next_look = now + until_next_look(engine, engine.now() - now)
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
    if not timeout >= 0:  # which a NaN isn't
        raise ValueError(f"timeout must not be negative: {timeout!r}")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError(f"timeout is too large: {timeout!r}")
    return timeout


def dead_of(engine: Engine, owners: Iterable[int]) -> list[int]:
    """Those of `owners` that are proven dead."""
    return [owner for owner in owners if engine.alive(owner) is Alive.NO]


def names_of(engine: Engine, owners: Iterable[int]) -> tuple[str, ...]:
    """`owners` as texts for people."""
    return tuple(map(engine.describe, owners))


def some_seconds(timeout: Any) -> str:
    return f"{timeout:g} seconds"
