"""Poll a network file system: one waiter of a process leads, and asks the server for all of them.

inotify sees only the changes of this host, so waiters poll, after growing pauses. A single waiter polls by reading its
names. If there are several, one leads: in each round it reads every awaited *change token* once, and wakes the waiters
whose token is new; the others sleep, and cost the server nothing. A leader whose wait is over hands over to another. So
no thread is needed besides the waiters, and a round costs as many requests as there are different tokens, however many
wait: one for a register, two for a log, one for a value and one for its folder.

A change token is the server's answer: the whole register, a log's numbers, or the status of a file. A status may stay
the same though the file changes once more within the same tick of the server's clock. So for SETTLED_S seconds after a
status was first read it counts as new in each round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

from psync.engine.contract.engine import Watch
from psync.engine.directory.fs.nfs_lookup import SETTLED_S
from psync.engine.directory.fs.presence import Presence
from psync.engine.system import clock, fork_hooks
from psync.engine.system.bell import Bell

FIRST_PAUSE_S, MAX_PAUSE_S, PAUSE_SHARE = 0.001, 0.1, 0.5
MAX_LATE_PAUSE_S, LATE_PAUSE_SHARE = 1.0, 0.01
"""A pause is a PAUSE_SHARE of the time waited so far, at least FIRST_PAUSE_S, at most MAX_PAUSE_S; after ten seconds it
grows by LATE_PAUSE_SHARE, up to MAX_LATE_PAUSE_S. So there are 20 rounds in the first second, then 10 a second, then
fewer, down to one. A change is seen after half a pause in the mean: 0.05 s in the first ten seconds."""
ROUNDS_PER_S = 20
"""Rounds a second, at most, of a process in which waits begin one after the other; and as many more at first."""
IDLE_FACTOR = 3.0
"""Between two rounds the server rests for this many times the length of a round: hundreds of processes may poll it."""
MAX_SLEEP_S = 10.0
"""Seconds after which a sleeping waiter reads by itself, whatever the tokens say."""


class ChangeToken(NamedTuple):
    key: str
    """Identifies the token."""
    read: Callable[[dict[str, bool]], Hashable]
    """Reads the token. The argument caches folder checks within one round. An error counts as a change."""
    exact: bool = True
    """Whether every change shows."""


TokensOf = Callable[[str], Iterable[ChangeToken]]


class PollCoordinator:
    """The waits of this process in one directory."""

    def __init__(self) -> None:
        self.after_fork()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may wait, too
        self._sleeping: list[PollingWatch] = []
        self._leader: PollingWatch | None = None
        self._ended = 0.0
        """When the last round was over,"""
        self._took = 0.0
        """and how long it took."""
        self._credit, self._counted = float(ROUNDS_PER_S), clock.monotonic()
        """How many rounds may follow each other at once, and when that was counted."""
        self._known: dict[str, tuple[Hashable, float]] = {}
        """Each token's last value, and when that was first read."""

    # -- sleeping ----------------------------------------------------------------------------------------

    def sleep(self, me: PollingWatch, seconds: float) -> None:
        """Return when a token of `me` is new, or when `me` waits alone, and should read by itself."""
        end = clock.monotonic() + min(seconds, MAX_SLEEP_S)
        try:
            with self._lock:
                self._sleeping.append(me)
                if self._leader is None:
                    self._leader = me
                else:
                    self._leader.bell.ring()  # it may sleep for longer than the new waiter wants to
            while not me.woken and (left := end - clock.monotonic()) > 0:
                if self._leader is me:
                    self._lead(me, end)
                    return
                me.bell.wait(left)
        finally:
            try:
                self._leave(me)
            except BaseException:  # a signal's handler raised in the middle of it
                self._leave(me)
                raise

    def _leave(self, me: PollingWatch) -> None:
        with self._lock:
            self._sleeping = [one for one in self._sleeping if one is not me]
            if self._leader is me:
                self._leader = self._sleeping[0] if self._sleeping else None
                if self._leader is not None:
                    self._leader.bell.ring()

    def _lead(self, me: PollingWatch, end: float) -> None:
        while not me.woken:
            with self._lock:
                alone = len(self._sleeping) == 1
                at = self._next_round(alone)
            now = clock.monotonic()
            if now < min(at, end) and me.bell.wait(min(at, end) - now):  # another waiter came
                continue
            if alone or clock.monotonic() >= end:
                return
            self._round()

    def _next_round(self, alone: bool) -> float:
        now = clock.monotonic()
        youngest = max(one.since for one in self._sleeping)
        waited = now - youngest
        pause = max(
            FIRST_PAUSE_S, min(waited * PAUSE_SHARE, MAX_PAUSE_S), min(waited * LATE_PAUSE_SHARE, MAX_LATE_PAUSE_S)
        )
        if alone:
            return now + pause
        self._credit = min(ROUNDS_PER_S, self._credit + (now - self._counted) * ROUNDS_PER_S)
        self._counted = now
        at = max(self._ended + max(pause, IDLE_FACTOR * self._took), youngest + FIRST_PAUSE_S)
        return at if self._credit >= 1 else max(at, now + (1 - self._credit) / ROUNDS_PER_S)

    # -- asking ------------------------------------------------------------------------------------------

    def _round(self) -> None:
        begun = clock.monotonic()
        with self._lock:
            self._credit -= 1
            tokens: dict[str, ChangeToken] = {}
            for one in self._sleeping:
                tokens.update(one.tokens or {})
        asked: dict[str, bool] = {}
        values = {key: _value_of(token, asked) for key, token in tokens.items()}
        now = clock.monotonic()
        known = {}
        fresh = set()
        for key, what in values.items():
            before, since = self._known.get(key, (what, now))
            known[key] = what, since if before == what else now
            if not tokens[key].exact and now - known[key][1] < SETTLED_S:
                fresh.add(key)
        with self._lock:
            self._known = known
            self._ended, self._took = now, now - begun
            for one in self._sleeping:  # not those who are reading: a token may be newer than what they see
                one.compare(values, fresh)

    def ended(self) -> None:
        """A wait has ended: the others may poll more often for a moment."""
        self._credit = float(ROUNDS_PER_S)


