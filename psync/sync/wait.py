"""Wait: a waiter watches names, reads, and pauses; now and then it probes for dead processes.

A process that dies announces nothing, so a waiter that depends on others has to probe for their death itself.
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
PROBE_INTERVAL_S = 0.25
"""Seconds between two probes for dead processes, in each process that waits."""
MIN_REMOTE_PROBE_S, REMOTE_PROBE_RATIO, MAX_REMOTE_PROBE_S = 1.0, 100, 15.0
"""The same on a remote engine: a multiple of the time that the last probe took, within these bounds. So all waiting
processes together use a small part of the server."""


def until_next_look(engine: Engine, took: float) -> float:
    """Return the seconds until this process should probe for the dead again; the last probe took `took` seconds."""
    return (
        max(MIN_REMOTE_PROBE_S, min(REMOTE_PROBE_RATIO * took, MAX_REMOTE_PROBE_S))
        if engine.remote
        else PROBE_INTERVAL_S
    )


class Waiter:
    """Waits for changes of some names, for one handle of a primitive.

    Falling asleep takes some ten microseconds, and waking as long. So after a wait that was shorter than that, the next
    one spins for a moment before it sleeps: it reads again and again, and yields the processor in between.
    """

    def __init__(self, engine: Engine, *names: str) -> None:
        self._engine = engine
        self._names = names
        self._brief = False
        """Whether the last wait was too short for a sleep. Threads share it: it is a guess."""

    def until(
        self, look: Callable[[], T], timeout: float | None, look_for_dead: Callable[[], object] | None = None
    ) -> T:
        """Return the first result of `look` that is not NOT_YET; NOT_YET after `timeout` seconds (None: never).

        `look_for_dead`, if given, is called now and then.
        """
        if timeout is not None and timeout <= 0:
            return look()
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
    """Turn `blocking` and `timeout`, as `threading` takes them, into seconds: 0 tries once, None waits for ever."""
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
    """Return those of `owners` that are proven dead."""
    return [owner for owner in owners if engine.alive(owner) is Alive.NO]


def names_of(engine: Engine, owners: Iterable[int]) -> tuple[str, ...]:
    """Describe `owners` for people."""
    return tuple(map(engine.describe, owners))


def some_seconds(timeout: Any) -> str:
    return f"{timeout:g} seconds"
