"""How many tasks an iteration claims at once: as many as are worked off in a moment, and no more than its share.

What was claimed and is not begun is in hand: it goes back at once when a task turns out to be slow, when the loop is
left, or the engine is closed. A forked child has none of it. Not promised: that what is in hand is not kept waiting
by the one task that is being worked on, should that be the first slow one.
"""

from __future__ import annotations

from collections import deque

from psync.engine import forks
from psync.engine.contract import Record
from psync.sync.claims import Claims
from psync.sync.levels import Level

MOST = 32
"""Tasks that are claimed at once, at most."""
MOMENT = 0.002
"""Seconds: as much work as is claimed at once."""
SLOW = 0.001
"""Seconds: a task that takes so long is followed by one that is claimed alone."""


class Pace:
    """How long tasks take in one loop, and so how many to claim next."""

    def __init__(self) -> None:
        self.size = 1
        self._spent = 0.0
        self._count = 0

    def took(self, seconds: float) -> bool:
        """A task was worked on for so long; True if that was slow."""
        if seconds >= SLOW:
            self.size, self._spent, self._count = 1, 0.0, 0
            return True
        self._spent += seconds
        self._count += 1
        if self._count >= self.size:
            fitting = MOMENT * self._count / self._spent if self._spent > 0 else MOST
            self.size = max(1, min(2 * self.size, MOST, int(fitting)))
            self._spent, self._count = 0.0, 0
        return False


class InHand:
    """The claims of this process on one queue's tasks that are not begun."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._all: dict[tuple[int, int], tuple[Level, Record]] = {}
        self.loops = 0
        """How many iterations go on in this process."""
        forks.remember(self)

    def add(self, level: Level, records: list[Record]) -> None:
        for record in records:
            self._all[level.priority, record.position] = level, record

    def remove(self, level: Level, record: Record) -> bool:
        """True for the one who may begin the task, or give it back."""
        return self._all.pop((level.priority, record.position), None) is not None

    def give_back(self) -> None:
        """All of it."""
        for key in reversed(list(self._all)):  # what is given up is the first to be taken again
            level, record = self._all.pop(key, (None, None))  # another thread may be faster
            if level is not None and record is not None:
                self._claims.give_up_quietly(level, record)

    def give_back_these(self, level: Level, records: deque[Record]) -> None:
        while records:
            record = records.pop()
            if self.remove(level, record):
                self._claims.give_up_quietly(level, record)

    def after_fork(self) -> None:
        self._all.clear()
        self.loops = 0
