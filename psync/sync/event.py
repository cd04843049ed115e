"""Event: a flag that processes set and clear, and that any number of processes wait for.

The fact that decides: the change of the shared value that raises the flag. It also counts how often that was done, so
that a waiter passes even if the flag is down again by the time it reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psync.engine.system.reentry import finish_later
from psync.errors import ReentrantCall
from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter


class _Flag(NamedTuple):
    up: bool = False
    raised: int = 0


def _raised(flag: _Flag) -> _Flag:
    return flag if flag.up else _Flag(True, flag.raised + 1)


def _lowered(flag: _Flag) -> _Flag:
    return _Flag(False, flag.raised) if flag.up else flag


class EventStatistics(NamedTuple):
    """Snapshot of an event: see `Event.statistics`."""

    is_set: bool
    raised: int
    """The number of times that it was set after it had been clear."""


class Event(Primitive):
    """`threading.Event` among processes. It stays set when all of them have ended, until one clears it.

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
        """Tell whether the flag is up. fstat, pread."""
        return self._shared.look().up

    def set(self) -> None:
        """Raise the flag: all waiters go on, and later ones do not wait.

        4 system calls (stat flock pwrite flock), floor 3; utime if somebody waits.
        """
        try:
            self._shared.change(_raised)
        except ReentrantCall:
            finish_later(lambda: self._shared.change(_raised), (self._where, self._engine, "set"))

    def clear(self) -> None:
        """Lower the flag: later waiters wait again."""
        try:
            self._shared.change(_lowered)
        except ReentrantCall:
            finish_later(lambda: self._shared.change(_lowered), (self._where, self._engine, "clear"))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the flag: True once it is up, or was up during the wait; False after `timeout` seconds (None:
        never).

        A stat if the flag is up; 4 system calls for a waiter that is woken (stat stat poll stat).
        """
        flag = self._shared.look()
        if flag.up:
            return True

        def look() -> Any:
            now = self._shared.look()
            return True if now.up or now.raised != flag.raised else NOT_YET

        return self._waiter.until(look, timeout) is True

    def statistics(self) -> EventStatistics:
        """Return a snapshot; changes nothing."""
        return EventStatistics(*self._shared.look())

    def _state(self) -> str:
        return "set" if self.is_set() else "clear"
