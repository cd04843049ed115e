"""How many tasks an iteration claims at once: as many as are worked off in a moment, and no more than its share.

What was claimed and is not worked on is in hand: it goes back at once when tasks turn out to be slow, when the loop is
left, or the engine is closed. So that nothing waits for a slow task that is still being worked on, a thread looks after
the hands of a process's loops, and after answers that are to be recorded (see `behind`). It is there only while there
is something of that, or was a moment ago. Who begins a task, or gives it back, is who removes it from what is in hand.
A forked child has none of it.

Not promised: that the thread comes to its turn beside a task that never lets go of the interpreter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from psync.engine.contract.log import Record
from psync.engine.system import fork_hooks
from psync.sync.queue.ack_buffer import PATIENCE, Behind
from psync.sync.queue.claims import Claims
from psync.sync.queue.priorities import Level

MOST = 32
"""Tasks that are claimed at once, at most."""
MOMENT = 0.002
"""Seconds: as much work as is claimed at once."""
SLOW = 0.001
"""Seconds: a task that takes so long is followed by batches that are small again; two in a row by nothing in hand."""
FAR, MOST_FAR = 25, 64
"""So many times as long both are where a server is asked for each claim and each answer; and MOST there."""
LINGER = 0.2
"""Seconds for which the thread stays when there is nothing to look after."""


class Pace:
    """How long tasks take in one loop, and so how many to claim next."""

    def __init__(self, *, far: bool = False) -> None:
        scale, self._most = (FAR, MOST_FAR) if far else (1, MOST)
        self._moment, self._slow = MOMENT * scale, SLOW * scale
        self.size = 1
        self._spent = 0.0
        self._count = 0
        self._stalled = False
        """Whether the last task was slow."""

    def took(self, seconds: float) -> bool:
        """A task was worked on for so long; True if what is in hand should not wait for another like it.

        One slow task among short ones may have been made so by somebody else who wanted the processor.
        """
        if seconds >= self._slow:
            again = self._stalled or seconds >= PATIENCE
            self.size, self._spent, self._count, self._stalled = 1, 0.0, 0, True
            return again
        self._spent += seconds
        self._count += 1
        if self._count >= self.size:
            fitting = self._moment * self._count / self._spent if self._spent > 0 else self._most
            self.size = max(1, min(2 * self.size, self._most, int(fitting)))
            self._spent, self._count = 0.0, 0
        self._stalled = False
        return False


class Hand:
    """What one loop claimed and has not begun, in order. The loop takes from the left, a giver from the right."""

    __slots__ = ("began", "claims")

    def __init__(self) -> None:
        self.claims = deque[tuple[Level, Record]]()
        self.began = 0.0
        """When the loop came by last, by the engine's clock."""


class InHand:
    """The claims of this process on one queue's tasks that are not begun."""

    def __init__(self, claims: Claims, now: Callable[[], float], *, helpers: bool, remote: bool) -> None:
        self._claims = claims
        self._now = now
        self._helpers = helpers
        """Whether there may be a thread beside those of the caller."""
        self._all: dict[int, tuple[Level, Record]] = {}
        """By `id` of the record, which is kept alive here: each is in it once."""
        self._hands: set[Hand] = set()
        self.behind = Behind(claims, now, remote=remote, look_after=self._keep)
        self.loops = 0
        """How many iterations go on in this process."""
        self._keeper: _Keeper | None = None
        self._starting = threading.Lock()
        self._giving = threading.RLock()
        """Held by who gives back: the last first, and one at a time, or they would wait in another order than before.
        Reentrant, because the collector may end a forgotten loop at any moment, in any thread."""
        fork_hooks.remember(self)

    def add(self, level: Level, records: list[Record]) -> None:
        for record in records:
            self._all[id(record)] = level, record

    def fill(self, hand: Hand, level: Level, records: list[Record]) -> None:
        """`records`, just added, are in a loop's hand, and looked after."""
        hand.began = self._now()
        hand.claims.extend([(level, record) for record in records])
        self._hands.add(hand)
        self._keep()

    def _keep(self) -> None:
        if self._keeper is not None:
            return
        with self._starting:
            if self._keeper is None and self._helpers:
                self._keeper = _Keeper(self)
                self._keeper.start()

    def unkept(self) -> None:
        """The keeper ends. It looks once more after it has said so: a loop that does not see that is seen."""
        self._keeper = None
        if self.behind or any(hand.claims for hand in list(self._hands)):
            self._keep()

    def remove(self, record: Record) -> bool:
        """True for the one who may begin the task, or give it back."""
        return self._all.pop(id(record), None) is not None

    def give_back(self) -> None:
        """All of it."""
        with self._giving:
            for key in reversed(list(self._all)):  # what is given up is the first to be taken again
                level, record = self._all.pop(key, (None, None))  # a loop may be faster
                if level is not None and record is not None:
                    self._claims.give_up_quietly(level, record)

    def leave(self) -> None:
        """The engine is about to be closed."""
        self.behind.record_quietly()
        self.give_back()
        for hand in list(self._hands):
            hand.claims.clear()
        keeper = self._keeper
        if keeper is not None:
            keeper.left.set()
            if keeper is not threading.current_thread():
                keeper.join(1.0)  # it may be giving something back

    def give_back_from(self, hand: Hand) -> None:
        claims = hand.claims
        with self._giving:
            while claims:
                try:
                    level, record = claims.pop()
                except IndexError:  # the loop was faster
                    return
                if self.remove(record):
                    self._claims.give_up_quietly(level, record)

    def wait_for_giver(self) -> None:
        """Return when all that was being given back can be taken again."""
        with self._giving:
            pass

    def drop(self, hand: Hand) -> None:
        """The loop is over. Raises what `Behind.end` raises."""
        try:
            self.give_back_from(hand)
            self._hands.discard(hand)
        finally:
            self.behind.end()

    def look_after(self) -> bool:
        """Give back what waits for a slow task, and record what waits; True if there is anything still."""
        if self.behind.is_due(self._now()):
            self.behind.record_quietly()
        kept = bool(self.behind)
        for hand in list(self._hands):
            if hand.claims:
                if self._now() - hand.began >= PATIENCE:
                    self.give_back_from(hand)
                else:
                    kept = True
        return kept

    def after_fork(self) -> None:
        self._all.clear()
        self._hands.clear()
        self.loops = 0
        self._keeper = None
        self._starting = threading.Lock()
        self._giving = threading.RLock()


class _Keeper(threading.Thread):
    """Looks after the hands of one queue's loops."""

    def __init__(self, in_hand: InHand) -> None:
        super().__init__(name="psync keeper of what is in hand", daemon=True)
        self._in_hand = in_hand
        self.left = threading.Event()

    def run(self) -> None:
        idle = 0.0
        try:
            while idle < LINGER and not self.left.wait(PATIENCE / 2):
                idle = 0.0 if self._in_hand.look_after() else idle + PATIENCE / 2
        finally:
            self._in_hand.unkept()
