"""One actor of a schedule, and the engine whose verbs are its turns."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Protocol

from psync.engine import MemoryEngine
from psync.engine.memory.clock import Clock
from psync.engine.memory.state import State
from psync.engine.memory.turns import Turns


class Stuck(AssertionError):
    """Somebody waits who should not have to."""


class Over(SystemExit):
    """The schedule has failed already, so its actors go no further."""


class Actor:
    """Who it is, and how it stands."""

    def __init__(self, name: str, job: Callable[[MemoryEngine], object], engine: MemoryEngine) -> None:
        self.name = name
        self.job = job
        self.engine = engine
        self.mortal = self.stoppable = True
        """Whether it may be killed, or stopped; its job may change that on the way."""
        self.baton: threading.Lock
        self.priority = 0.0
        self.pending = ("its beginning", "")
        self.dead = self.ended = self.sleeping = self.woken = False
        self.ready: Callable[[], bool] = bool
        """What it waits for, while it sleeps."""
        self.until = math.inf
        """While it sleeps: the virtual second at which it wakes by itself."""
        self.stopped = 0.0
        """The virtual second before which it does nothing."""

    def __repr__(self) -> str:
        verb = " ".join(self.pending)
        how = "has ended" if self.ended else f"sleeps in {verb}" if self.sleeping else f"is about to {verb}"
        until = f" until {self.until:g} s" if self.sleeping and self.until != math.inf else ""
        stopped = f", stopped until {self.stopped:g} s" if self.stopped else ""
        return f"<{self.name} {how}{until}{stopped}{', dead' * self.dead}>"

    def can_go(self, now: float) -> bool:
        if self.woken:
            self.woken = False
            self.sleeping = self.sleeping and not self.dead and not self._is_ready()
        if self.ended or (self.stopped > now and not self.dead):
            return False
        return not self.sleeping or self.until <= now

    def _is_ready(self) -> bool:
        try:
            return self.ready()
        except RuntimeError:  # to the thread that holds it: that it would wait for itself
            return False

    @property
    def goes_on_at(self) -> float:
        """The virtual second at which it can go on, if nothing happens before."""
        return max(self.until if self.sleeping else 0.0, self.stopped)


class Turn:
    """Stands for the engine's one lock. Only one actor runs anyhow, so it just remembers how often it is held."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.depth = 0
        self.notify_all = wake

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *error: object) -> None:
        self.depth -= 1

    def _is_owned(self) -> bool:
        return self.depth > 0


class Stepper(Clock, Protocol):
    def step(self, verb: str, name: str) -> None: ...

    def awaits(self, ready: Callable[[], bool]) -> None:
        """Who runs will wait until `ready()`."""

    def pass_time(self, seconds: float) -> None: ...


class SteppedTurns(Turns):
    """Turns that ask before each step, and tell for what they wait."""

    def __init__(self, state: State, stepper: Stepper) -> None:
        super().__init__(state)
        self._stepper = stepper
        self.step = stepper.step  # type: ignore[method-assign]

    def until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        self._stepper.awaits(ready)
        return super().until(ready, timeout)


class SteppedEngine(MemoryEngine):
    """A memory that asks before each verb, and whose pauses last until they are ended."""

    grace = math.inf

    def __init__(self, stepper: Stepper, turn: Turn, spin: float) -> None:
        super().__init__(clock=stepper)
        self.spin = spin
        self._stepper = stepper
        self.turns.state.condition = turn  # type: ignore[assignment]
        self.turns = SteppedTurns(self.turns.state, stepper)

    def give_way(self) -> None:
        self._stepper.pass_time(self.spin / 2)
