"""A delayed task lies in its log and is not to be taken before its time.

Its mark says when: the moment, as the engine counts it (see `Engine.due`), and how long the delay was. The fact that
decides: whose settling makes it WAITING; any process that takes tasks or waits for them does that when the time has
come. In another boot of the host, or on another host, the moment means nothing; whoever looks from there counts
the whole delay on its own clock, from when it first saw the task: later than asked for, perhaps, but never earlier.
"""

from __future__ import annotations

import math

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import LONGEST_LEASE, Mark, State, as_lease
from psync.sync.queue.priorities import Levels

LONGEST = 1e9
"""Seconds (30 years)."""
SPARINGLY = 20
"""So many times as long as a look took is the pause until the next one,"""
LONGEST_PAUSE = 0.75
"""but not more seconds than this."""


def until_later(engine: Engine, delay: float, attempt: int = 0) -> Mark:
    """The mark of a record that is not to be taken for `delay` seconds. Raises ValueError."""
    if not 0 < delay <= LONGEST:
        raise ValueError(f"a delay is between 0 and {LONGEST:g} seconds, not {delay!r}")
    halvings = max(0, math.ceil(math.log2(delay / LONGEST_LEASE)))
    part = min(delay / 2**halvings * 1.001, LONGEST_LEASE)  # what is kept of it is never less
    return Mark(State.DELAYED, attempt, engine.due(delay), halvings, as_lease(part))


def _whole_delay(mark: Mark) -> float:
    return math.ldexp(mark.lease, mark.beat)


def remaining(engine: Engine, mark: Mark) -> float:
    """Seconds until a DELAYED record is due, never 0; all of its delay where nobody knows how much has passed."""
    left = engine.until(mark.owner)
    return max(_whole_delay(mark) if left is None else left, 0.001)


class Delays:
    """What one process knows of a queue's delayed tasks."""

    def __init__(self, engine: Engine, levels: Levels) -> None:
        self._engine = engine
        self._levels = levels
        self._seen: dict[tuple[int, int, Mark], float] = {}
        """Since when those of other boots are known here."""
        self._next_look = self._next_due = -math.inf

    def look(self) -> float:
        """Let be taken what is due; seconds until the next look is worth while, inf if there is none delayed."""
        begun = self._engine.now()
        if begun >= min(self._next_look, self._next_due):
            self._next_due = begun + self._look(begun)
            now = self._engine.now()
            self._next_look = now + min(SPARINGLY * (now - begun), LONGEST_PAUSE)
            begun = now
        return max(0.001, self._next_due - begun)

    def _look(self, now: float) -> float:
        seen = {}
        nearest = math.inf
        for level in self._levels.all():
            for position, mark in level.log.delayed():
                left = self._engine.until(mark.owner)
                if left is None:
                    key = level.priority, position, mark
                    seen[key] = since = self._seen.get(key, now)
                    left = _whole_delay(mark) - (now - since)
                if left <= 0:
                    level.settle(position, mark, Mark(State.WAITING, mark.attempt))
                else:
                    nearest = min(nearest, left)
        self._seen = seen
        return nearest
