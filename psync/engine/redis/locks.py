"""Locks with a lease: exclude other sessions until released, or until their session ends. Mutexes, guards and held
names are made of them.

A lock is a string on the server: the session that holds it, and a number that the process drew for it before it asked.
The fact that decides: whether that string and the key of its session are there, in the very script that makes a
change. So a process that lost its lease changes nothing any more. A process that was interrupted while it asked can
release the lock that it perhaps got, though it never heard its token (which grows with every lock of the store).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from psync.engine.redis import lua
from psync.engine.redis.client import Server
from psync.engine.redis.pubsub import Channels, RedisWatch
from psync.engine.redis.sessions import Sessions
from psync.engine.system import clock, fork_hooks
from psync.engine.system.reentry import catch_up, postponed, reentrant
from psync.errors import StoreFailed

K = TypeVar("K")
TRIES_BEFORE_SLEEP = 3
"""Tries before a waiter subscribes and sleeps: most holders release sooner than that takes."""
HOLDER_CHECK_S = 0.4
"""After this time a waiter checks whether the holder has died."""


class LeaseLock(NamedTuple):
    """A lock that this process holds."""

    session: int
    proof: bytes
    """The string on the server, as long as the lock is held."""
    token: int
    value: bytes | None = None
    """The value at the locked name when the lock was acquired."""


class LeaseLocks:
    """The locks of this process."""

    def __init__(self, server: Server, sessions: Sessions, channels: Channels, grace: float) -> None:
        self.server = server
        self.sessions = sessions
        self.mutexes: dict[bytes, LeaseLock] = {}
        """The held mutexes; any thread may release one."""
        self._channels = channels
        self._grace = grace
        self._mine: dict[tuple[bytes, int], LeaseLock] = {}
        """All other locks, by the locked name and the thread."""
        self._under_way: list[tuple[bytes, int]] = []
        """The locks that are being acquired or released now, with the thread."""
        self._numbers = itertools.count()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._mine, self.mutexes, self._under_way = {}, {}, []

    def proof(self, what: bytes) -> bytes:
        """Return what this thread shows to change what it has locked itself; empty if it has not."""
        if not self._mine:
            return b""
        found = self._mine.get((what, threading.get_ident()))
        return found.proof if found else b""

    def until_free(
        self, what: bytes, attempt: Callable[[], list[Any]], timeout: float | None = None, *, acquiring: bool = False
    ) -> list[Any]:
        """Repeat `attempt` until no lock is in its way; returns its answer, which is BUSY after `timeout` seconds.

        Raises `ReentrantCall` if this thread has the lock, or is `acquiring` or releasing it in a call that this one
        interrupts.
        """
        answer = attempt()
        if answer[0] != lua.BUSY:
            return answer
        key = what, threading.get_ident()
        if (key in self._mine and not what.startswith(b"m:")) or self._under_way.count(key) > acquiring:
            raise reentrant(repr(what[2:].decode()))
        for _ in range(TRIES_BEFORE_SLEEP if timeout is None else 0):
            answer = attempt()
            if answer[0] != lua.BUSY:
                return answer
        return self._wait(what, attempt, timeout, int(answer[1]))

    def _wait(self, what: bytes, attempt: Callable[[], list[Any]], timeout: float | None, session: int) -> list[Any]:
        end = None if timeout is None else clock.monotonic() + timeout
        self.sessions.end_if_dead(session)
        if timeout == 0:
            return attempt()
        with RedisWatch(self._channels, [b"hold/" + what], self._grace) as watch:
            while True:
                answer = attempt()
                left = HOLDER_CHECK_S if end is None else min(HOLDER_CHECK_S, end - clock.monotonic())
                if answer[0] != lua.BUSY or left <= 0:
                    return answer
                self.sessions.end_if_dead(int(answer[1]))
                watch.pause(left)

    def acquire(
        self, what: bytes, keep: Callable[[LeaseLock], object], read: bytes = b"", timeout: float | None = None
    ) -> LeaseLock | None:
        """Lock `what`: no other session locks or changes it from now on. None after `timeout` seconds. `read`: a key
        whose value is read in the same script.

        `keep` is called with the lock. If anything raises before that, as a signal's handler may, nothing is locked.
        """
        under_way = what, threading.get_ident()
        self._under_way.append(under_way)
        try:
            return self._acquire(what, keep, read, timeout)
        finally:
            self._under_way.remove(under_way)
            if postponed:
                catch_up()

    def _acquire(
        self, what: bytes, keep: Callable[[LeaseLock], object], read: bytes, timeout: float | None
    ) -> LeaseLock | None:
        sessions = self.sessions
        while True:
            session = sessions.mine()
            proof = b"%d %d" % (session, next(self._numbers))
            try:
                answer = self._ask(what, session, proof, read, timeout)
                if answer[0] == lua.OK:
                    sessions.add(session, proof)
                    lock = LeaseLock(session, proof, int(answer[1]), answer[2])
                    keep(lock)
                    return lock
            except BaseException as error:
                sessions.undo(what, session, proof, later=isinstance(error, StoreFailed))
                raise
            if answer[0] == lua.BUSY:
                return None
            sessions.expired(session)

    def _ask(self, what: bytes, session: int, proof: bytes, read: bytes, timeout: float | None) -> list[Any]:
        run = self.server.run
        return self.until_free(what, lambda: run(lua.HOLD, what, session, proof, read), timeout, acquiring=True)

    def release(self, what: bytes, kept: dict[K, LeaseLock], key: K) -> bool | None:
        """Release the lock on `what` that `kept` has for `key`. Returns whether it was still ours; None if there is
        none. The lock is released in any case, also if a signal's handler raises."""
        lock = kept.get(key)
        if lock is None:
            return None
        under_way = what, threading.get_ident()
        self._under_way.append(under_way)
        try:
            kept.pop(key, None)
            return self.sessions.release(what, lock.session, lock.proof)
        except StoreFailed:
            raise
        except BaseException:
            self.sessions.release(what, lock.session, lock.proof)
            raise
        finally:
            self._under_way.remove(under_way)
            if postponed:
                catch_up()

    @contextmanager
    def held(self, what: bytes, read: bytes = b"") -> Iterator[LeaseLock]:
        """Lock `what` for the length of the block, in which this thread's own verbs on it work. Logs may be nested."""
        key = what, threading.get_ident()
        found = self._mine.get(key)
        if found is not None:
            if not what.startswith(b"l:"):
                raise reentrant(repr(what[2:].decode()))
            yield found
            return

        def keep(lock: LeaseLock) -> None:
            self._mine[key] = lock

        try:
            lock = self.acquire(what, keep, read)
            assert lock is not None
            yield lock
        finally:
            self.release(what, self._mine, key)  # finds none in a forked child, which holds nothing

    def ended(self, what: bytes, lock: LeaseLock) -> None:
        """Forget a lock that the server released itself, with the change that it was for."""
        if self._mine.pop((what, threading.get_ident()), None) is not None:
            self.sessions.remove(lock.session, lock.proof)

    def lost(self, what: bytes) -> StoreFailed:
        """Return the error for a lock that ended with its lease."""
        name = what[2:].decode(errors="replace")
        return StoreFailed(
            f"{name!r} is not held by this process any more: the server did not hear of it for longer than its lease "
            f"({self.server.address.lease:g} s), and nothing was changed. Try again; give a longer lease= in the URL "
            "where processes are stopped or cut off for so long",
            key=name,
        )
