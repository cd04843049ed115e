"""Clocks: tell the time and wait; one of the two here moves only when a test says so."""

from __future__ import annotations

import threading
from typing import Protocol

from psync.engine.system import clock


class Clock(Protocol):
    """A clock for `MemoryEngine`: every wait of every verb calls `wait`."""

    def now(self) -> float: ...

    def wait(self, condition: threading.Condition, until: float | None) -> None:
        """Release `condition`, sleep until it is notified or `until` (on this clock) has come; early is fine."""


class MonotonicClock:
    """The real clock of this host."""

    def now(self) -> float:
        return clock.monotonic()

    def wait(self, condition: threading.Condition, until: float | None) -> None:
        seconds = None if until is None else max(0.0, until - clock.monotonic())
        condition.wait(seconds if seconds is None or seconds < threading.TIMEOUT_MAX else None)


class ManualClock:
    """Time that tests own: it stands still until `advance`, so hours of timeouts cost nothing.

    With `autojump` (real seconds), time jumps by itself to the next deadline once somebody has slept that
    long without being woken: for tests with one thread, or where all threads end up waiting.

    >>> from psync.engine import MemoryEngine
    >>> clock = ManualClock(autojump=0.001)
    >>> engine = MemoryEngine(clock=clock)
    >>> other = engine.as_owner()
    >>> engine.mutex("door").acquire(), other.mutex("door").acquire(timeout=3600.0), clock.now()
    (True, False, 3600.0)
    """

    def __init__(self, start: float = 0.0, *, autojump: float | None = None) -> None:
        if autojump is not None and autojump <= 0:
            raise ValueError(f"autojump must be a positive number of real seconds, not {autojump!r}")
        self._now = float(start)
        self._autojump = autojump
        self._changed = threading.Condition()
        self._sleepers: dict[object, tuple[threading.Condition, float | None]] = {}

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now}, {self.sleepers} asleep>"

    def now(self) -> float:
        with self._changed:
            return self._now

    @property
    def sleepers(self) -> int:
        """The number of threads that wait now."""
        with self._changed:
            return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Make it `seconds` later; the threads whose deadline has come go on."""
        if seconds < 0:
            raise ValueError(f"time never goes back, so not by {seconds!r} seconds")
        with self._changed:
            self._now += seconds
        self._wake()

    def until_asleep(self, count: int = 1, patience: float = 10.0) -> None:
        """Return once `count` threads wait; raises TimeoutError after `patience` real seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._sleepers) >= count, patience):
                raise TimeoutError(f"{len(self._sleepers)} of {count} threads wait after {patience} s")

    def wait(self, condition: threading.Condition, until: float | None) -> None:
        me = object()
        with self._changed:
            if until is not None and until <= self._now:
                return
            # `condition` is held from here until it sleeps, so an `advance` from now on can't miss it.
            self._sleepers[me] = condition, until
            self._changed.notify_all()
        try:
            woken = condition.wait(self._autojump)
        finally:
            with self._changed:
                del self._sleepers[me]
        if not woken:
            self._jump(until)

    def _jump(self, until: float | None) -> None:
        with self._changed:
            deadlines = [later for _, later in (*self._sleepers.values(), (None, until)) if later is not None]
            self._now = max(self._now, min(deadlines, default=self._now))
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            conditions = {id(condition): condition for condition, _ in self._sleepers.values()}
        for condition in conditions.values():
            with condition:
                condition.notify_all()
