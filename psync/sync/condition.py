"""Condition variable: releases a lock, waits for a notification from a holder of the lock, and takes it again.

A waiter draws a ticket while it holds the lock; `notify` moves the first tickets, in the order in which they were
drawn, to those that may go on. The fact that decides: the change of the shared value that moves a ticket. `notify`
passes over a dead waiter's ticket; a ticket that was moved for a waiter that died since goes to the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from psync.engine.system.reentry import takes_effect
from psync.store.sentinels import NOT_YET
from psync.sync.lock import Lock
from psync.sync.primitive import Place, Primitive
from psync.sync.rlock import RLock
from psync.sync.shared_state import SharedState
from psync.sync.wait import Waiter, dead_of, names_of

T = TypeVar("T")


class _Tickets(NamedTuple):
    drawn: int = 0
    """The number of tickets ever drawn."""
    waiting: tuple[tuple[int, int], ...] = ()
    """(number, owner), in the order of drawing."""
    moved: tuple[tuple[int, int], ...] = ()
    """Tickets whose waiters may go on, and have not yet."""


class ConditionStatistics(NamedTuple):
    """Snapshot of a condition: see `Condition.statistics`."""

    waiting: tuple[str, ...]
    """The waiters, for people."""


class Condition(Primitive):
    """`threading.Condition` among processes. `lock`: a `Lock` or `RLock` of psync's; None: an `RLock` of its own.

    >>> import tempfile
    >>> changed = Condition(tempfile.mkdtemp(), "changed")
    >>> with changed:
    ...     changed.wait(timeout=0.01)
    False
    """

    _kind = "condition"

    def __init__(self, db: Place, name: str, lock: Lock | None = None) -> None:
        if lock is not None and not isinstance(lock, Lock):
            raise TypeError(f"a condition's lock is a Lock or RLock of psync's, not {lock!r}")
        super().__init__(db, name)
        self._lock = _OwnLock(self._engine, name) if lock is None else lock
        self._shared = SharedState(self._engine, self._where, _Tickets())
        self._notified = self._where + "/moved"
        self._waiter = Waiter(self._engine, self._notified)
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, None if isinstance(self._lock, _OwnLock) else self._lock

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, where)

    def locked(self) -> bool:
        """Tell whether anybody holds the lock, at this moment."""
        return self._lock.locked()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock until notified, then take it again; False after `timeout` seconds (None: never).

        Raises RuntimeError if the caller does not hold the lock.
        """
        self._check_lock("wait")
        ticket = self._draw()
        depth = self._lock._release_save()
        moved = False
        try:
            look: Callable[[], Any] = lambda: True if ticket in self._shared.look().moved else NOT_YET  # noqa: E731
            self._waiter.until(look, timeout, self._pass_over_the_dead)
        finally:
            self._lock._acquire_restore(depth)
            moved = self._put_away(ticket)
        return moved

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until ``predicate()`` is true, and return its value, which is false after `timeout` seconds."""
        deadline = None if timeout is None else self._engine.now() + timeout
        while not (result := predicate()):
            left = None if deadline is None else deadline - self._engine.now()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    @takes_effect
    def notify(self, n: int = 1) -> None:
        """Wake up to `n` waiters. Raises RuntimeError if the caller does not hold the lock."""
        self._check_lock("notify")

        def move(tickets: _Tickets) -> _Tickets:
            waiting = list(tickets.waiting)
            moved: list[tuple[int, int]] = []
            while waiting and len(moved) < n:
                ticket = waiting.pop(0)
                if not dead_of(self._engine, [ticket[1]]):
                    moved.append(ticket)
            return tickets._replace(waiting=tuple(waiting), moved=(*tickets.moved, *moved))

        self._move(move)

    @takes_effect
    def notify_all(self) -> None:
        """Wake all waiters. Raises RuntimeError if the caller does not hold the lock."""
        self._check_lock("notify")
        self._move(lambda tickets: tickets._replace(waiting=(), moved=tickets.moved + tickets.waiting))

    def _move(self, move: Callable[[_Tickets], _Tickets]) -> None:
        if self._shared.look().waiting:  # each waiter drew its ticket under the lock that we hold: none is missed
            self._shared.change(move)
            self._engine.announce(self._notified)

    def _check_lock(self, verb: str) -> None:
        if not self._lock._is_owned():
            raise RuntimeError(f"cannot {verb} on the condition {self.name!r}: its lock is not held here")

    def _draw(self) -> tuple[int, int]:
        me = self._engine.owner()

        def draw(tickets: _Tickets) -> _Tickets:
            number = tickets.drawn + 1
            return tickets._replace(drawn=number, waiting=(*tickets.waiting, (number, me)))

        return self._shared.change(draw).waiting[-1]

    def _put_away(self, ticket: tuple[int, int]) -> bool:
        """Remove the ticket; True if a notification had moved it."""
        moved = False

        def put_away(tickets: _Tickets) -> _Tickets:
            nonlocal moved
            moved = ticket in tickets.moved
            return tickets._replace(waiting=_without(tickets.waiting, ticket), moved=_without(tickets.moved, ticket))

        self._shared.change(put_away)
        return moved

    def _pass_over_the_dead(self) -> None:
        """Remove the tickets of dead waiters, and move another waiter's ticket for each that had been moved."""
        tickets = self._shared.look()
        dead = set(dead_of(self._engine, {owner for _, owner in tickets.waiting + tickets.moved}))
        if not dead:
            return

        def pass_over(tickets: _Tickets) -> _Tickets:
            moved = [ticket for ticket in tickets.moved if ticket[1] not in dead]
            waiting = [ticket for ticket in tickets.waiting if ticket[1] not in dead]
            lost = len(tickets.moved) - len(moved)
            return tickets._replace(waiting=tuple(waiting[lost:]), moved=(*moved, *waiting[:lost]))

        self._shared.change(pass_over)
        self._engine.announce(self._notified)

    def statistics(self) -> ConditionStatistics:
        """Return a snapshot; changes nothing."""
        return ConditionStatistics(names_of(self._engine, self._waiting()))

    def _waiting(self) -> list[int]:
        """Return the owners of the waiters in order, without the dead."""
        owners = [owner for _, owner in self._shared.look().waiting]
        dead = set(dead_of(self._engine, set(owners)))
        return [owner for owner in owners if owner not in dead]

    def _state(self) -> str:
        return f"{len(self._waiting())} waiting, {self._lock!r}"


class _OwnLock(RLock):
    """The lock that comes with a condition."""

    _kind = "condition"


def _without(tickets: tuple[tuple[int, int], ...], ticket: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple(other for other in tickets if other != ticket)
