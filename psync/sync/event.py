"""A flag that is up or down, and that any number of processes wait for.

The fact that decides: the change of the shared value that raises the flag. It also counts how often that was done, so
that who waits passes although the flag is down again when it comes to look.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter


class _Flag(NamedTuple):
    up: bool = False
    raised: int = 0


class EventStatistics(NamedTuple):
    """What `Event.statistics` saw."""

    is_set: bool
    raised: int
    """How often it was set after it had been clear."""


class Event(Primitive):
    """`threading.Event` among processes. It stays as it is when all of them have ended, until somebody clears it.

    >>> import tempfile
    >>> ready = Event(tempfile.mkdtemp(), "ready")
    >>> ready.wait(timeout=0.01), ready.set(), ready.wait()
    (False, None, True)
    """

    _kind = "event"

    def __init__(self, db: Place, name: str) -> None:
        super().__init__(db, name)
        self._shared = SharedState(self._engine, self._where, _Flag())
        self._waiter = Waiter(self._engine, self._where)

    def is_set(self) -> bool:
        """fstat, pread."""
        return self._shared.look().up

    def set(self) -> None:
        """The flag is up: all who wait go on, and who waits later does not wait.

        3 system calls (flock pwrite flock), floor 3; utime if somebody waits.
        """
        self._shared.change(lambda flag: flag if flag.up else _Flag(True, flag.raised + 1))

    def clear(self) -> None:
        """The flag is down: who waits from now on waits."""
        self._shared.change(lambda flag: _Flag(False, flag.raised) if flag.up else flag)

    def wait(self, timeout: float | None = None) -> bool:
        """True once the flag is up, or was during the wait; False after `timeout` seconds (None: never).

        None if the flag is up; 1 system call for who is woken (poll).
        """
        flag = self._shared.look()
        if flag.up:
            return True

        def look() -> Any:
            now = self._shared.look()
            return True if now.up or now.raised != flag.raised else NOT_YET

        return self._waiter.until(look, timeout) is True

    def statistics(self) -> EventStatistics:
        """A look that changes nothing."""
        return EventStatistics(*self._shared.look())

    def _state(self) -> str:
        return "set" if self.is_set() else "clear"
