"""Counter: a shared number that processes add to atomically, and wait for.

The fact that decides: the change of the shared value. No other process comes between its read and its write.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psync.engine.system.reentry import takes_effect
from psync.errors import WaitTimeout
from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, some_seconds


class _Number(NamedTuple):
    value: int


class CounterStatistics(NamedTuple):
    """Snapshot of a counter: see `Counter.statistics`."""

    value: int


class Counter(Primitive):
    """A whole number in a directory, `start` at first. It keeps its value when the processes that use it end or die.

    >>> import tempfile
    >>> done = Counter(tempfile.mkdtemp(), "done")
    >>> done.add(), done.add(2), done.value
    (1, 3, 3)
    """

    _kind = "counter"

    def __init__(self, db: Place, name: str, start: int = 0) -> None:
        if not isinstance(start, int):
            raise TypeError(f"a counter starts at an int, not {start!r}")
        super().__init__(db, name)
        self.start = start
        self._shared = SharedState(self._engine, self._where, _Number(start))
        self._waiter = Waiter(self._engine, self._where)

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self.start

    def add(self, amount: int = 1) -> int:
        """Add `amount` (which may be negative), and return the sum. Concurrent additions all count.

        4 system calls (stat flock pwrite flock), floor 3.
        """
        if not isinstance(amount, int):
            raise TypeError(f"a counter counts in ints, not {amount!r}")
        return self._shared.change(lambda number: _Number(number.value + amount)).value

    @takes_effect
    def reset(self) -> None:
        """Set the counter to `start` again."""
        self._shared.change(lambda number: _Number(self.start))

    @property
    def value(self) -> int:
        """Read the number. fstat, pread."""
        return self._shared.look().value

    def wait_for(self, value: int, timeout: float | None = None) -> int:
        """Wait until the counter is at `value` or above, and return it. Raises `WaitTimeout` after `timeout`
        seconds."""

        def look() -> Any:
            now = self.value
            return now if now >= value else NOT_YET

        found: Any = look()
        if found is NOT_YET:
            found = self._waiter.until(look, timeout)
        if found is NOT_YET:
            raise WaitTimeout(
                f"the counter {self.name!r} did not come to {value} within {some_seconds(timeout)}, but to "
                f"{self.value}; are those who count running?",
                key=self.name,
                waited=timeout,
            )
        return int(found)

    def statistics(self) -> CounterStatistics:
        """Return a snapshot; changes nothing."""
        return CounterStatistics(self.value)

    def _state(self) -> str:
        return f"at {self.value}"
