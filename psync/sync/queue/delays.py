"""Delays: a delayed task lies in its log as DELAYED, and nobody can claim it before its time.

On disk: the record's mark holds the moment, as the engine counts it (see `Engine.due`), and how long the delay was. The
fact that decides: the change of the mark to WAITING. Every process that claims tasks or waits for them makes that
change when the time has come. After a reboot of the host, or on another host, the moment means nothing: a process there
counts the whole delay on its own clock, from when it first saw the task. So a task may come later than requested, but
never earlier.
"""

from __future__ import annotations

import math

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import LONGEST_LEASE, Mark, State, as_lease
from psync.sync.queue.priorities import Priorities

MAX_DELAY_S = 1e9
"""About 30 years."""
SCAN_PAUSE_RATIO = 20
"""The pause after a scan for due tasks, as a multiple of the time that the scan took; at most MAX_SCAN_PAUSE_S."""
MAX_SCAN_PAUSE_S = 0.75
MIN_DELAY_S = 0.001
"""No pause for a delayed task is shorter."""


def delayed_mark(engine: Engine, delay: float, attempt: int = 0) -> Mark:
    """The mark of a record that cannot be claimed for `delay` seconds. Raises ValueError."""
    if not 0 < delay <= MAX_DELAY_S:
        raise ValueError(f"a delay is between 0 and {MAX_DELAY_S:g} seconds, not {delay!r}")
    halvings = max(0, math.ceil(math.log2(delay / LONGEST_LEASE)))
    part = min(delay / 2**halvings * 1.001, LONGEST_LEASE)  # rounding must never make the stored delay shorter
    return Mark(State.DELAYED, attempt, engine.due(delay), halvings, as_lease(part))


def _whole_delay(mark: Mark) -> float:
    """The delay in seconds: of a DELAYED mark, `beat` counts how often it was halved to fit the lease field."""
    return math.ldexp(mark.lease, mark.beat)


def remaining(engine: Engine, mark: Mark) -> float:
    """Seconds until a DELAYED record is due, never 0. The whole delay if the moment was stored by another boot."""
    left = engine.until(mark.owner)
    return max(_whole_delay(mark) if left is None else left, MIN_DELAY_S)


class Delays:
    """Releases the due tasks of one queue for this process."""

    def __init__(self, priorities: Priorities) -> None:
        self._engine = priorities.engine
        self._priorities = priorities
        self._seen: dict[tuple[int, int, Mark], float] = {}
        """When this process first saw each task that was delayed in another boot."""
        self._next_scan = self._next_due = -math.inf

    def release_due(self) -> float:
        """Make due tasks WAITING; returns the seconds until the next scan is worth while, inf if none is delayed."""
        begun = self._engine.now()
        if begun >= min(self._next_scan, self._next_due):
            self._next_due = begun + self._scan(begun)
            now = self._engine.now()
            self._next_scan = now + min(SCAN_PAUSE_RATIO * (now - begun), MAX_SCAN_PAUSE_S)
            begun = now
        return max(MIN_DELAY_S, self._next_due - begun)

    def _scan(self, now: float) -> float:
        """Release what is due; returns the seconds until the next task is."""
        seen = {}
        nearest = math.inf
        for priority in self._priorities.all():
            for position, mark in priority.log.delayed():
                left = self._engine.until(mark.owner)
                if left is None:
                    key = priority.number, position, mark
                    seen[key] = since = self._seen.get(key, now)
                    left = _whole_delay(mark) - (now - since)
                if left > 0:
                    nearest = min(nearest, left)
                elif not self._engine.read_only:
                    # several processes may try: the mark changes once, the others change nothing
                    priority.settle(position, mark, Mark(State.WAITING, mark.attempt))
        self._seen = seen
        return nearest
