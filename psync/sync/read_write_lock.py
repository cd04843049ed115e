"""Read-write lock: admits many readers or one writer, among processes; a process's death releases its holds.

The fact that decides: the change of the shared value that adds a reader, or the writer, to the holders. While a writer
waits, no new process begins to read, so writers do not starve; a process that reads already may read again.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from psync.engine.system.reentry import takes_effect
from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.semaphore import Held, less, more
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, dead_of, names_of, patience


class _Inside(NamedTuple):
    writer: int
    readers: Held
    waiting: Held
    """Waiting writers."""


class ReadWriteStatistics(NamedTuple):
    """Snapshot of a read-write lock: see `ReadWriteLock.statistics`."""

    writer: str | None
    readers: tuple[str, ...]
    waiting_writers: tuple[str, ...]


class ReadWriteLock(Primitive):
    """Two views of one lock: `reader`, which many may hold at once, and `writer`, which excludes all others.

    >>> import tempfile
    >>> lock = ReadWriteLock(tempfile.mkdtemp(), "book")
    >>> with lock.reader:
    ...     lock.reader.locked(), lock.writer.acquire(timeout=0.01)
    (True, False)

    Each has `acquire`, `release`, `locked` and ``with``, as a `Lock` has. A process holds it: any of its threads may
    release it. Not promised: that a reader can become the writer; a reader that tries to waits for itself.
    """

    _kind = "rwlock"

    def __init__(self, db: Place, name: str) -> None:
        super().__init__(db, name)
        self._shared = SharedState(self._engine, self._where, _Inside(0, {}, {}))
        self._freed = self._where + "/freed"
        self._waiter = Waiter(self._engine, self._freed)
        self.reader = View(self, "reader")
        self.writer = View(self, "writer")

    # -- what the two views do ---------------------------------------------------------------------------

    def _read(self, seconds: float | None) -> bool:
        me = self._engine.owner()

        def enter(inside: _Inside) -> _Inside:
            if inside.writer or (inside.waiting and me not in inside.readers):
                return inside
            return inside._replace(readers=more(inside.readers, me))

        return self._enter(enter, seconds)

    def _write(self, seconds: float | None) -> bool:
        me = self._engine.owner()

        def enter(inside: _Inside) -> _Inside:
            if inside.writer or inside.readers:
                return inside
            return inside._replace(writer=me)

        if self._try(enter):
            return True
        if seconds == 0:
            return self._enter(enter, 0)
        self._shared.change(lambda inside: inside._replace(waiting=more(inside.waiting, me)))
        try:
            return self._enter(enter, seconds)
        finally:
            self._shared.change(lambda inside: inside._replace(waiting=less(inside.waiting, me)))
            self._engine.announce(self._freed)

    def _try(self, enter: Callable[[_Inside], _Inside]) -> bool:
        entered = False

        def change(inside: _Inside) -> _Inside:
            nonlocal entered
            after = enter(inside)
            entered = after is not inside
            return after

        self._shared.change(change)
        return entered

    def _enter(self, enter: Callable[[_Inside], _Inside], seconds: float | None) -> bool:
        if self._try(enter):
            return True
        self._free_the_dead()
        if seconds == 0:
            return self._try(enter)

        def look() -> Any:
            inside = self._shared.look()
            return True if enter(inside) is not inside and self._try(enter) else NOT_YET

        return self._waiter.until(look, seconds, self._free_the_dead) is True

    @takes_effect
    def _leave(self, role: str) -> None:
        me = self._engine.owner()

        def leave(inside: _Inside) -> _Inside:
            if role == "writer" and inside.writer == me:
                return inside._replace(writer=0)
            if role == "reader" and me in inside.readers:
                return inside._replace(readers=less(inside.readers, me))
            raise RuntimeError(f"this process does not hold the lock {self.name!r} as a {role}")

        inside = self._shared.change(leave)
        if not inside.readers:
            self._engine.announce(self._freed)

    def _free_the_dead(self) -> None:
        dead = self._dead(self._shared.look())
        if dead:
            self._shared.change(lambda inside: _without(inside, dead))
            self._engine.announce(self._freed)

    def _dead(self, inside: _Inside) -> set[int]:
        return set(dead_of(self._engine, {inside.writer, *inside.readers, *inside.waiting} - {0}))

    def _look(self) -> _Inside:
        """Read the state, without the dead."""
        inside = self._shared.look()
        return _without(inside, self._dead(inside))

    def statistics(self) -> ReadWriteStatistics:
        """Return a snapshot; changes nothing."""
        inside = self._look()
        writer = self._engine.describe(inside.writer) if inside.writer else None
        return ReadWriteStatistics(
            writer, names_of(self._engine, inside.readers), names_of(self._engine, inside.waiting)
        )

    def _state(self) -> str:
        inside = self._look()
        if inside.writer:
            return f"written by {self._engine.describe(inside.writer)}"
        return f"{sum(inside.readers.values())} reading, {sum(inside.waiting.values())} waiting to write"


def _without(inside: _Inside, dead: set[int]) -> _Inside:
    """Return `inside` without `dead`."""
    if not dead:
        return inside

    def rest(held: Held) -> Held:
        return {owner: count for owner, count in held.items() if owner not in dead}

    return _Inside(0 if inside.writer in dead else inside.writer, rest(inside.readers), rest(inside.waiting))


class View:
    """One side of a `ReadWriteLock`, used like a `Lock`."""

    def __init__(self, lock: ReadWriteLock, role: str) -> None:
        self._lock = lock
        self._role = role

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._lock, self._role)

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Wait for this side: True once this process holds it; False after `timeout` seconds (-1, None: never)."""
        seconds = patience(blocking, timeout)
        return self._lock._read(seconds) if self._role == "reader" else self._lock._write(seconds)

    def release(self) -> None:
        """Release this side. Raises RuntimeError if this process does not hold it."""
        self._lock._leave(self._role)

    def locked(self) -> bool:
        """Tell whether anybody holds this side, at this moment."""
        inside = self._lock._look()
        return bool(inside.readers if self._role == "reader" else inside.writer)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{self._role} of {self._lock!r}>"
