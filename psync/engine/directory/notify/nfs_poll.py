"""Waits on a network file system: of all who wait in one process, one asks the server, for all.

inotify sees only what this host does, so who waits asks again and again, after growing pauses. Who waits alone asks by
looking. Of several, one leads: in each of its rounds it asks once for each of the *signs* of what is awaited, and wakes
those for whom one is new; the others sleep, and cost the server nothing. Who leads and has what it waited for hands
over to another. So there is no thread beside those that wait, and a round costs as many requests as there are
different signs, however many wait: one for a register, two for a log, one for a value and one for its folder.

A sign is what the server says when it is asked: all of a register or of a log's numbers; or the status of a file. A
status may stay as it is though the file changes once more within the same tick of the server's clock. So for SETTLED
seconds after it was found it counts as new in each round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

from psync.engine.contract.engine import Watch
from psync.engine.directory.fs.nfs_lookup import SETTLED_S
from psync.engine.system import clock, fork_hooks

FIRST_PAUSE_S, MAX_PAUSE_S, PAUSE_SHARE = 0.001, 0.1, 0.5
MAX_LATE_PAUSE_S, LATE_PAUSE_SHARE = 1.0, 0.01
"""A pause is a SHARE of the time waited so far, at least FIRST seconds, at most LONGEST; after ten seconds it grows by
SHARE_LATER. So 20 looks in the first second, then 10 a second, then fewer, down to one; what happens is seen after half
a pause in the mean: 0.05 s in the first ten seconds."""
ROUNDS_PER_S = 20
"""Rounds a second of a process in which one after the other begins to wait; and as many more at first."""
IDLE_FACTOR = 3.0
"""A process that waits lets the server rest for so many times as long as a round took: it may be one of hundreds."""
MAX_SLEEP_S = 10.0
"""Seconds after which who sleeps looks by itself, whatever the signs say."""


class ChangeToken(NamedTuple):
    key: str
    """The same for the same sign."""
    read: Callable[[dict[str, bool]], Hashable]
    """Asks the server, but not of folders that it was asked of in the same round, with what it said. What this raises,
    whoever waits finds out by looking."""
    exact: bool = True
    """Whether every change shows."""


SignsOf = Callable[[str], Iterable[ChangeToken]]


class PollCoordinator:
    """The waits of this process in one directory."""

    def __init__(self) -> None:
        self.after_fork()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._sleeping: list[PollingWatch] = []
        self._leader: PollingWatch | None = None
        self._ended = 0.0
        """When the last round was over,"""
        self._took = 0.0
        """and how long it took."""
        self._credit, self._counted = float(ROUNDS_PER_S), clock.monotonic()
        """How many rounds may follow each other at once, and when that was counted."""
        self._known: dict[str, tuple[Hashable, float]] = {}
        """What each sign said, and when that was found."""

    # -- sleeping ----------------------------------------------------------------------------------------

    def sleep(self, me: PollingWatch, seconds: float) -> None:
        """Until there is something new for `me`, or `me` waits alone and should look by itself."""
        end = clock.monotonic() + min(seconds, MAX_SLEEP_S)
        try:
            with self._lock:
                self._sleeping.append(me)
                if self._leader is None:
                    self._leader = me
                else:
                    self._leader.bell.set()  # it may be asleep for longer than who has just come can wait
            while not me.woken and (left := end - clock.monotonic()) > 0:
                if self._leader is me:
                    self._lead(me, end)
                    return
                me.bell.wait(left)
                me.bell.clear()
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
                    self._leader.bell.set()

    def _lead(self, me: PollingWatch, end: float) -> None:
        while not me.woken:
            with self._lock:
                alone = len(self._sleeping) == 1
                at = self._next_round(alone)
            now = clock.monotonic()
            if now < min(at, end):
                me.bell.wait(min(at, end) - now)
                if me.bell.is_set():  # somebody came
                    me.bell.clear()
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
            signs: dict[str, ChangeToken] = {}
            for one in self._sleeping:
                signs.update(one.signs or {})
        asked: dict[str, bool] = {}
        said = {key: _said(sign, asked) for key, sign in signs.items()}
        now = clock.monotonic()
        known = {}
        fresh = set()
        for key, what in said.items():
            before, since = self._known.get(key, (what, now))
            known[key] = what, since if before == what else now
            if not signs[key].exact and now - known[key][1] < SETTLED_S:
                fresh.add(key)
        with self._lock:
            self._known = known
            self._ended, self._took = now, now - begun
            for one in self._sleeping:  # not those who are looking: what was found may be newer than what they see
                one.compare(said, fresh)

    def ended(self) -> None:
        """Somebody waits no more: others may ask more often for a moment."""
        self._credit = float(ROUNDS_PER_S)


class PollingWatch(Watch):
    """`signs_of` gives the signs of a name; none for what shows nowhere: who waits for that looks in each round."""

    def __init__(self, rounds: PollCoordinator, names: Sequence[str], signs_of: SignsOf) -> None:
        self._rounds = rounds
        self._names = names
        self._signs_of = signs_of
        self._seen: dict[str, Hashable] = {}
        """What each sign said before the last look."""
        self.since = 0.0
        self.bell = threading.Event()
        self.woken = False
        self.signs: dict[str, ChangeToken] | None = None

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
        self.signs = self._signs()
        self._rounds.sleep(self, MAX_SLEEP_S if timeout is None else timeout)

    def _signs(self) -> dict[str, ChangeToken] | None:
        """None if one of the names shows nowhere."""
        signs: dict[str, ChangeToken] = {}
        for name in self._names:
            found = {sign.key: sign for sign in self._signs_of(name)}
            if not found:
                return None
            signs.update(found)
        return signs

    def compare(self, said: dict[str, Hashable], fresh: set[str]) -> None:
        """Wake whoever waits here, if a sign is new."""
        if self.signs is None:
            self.woken = True
        else:
            for key in self.signs:
                if key in said and (key in fresh or self._seen.get(key, _never) != said[key]):
                    self._seen[key] = said[key]
                    self.woken = True
        if self.woken:
            self.bell.set()


_never = object()


def _said(sign: ChangeToken, asked: dict[str, bool]) -> Hashable:
    try:
        return sign.read(asked)
    except Exception:  # whatever it is: who looks finds it, and knows what it means
        return object()
