"""So many at a time, and what the dead held comes back.

The fact that decides: the change of the shared value in which one free permit becomes one that this process holds.
Whoever waits looks now and then for holders that are dead, and frees what they held.

A `Semaphore` is also used for signals: some release what others acquire, and nobody gives anything back. So what the
dead held comes back only until there are as many free permits as there were in the beginning.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

from psync.store.sentinels import NOT_YET
from psync.sync.primitive import Place, Primitive
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, dead_of, names_of, patience

Held = dict[int, int]
"""Owner: how many permits it holds. Never changed in place."""


class _Permits(NamedTuple):
    free: int
    held: Held


class SemaphoreStatistics(NamedTuple):
    """What `Semaphore.statistics` saw."""

    value: int
    """Free permits."""
    holders: tuple[str, ...]


def less(held: Held, owner: int, count: int = 1) -> Held:
    """`held`, with `count` fewer of `owner`'s."""
    rest = {**held, owner: held[owner] - count}
    return rest if rest[owner] else {other: number for other, number in held.items() if other != owner}


def more(held: Held, owner: int) -> Held:
    """`held`, with one more of `owner`'s."""
    return {**held, owner: held.get(owner, 0) + 1}


class Semaphore(Primitive):
    """`threading.Semaphore` among processes: `value` permits.

    >>> import tempfile
    >>> seats = Semaphore(tempfile.mkdtemp(), "seats", 2)
    >>> with seats:
    ...     seats.get_value()
    1

    Not promised: that whoever waits longest is next.
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
        """True once this process has one more permit; False if there was none within `timeout` seconds (None: never).

        3 system calls (flock pwrite flock), floor 3, when one is free.
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

    def release(self, n: int = 1) -> None:
        """`n` more permits are free; who acquired them does not matter."""
        if n < 1:
            raise ValueError("n must be one or more")
        me = self._engine.owner()

        def release(permits: _Permits) -> _Permits:
            self._check_bound(permits.free + n)
            held = permits.held
            for _ in range(n):
                if held:  # mine, or those that were acquired first
                    held = less(held, me if me in held else next(iter(held)))
            return _Permits(permits.free + n, held)

        self._shared.change(release)
        self._engine.announce(self._freed)

    def _check_bound(self, free: int) -> None:
        """Raise ValueError if there must not be so many free permits."""

    def _free_the_dead(self) -> None:
        dead = dead_of(self._engine, self._shared.look().held)
        if dead:
            self._shared.change(lambda permits: self._without(permits, dead))
            self._engine.announce(self._freed)

    def _without(self, permits: _Permits, dead: list[int]) -> _Permits:
        """`permits`, with those free that `dead` held."""
        back = sum(permits.held.get(owner, 0) for owner in dead)
        held = {owner: count for owner, count in permits.held.items() if owner not in dead}
        return _Permits(max(permits.free, min(permits.free + back, self._value)), held)

    def _look(self) -> _Permits:
        """How it stands: what the dead hold is there to be had."""
        permits = self._shared.look()
        return self._without(permits, dead_of(self._engine, permits.held))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    def get_value(self) -> int:
        """How many permits are free, at this moment."""
        return self._look().free

    def locked(self) -> bool:
        """True if no permit is free, at this moment."""
        return self.get_value() == 0

    def statistics(self) -> SemaphoreStatistics:
        """A look that changes nothing."""
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
