"""Reentrant lock: its thread may take it again; it is free when each `acquire` has had its `release`.

The fact that decides: the grant of the engine's mutex, as with `Lock`. The holding thread, and its count, are known to
its process alone.
"""

from __future__ import annotations

import threading

from psync.sync.lock import Lock
from psync.sync.primitive import Place
from psync.sync.wait import patience


class RLock(Lock):
    """`threading.RLock` among processes: a thread holds it, through the handle by which it took the lock.

    >>> import tempfile
    >>> lock = RLock(tempfile.mkdtemp(), "door")
    >>> with lock, lock:
    ...     lock.locked()
    True
    """

    _kind = "rlock"

    def __init__(self, db: Place, name: str) -> None:
        super().__init__(db, name)
        self._holding = (0, 0)
        """Owner and thread; the owner too, because a forked child has its parent's thread numbers."""
        self._depth = 0

    def _me(self) -> tuple[int, int]:
        return self._engine.owner(), threading.get_ident()

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Wait for the lock: True once this thread holds it, again perhaps; False after `timeout` seconds (-1, None:
        never)."""
        seconds = patience(blocking, timeout)
        me = self._me()
        if self._holding == me:
            self._depth += 1
            return True
        if not self._mutex.acquire(seconds):
            return False
        self._depth = 1
        self._holding = me
        return True

    def release(self) -> None:
        """Undo one `acquire`; the last one releases the lock. Raises RuntimeError if this thread does not hold it."""
        if self._holding != self._me():
            raise RuntimeError(f"cannot release the lock {self.name!r}: this thread does not hold it")
        self._depth -= 1
        if not self._depth:
            self._holding = (0, 0)
            self._mutex.release()

    # -- for a `Condition`, which gives the lock away while it waits --------------------------------------

    def _is_owned(self) -> bool:
        return self._holding == self._me()

    def _release_save(self) -> int:
        depth, self._depth, self._holding = self._depth, 0, (0, 0)
        self._mutex.release()
        return depth

    def _acquire_restore(self, depth: int) -> None:
        self._mutex.acquire()
        self._depth, self._holding = depth, self._me()