class PollingWatch(Watch):
    """A watch by polling. `tokens_of` gives a name's tokens; a waiter for a name without tokens reads in each round."""

    def __init__(self, rounds: PollCoordinator, presence: Presence, names: Sequence[str], tokens_of: TokensOf) -> None:
        self._rounds = rounds
        self._presence = presence
        self._names = names
        self._tokens_of = tokens_of
        self._seen: dict[str, Hashable] = {}
        """Each token's value before the last read."""
        self.since = 0.0
        self.bell = Bell()
        self.woken = False
        self.tokens: dict[str, ChangeToken] | None = None

    def __enter__(self) -> Watch:
        self.since = clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._rounds.ended()

    def pause(self, timeout: float | None) -> None:
        if timeout is not None and timeout <= 0:
            return
        self.woken = False
        self.tokens = self._tokens()
        self._rounds.sleep(self, MAX_SLEEP_S if timeout is None else timeout)
        if clock.monotonic() > self._presence.due:
            self._presence.look()

    def _tokens(self) -> dict[str, ChangeToken] | None:
        """None if one of the names has no token."""
        tokens: dict[str, ChangeToken] = {}
        for name in self._names:
            found = {token.key: token for token in self._tokens_of(name)}
            if not found:
                return None
            tokens.update(found)
        return tokens

    def compare(self, values: dict[str, Hashable], fresh: set[str]) -> None:
        """Wake this waiter if one of its tokens is new."""
        if self.tokens is None:
            self.woken = True
        else:
            for key in self.tokens:
                if key in values and (key in fresh or self._seen.get(key, _never) != values[key]):
                    self._seen[key] = values[key]
                    self.woken = True
        if self.woken:
            self.bell.ring()


_never = object()


def _value_of(token: ChangeToken, asked: dict[str, bool]) -> Hashable:
    try:
        return token.read(asked)
    except Exception:  # the waiter meets the same error when it reads, and can tell what it means
        return object()
