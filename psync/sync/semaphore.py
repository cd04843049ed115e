"""Semaphore: admits a number of processes at a time, and takes back the permits of the dead.

The fact that decides: the change of the shared value in which one free permit becomes one that this process holds.
A waiter probes now and then for dead holders, and frees their permits.

A `Semaphore` is also used for signals: some processes release permits, others acquire them, and nobody gives any back.
So the permits of the dead come back only until there are as many free permits as there were in the beginning.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

from psync.engine.system.reentry import takes_effect
from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, dead_of, names_of, patience

Held = dict[int, int]
"""Permits by owner. Never changed in place."""


class _Permits(NamedTuple):
    free: int
    held: Held


class SemaphoreStatistics(NamedTuple):
    """Snapshot of a semaphore: see `Semaphore.statistics`."""

    value: int
    """Free permits."""
    holders: tuple[str, ...]


def less(held: Held, owner: int, count: int = 1) -> Held:
    """Return `held` with `count` permits fewer for `owner`."""
    rest = {**held, owner: held[owner] - count}
    return rest if rest[owner] else {other: number for other, number in held.items() if other != owner}


def more(held: Held, owner: int) -> Held:
    """Return `held` with one permit more for `owner`."""
    return {**held, owner: held.get(owner, 0) + 1}


class Semaphore(Primitive):
    """`threading.Semaphore` among processes: `value` permits.

    >>> import tempfile
    >>> seats = Semaphore(tempfile.mkdtemp(), "seats", 2)
    >>> with seats:
    ...     seats.get_value()
    1

    Not promised: that the longest waiter is next.
    """

    _kind = "semaphore"

    def __init__(self, db: Place, name: str, value: int = 1) -> None:
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"a semaphore begins with 0 or more permits, not {value!r}")
        super().__init__(db, name)
        self._value = value
        self._shared = SharedState(self._engine, self._where, _Permits(value, {}))
        self._freed = self._where + "/freed"
        self._waiter = Waiter(self._engine, self._freed)

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self._value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Wait for a permit: True once this process has one more; False after `timeout` seconds (None: never).

        4 system calls (stat flock pwrite flock), floor 3, when one is free.
        """
        seconds = patience(blocking, timeout)
        if self._take():
            return True
        self._free_the_dead()
        if seconds == 0:
            return self._take()

        def look() -> Any:
            return True if self._shared.look().free and self._take() else NOT_YET

        return self._waiter.until(look, seconds, self._free_the_dead) is True

    def _take(self) -> bool:
        me = self._engine.owner()
        taken = False

        def take(permits: _Permits) -> _Permits:
            nonlocal taken
            taken = permits.free > 0
            return _Permits(permits.free - 1, more(permits.held, me)) if taken else permits

        self._shared.change(take)
        return taken

    @takes_effect
    def release(self, n: int = 1) -> None:
        """Free `n` more permits, whichever processes acquired them."""
        if n < 1:
            raise ValueError("n must be one or more")
        me = self._engine.owner()

        def release(permits: _Permits) -> _Permits:
            self._check_bound(permits.free + n)
            held = permits.held
            for _ in range(n):
                if held:  # this process's permits go first, then the oldest holder's
                    held = less(held, me if me in held else next(iter(held)))
            return _Permits(permits.free + n, held)

        self._shared.change(release)
        self._engine.announce(self._freed)

    def _check_bound(self, free: int) -> None:
        """Raise ValueError if `free` permits are too many."""

    def _free_the_dead(self) -> None:
        dead = dead_of(self._engine, self._shared.look().held)
        if dead:
            self._shared.change(lambda permits: self._without(permits, dead))
            self._engine.announce(self._freed)

    def _without(self, permits: _Permits, dead: list[int]) -> _Permits:
        """Return `permits` with those free that `dead` held."""
        back = sum(permits.held.get(owner, 0) for owner in dead)
        held = {owner: count for owner, count in permits.held.items() if owner not in dead}
        return _Permits(max(permits.free, min(permits.free + back, self._value)), held)

    def _look(self) -> _Permits:
        """Read the state, with the permits of the dead counted as free."""
        permits = self._shared.look()
        return self._without(permits, dead_of(self._engine, permits.held))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    def get_value(self) -> int:
        """Return the number of free permits, at this moment."""
        return self._look().free

    def locked(self) -> bool:
        """Tell whether no permit is free, at this moment."""
        return self.get_value() == 0

    def statistics(self) -> SemaphoreStatistics:
        """Return a snapshot; changes nothing."""
        permits = self._look()
        return SemaphoreStatistics(permits.free, names_of(self._engine, permits.held))

    def _state(self) -> str:
        permits = self._look()
        return f"{permits.free} free, {sum(permits.held.values())} held"


class BoundedSemaphore(Semaphore):
    """`threading.BoundedSemaphore` among processes: a `release` too many is a ValueError."""

    _kind = "bounded"

    def _check_bound(self, free: int) -> None:
        if free > self._value:
            raise ValueError(f"semaphore {self.name!r} released too many times: it has {self._value} permits")
