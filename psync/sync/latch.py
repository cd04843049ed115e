"""Countdown latch: opens once a number of steps are done, and stays open.

The fact that decides: the change of the shared value that takes the last of the count.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psync.engine.system.reentry import finish_later, takes_effect
from psync.errors import ReentrantCall, WaitTimeout
from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, dead_of, some_seconds


class _Count(NamedTuple):
    left: int
    users: tuple[int, ...] = ()
    """Owners that counted or waited."""


class LatchStatistics(NamedTuple):
    """Snapshot of a latch: see `Latch.statistics`."""

    left: int
    """Steps that are still to be done."""
    users: tuple[str, ...]
    """The owners that counted or waited so far, for people."""


class Latch(Primitive):
    """A countdown from `count`: waiters go on when it is at 0, and later ones do not wait (Java's `CountDownLatch`,
    C++'s ``std::latch``).

    >>> import tempfile
    >>> ready = Latch(tempfile.mkdtemp(), "ready", 2)
    >>> ready.count_down(), ready.count_down(), ready.wait()
    (1, 0, None)

    An open latch stays open until `reset`, so a script that is started later passes. When all processes that used a
    latch have ended before it opened, the next use begins at `count` again.
    """

    _kind = "latch"

    def __init__(self, db: Place, name: str, count: int) -> None:
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"a latch counts down from an int that is not negative, not {count!r}")
        super().__init__(db, name)
        self._from = count
        self._shared = SharedState(self._engine, self._where, _Count(count))
        self._waiter = Waiter(self._engine, self._where)

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self._from

    def count_down(self, steps: int = 1) -> int:
        """Count `steps` as done; returns the number still to be done, which never goes below 0.

        A call that interrupts a change of the same latch (see `psync.ReentrantCall`) counts right after that.
        """
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"a latch counts down in steps of 1 or more, not {steps!r}")
        try:
            return self._use(steps).left
        except ReentrantCall:
            finish_later(lambda: self._use(steps))
            return max(0, self._shared.last.left - steps)

    def _use(self, steps: int = 0) -> _Count:
        me = self._engine.owner()

        def use(count: _Count) -> _Count:
            if me not in count.users:
                if count.left and len(dead_of(self._engine, count.users)) == len(count.users) > 0:
                    count = _Count(self._from)  # all of its users have ended: an earlier run left it
                count = _Count(count.left, (*count.users, me))
            return _Count(max(0, count.left - steps), count.users) if steps else count

        return self._shared.change(use)

    @property
    def count(self) -> int:
        """Steps that are still to be done."""
        return self._shared.look().left

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all steps are done. Raises `WaitTimeout` after `timeout` seconds (None: never)."""
        if not self.count or not self._use().left:
            return

        def look() -> Any:
            return NOT_YET if self.count else None

        if self._waiter.until(look, timeout) is NOT_YET:
            raise WaitTimeout(
                f"the latch {self.name!r} did not open within {some_seconds(timeout)}: {self.count} of {self._from} "
                "steps are still to be done; are those who should do them running?",
                key=self.name,
                waited=timeout,
            )

    @takes_effect
    def reset(self) -> None:
        """Close it again: all steps are to be done."""
        self._shared.change(lambda count: _Count(self._from, count.users))

    def statistics(self) -> LatchStatistics:
        """Return a snapshot; changes nothing."""
        count = self._shared.look()
        return LatchStatistics(count.left, tuple(map(self._engine.describe, count.users)))

    def _state(self) -> str:
        left = self.count
        return f"{left} of {self._from} to go" if left else "open"
