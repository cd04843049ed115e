"""To keep others out of something until we let go, or are dead: what mutexes, guards and held names are made of.

A hold is a string on the server: the session that has it, and a token that grows with every hold of the store. The
fact that decides: whether that string is there and its session's key is, in the very script that wants to change
something. So who lost its lease changes nothing any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from psync.engine import clock, forks
from psync.engine.redis import scripts
from psync.errors import StoreFailed

if TYPE_CHECKING:
    from psync.engine.redis.engine import RedisEngine

AT_ONCE = 3
"""How often to try again before it is worth while to be woken."""
LOOK = 0.4
"""Seconds after which a waiter looks whether who is in its way has died."""


class Hold(NamedTuple):
    session: int
    token: int
    value: bytes | None = None
    """What stood at the name when the hold began."""

    @property
    def proof(self) -> bytes:
        return b"%d %d" % (self.session, self.token)


class Holds:
    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine
        self._mine: dict[tuple[bytes, int], tuple[Hold, int]] = {}
        """By what is held and the thread: the hold and how deep it is."""
        forks.remember(self)

    def after_fork(self) -> None:
        self._mine = {}

    def proof(self, what: bytes) -> bytes:
        """What this thread shows to change what it holds itself; empty if it does not hold it."""
        if not self._mine:
            return b""
        found = self._mine.get((what, threading.get_ident()))
        return found[0].proof if found else b""

    def until_free(self, what: bytes, attempt: Callable[[], list[Any]], timeout: float | None = None) -> list[Any]:
        """What `attempt` answers once nobody keeps it out; the answer BUSY after `timeout` seconds."""
        answer = attempt()
        if answer[0] != scripts.BUSY:
            return answer
        if (what, threading.get_ident()) in self._mine and not what.startswith(b"m:"):
            raise RuntimeError(f"{what[2:].decode()!r} is held by this very thread, which would wait for itself")
        for _ in range(AT_ONCE if timeout is None else 0):
            answer = attempt()
            if answer[0] != scripts.BUSY:
                return answer
        return self._wait(what, attempt, timeout, int(answer[1]))

    def _wait(self, what: bytes, attempt: Callable[[], list[Any]], timeout: float | None, session: int) -> list[Any]:
        end = None if timeout is None else clock.monotonic() + timeout
        owners = self._engine.owners
        owners.judge(session)
        if timeout == 0:
            return attempt()
        with self._engine.watching([b"hold/" + what]) as watch:
            while True:
                answer = attempt()
                left = LOOK if end is None else min(LOOK, end - clock.monotonic())
                if answer[0] != scripts.BUSY or left <= 0:
                    return answer
                owners.judge(int(answer[1]))
                watch.pause(left)

    def lay(self, what: bytes, read: bytes = b"", timeout: float | None = None) -> Hold | None:
        """Nobody else holds or changes `what` from now on; None after `timeout` seconds. `read`: a key to read then."""
        owners = self._engine.owners
        while True:
            session = owners.mine()
            answer = self.until_free(
                what,
                lambda session=session: self._engine.server.run(scripts.HOLD, what, session, read),  # type: ignore[misc]
                timeout,
            )
            if answer[0] == scripts.NOBODY:
                owners.expired(session)
                continue
            if answer[0] == scripts.BUSY:
                return None
            owners.hold(session, 1)
            return Hold(session, int(answer[1]), answer[2])

    def let_go(self, what: bytes, hold: Hold) -> bool:
        """Whether it was still ours."""
        _, was = self._engine.server.run(scripts.RELEASE, what, hold.proof)
        self._engine.owners.hold(hold.session, -1)
        return bool(was)

    @contextmanager
    def held(self, what: bytes, read: bytes = b"") -> Iterator[Hold]:
        """Keep others out for the length of the block; in it this thread's verbs on `what` work. May be nested."""
        key = what, threading.get_ident()
        found = self._mine.get(key)
        if found is not None:
            if what.startswith(b"l:"):
                self._mine[key] = found[0], found[1] + 1
                try:
                    yield found[0]
                finally:
                    self._mine[key] = found
                return
            raise RuntimeError(f"{what[2:].decode()!r} is held by this very thread, which would wait for itself")
        hold = self.lay(what, read)
        assert hold is not None
        self._mine[key] = hold, 1
        try:
            yield hold
        finally:
            if self._mine.pop(key, None) is not None:  # else we are a forked child, which holds nothing
                self.let_go(what, hold)

    def is_over(self, what: bytes, hold: Hold) -> None:
        """The server let go of it: there is nothing to give back."""
        if self._mine.pop((what, threading.get_ident()), None) is not None:
            self._engine.owners.hold(hold.session, -1)

    def lost(self, what: bytes) -> StoreFailed:
        name = what[2:].decode(errors="replace")
        return StoreFailed(
            f"{name!r} is not held by this process any more: the server did not hear of it for longer than its lease "
            f"({self._engine.address.lease:g} s), and nothing was changed. Try again; give a longer lease= in the URL "
            "where processes are stopped or cut off for so long",
            key=name,
        )
