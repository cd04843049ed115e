"""Lock: admits one process at a time, among all that share a directory; a holder's death releases it.

The fact that decides: the grant of the engine's mutex (on a directory: the `flock` of the lock's own file), which ends
with its holder's process. So no process has to find out that a holder died, and no time limit frees a lock that is in
use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

from psync.errors import LockTimeout
from psync.sync.primitive import Place, Primitive
from psync.sync.wait import patience, some_seconds


class LockStatistics(NamedTuple):
    """Snapshot of a lock: see `Lock.statistics`."""

    locked: bool
    holder: str | None
    """The holder, for people; None when the lock is free."""


class Lock(Primitive):
    """`threading.Lock` among processes. A process holds it: any of its threads may release it, no other process.

    >>> import tempfile
    >>> lock = Lock(tempfile.mkdtemp(), "door")
    >>> with lock:
    ...     lock.locked(), lock.acquire(timeout=0.01)
    (True, False)

    Not promised: that the longest waiter is next; and that the holder still runs while it holds: it may be stopped
    (SIGSTOP). If the lock protects something elsewhere (another disk, a service), use `token` as a fencing token there:
    refuse a smaller one than the last.
    """

    _kind = "lock"

    def __init__(self, db: Place, name: str) -> None:
        super().__init__(db, name)
        self._mutex = self._engine.mutex(f"{self._kind}/{name}")

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Wait for the lock: True once this process holds it; False after `timeout` seconds (-1, None: never).

        2 system calls (flock stat), floor 1, when it is free. ValueError for a timeout that means nothing.
        """
        if blocking and timeout == -1:
            return self._mutex.acquire()
        return self._mutex.acquire(patience(blocking, timeout))

    def release(self) -> None:
        """Release the lock. RuntimeError if this process does not hold it; `StoreFailed` if it was lost with its
        directory. 2 system calls (flock stat), floor 1."""
        self._mutex.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    @contextmanager
    def hold(self, timeout: float) -> Iterator[int]:
        """Hold the lock for the length of the block, which gets the token. Raises `LockTimeout`, which names the
        holder, after `timeout` seconds."""
        if not self.acquire(timeout=timeout):
            holder = self.holder()
            raise LockTimeout(
                f"the lock {self.name!r} was not free within {some_seconds(timeout)}; it is held by "
                f"{holder or 'somebody who has just let go'}. Wait longer, or look at what that one does",
                lock=self.name,
                waited=timeout,
                holder=holder,
            )
        try:
            yield self.token
        finally:
            self.release()

    @property
    def token(self) -> int:
        """While this process holds the lock: a number larger than that of every holding before. Else 0.

        Raises `StoreFailed` if the lock was lost: its directory is gone.
        """
        self._mutex.check()
        return self._mutex.token

    def locked(self) -> bool:
        """Tell whether anybody holds the lock, at this moment."""
        return self._mutex.holder() != 0

    def holder(self) -> str | None:
        """Describe the holder (pid, host, start time); None when the lock is free."""
        owner = self._mutex.holder()
        return self._engine.describe(owner) if owner else None

    def statistics(self) -> LockStatistics:
        """Return a snapshot; changes nothing."""
        holder = self.holder()
        return LockStatistics(holder is not None, holder)

    def _state(self) -> str:
        holder = self.holder()
        return f"held by {holder}" if holder else "free"

    def _is_owned(self) -> bool:
        """Tell a `Condition` whether this process holds the lock."""
        return self._mutex.token != 0

    def _release_save(self) -> int:
        self.release()
        return 1

    def _acquire_restore(self, depth: int) -> None:
        self.acquire()
