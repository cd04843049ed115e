"""A signal's handler that sets an event, counts up, posts and assigns, whatever it interrupts, and loses nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psync


class BusyHandler:
    """Works in a store of its own. Call its methods from the main thread."""

    def __init__(self, root: Path) -> None:
        self.db = psync.PickleShareDB(root)
        self._me = os.getpid(), os.geteuid()
        self._rate = 0.0
        """How often a second it is to be called; 0 while it is not at work."""
        self._tests = 0
        self._begin()
        self._work()

    def _begin(self) -> None:
        self._tests += 1
        self.event = psync.Event(self.db, f"event{self._tests}")
        self.counter = psync.Counter(self.db, f"counter{self._tests}")
        self.box = psync.Mailbox(self.db, f"box{self._tests}")
        self.calls = self.refused = 0

    @contextlib.contextmanager
    def at_work(self, rate: float) -> Iterator[None]:
        """Call it `rate` times a second during the block, unless that sets another handler; then check its work."""
        self._begin()
        before = signal.signal(signal.SIGALRM, self._called)
        self._rate = rate
        signal.setitimer(signal.ITIMER_REAL, 1 / rate)
        try:
            yield
        finally:
            self._rate = 0.0
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        self.check()

    def _called(self, number: int, frame: Any) -> None:
        me = os.getpid(), os.geteuid()  # a test may fork, and may be another user for a while
        if self._rate and me == self._me:
            self._work()
        if self._rate:
            signal.setitimer(signal.ITIMER_REAL, 1 / self._rate)

    def _work(self) -> None:
        self.calls += 1
        mine = self.calls
        self.event.set()
        try:
            self.counter.add()
        except psync.ReentrantCall:  # it has a result to give
            self.refused += 1
        self.box.post(mine, mine)
        self.db["last"] = mine

    def check(self) -> None:
        """Nothing that it did is lost, and nothing was done twice."""
        assert self.event.is_set() or not self.calls
        assert self.counter.value == self.calls - self.refused
        assert sorted(self.box.addresses()) == list(range(1, self.calls + 1))
        assert not self.calls or self.db["last"] == self.calls

    def close(self) -> None:
        self.db.close()
