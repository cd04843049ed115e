"""To keep others out of something until we let go, or are dead: what mutexes, guards and held names are made of.

A hold is a string on the server: the session that has it, and a number that this process drew for it before it asked.
The fact that decides: whether that string is there and its session's key is, in the very script that wants to change
something. So who lost its lease changes nothing any more; and who was interrupted while it asked can let go of what it
perhaps got, though it never heard its token (which grows with every hold of the store).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from psync.engine.redis import lua
from psync.engine.system import clock, fork_hooks
from psync.errors import StoreFailed

if TYPE_CHECKING:
    from psync.engine.redis.engine import RedisEngine

K = TypeVar("K")
AT_ONCE = 3
"""How often to try again before it is worth while to be woken."""
LOOK = 0.4
"""Seconds after which a waiter looks whether who is in its way has died."""


class Hold(NamedTuple):
    session: int
    proof: bytes
    """What stands on the server as long as it lasts."""
    token: int
    value: bytes | None = None
    """What stood at the name when the hold began."""


class Holds:
    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine
        self._mine: dict[tuple[bytes, int], Hold] = {}
        """By what is held and the thread."""
        self._numbers = itertools.count()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._mine = {}

    def proof(self, what: bytes) -> bytes:
        """What this thread shows to change what it holds itself; empty if it does not hold it."""
        if not self._mine:
            return b""
        found = self._mine.get((what, threading.get_ident()))
        return found.proof if found else b""

    def until_free(self, what: bytes, attempt: Callable[[], list[Any]], timeout: float | None = None) -> list[Any]:
        """What `attempt` answers once nobody keeps it out; the answer BUSY after `timeout` seconds."""
        answer = attempt()
        if answer[0] != lua.BUSY:
            return answer
        if (what, threading.get_ident()) in self._mine and not what.startswith(b"m:"):
            raise RuntimeError(f"{what[2:].decode()!r} is held by this very thread, which would wait for itself")
        for _ in range(AT_ONCE if timeout is None else 0):
            answer = attempt()
            if answer[0] != lua.BUSY:
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
                if answer[0] != lua.BUSY or left <= 0:
                    return answer
                owners.judge(int(answer[1]))
                watch.pause(left)

    def lay(
        self, what: bytes, keep: Callable[[Hold], object], read: bytes = b"", timeout: float | None = None
    ) -> Hold | None:
        """Nobody else holds or changes `what` from now on; None after `timeout` seconds. `read`: a key to read then.

        `keep` is told of the hold. If anything raises before it was, a signal's handler perhaps, nothing is held.
        """
        owners = self._engine.owners
        while True:
            session = owners.mine()
            proof = b"%d %d" % (session, next(self._numbers))
            try:
                answer = self._ask(what, session, proof, read, timeout)
                if answer[0] == lua.OK:
                    owners.hold(session, proof)
                    hold = Hold(session, proof, int(answer[1]), answer[2])
                    keep(hold)
                    return hold
            except BaseException as error:
                owners.undo(what, session, proof, later=isinstance(error, StoreFailed))
                raise
            if answer[0] == lua.BUSY:
                return None
            owners.expired(session)

    def _ask(self, what: bytes, session: int, proof: bytes, read: bytes, timeout: float | None) -> list[Any]:
        run = self._engine.server.run
        return self.until_free(what, lambda: run(lua.HOLD, what, session, proof, read), timeout)

    def let_go(self, what: bytes, kept: dict[K, Hold], key: K) -> bool | None:
        """`kept` has it no more: whether it was still ours; None if that had it not. It is let go of in any case, also
        when a signal's handler raises."""
        hold = kept.get(key)
        if hold is None:
            return None
        owners = self._engine.owners
        try:
            kept.pop(key, None)
            return owners.let_go(what, hold.session, hold.proof)
        except StoreFailed:
            raise
        except BaseException:
            owners.let_go(what, hold.session, hold.proof)
            raise

    @contextmanager
    def held(self, what: bytes, read: bytes = b"") -> Iterator[Hold]:
        """Keep others out for the length of the block; in it this thread's verbs on `what` work. May be nested."""
        key = what, threading.get_ident()
        found = self._mine.get(key)
        if found is not None:
            if not what.startswith(b"l:"):
                raise RuntimeError(f"{what[2:].decode()!r} is held by this very thread, which would wait for itself")
            yield found
            return

        def keep(hold: Hold) -> None:
            self._mine[key] = hold

        try:
            hold = self.lay(what, keep, read)
            assert hold is not None
            yield hold
        finally:
            self.let_go(what, self._mine, key)  # a forked child holds nothing

    def is_over(self, what: bytes, hold: Hold) -> None:
        """The server let go of it: there is nothing to give back."""
        if self._mine.pop((what, threading.get_ident()), None) is not None:
            self._engine.owners.drop(hold.session, hold.proof)

    def lost(self, what: bytes) -> StoreFailed:
        name = what[2:].decode(errors="replace")
        return StoreFailed(
            f"{name!r} is not held by this process any more: the server did not hear of it for longer than its lease "
            f"({self._engine.address.lease:g} s), and nothing was changed. Try again; give a longer lease= in the URL "
            "where processes are stopped or cut off for so long",
            key=name,
        )
