"""Ack buffer: on a remote engine the acknowledgements of a loop's tasks are recorded together, not by a request each.

The buffer is in memory. It is recorded before the loop claims more tasks, waits, or is left; when it is full; after
ACK_DELAY_S, by the reaper thread (see `prefetch`); and before this process reads anything that it may change. The facts
that decide are those of each acknowledgement (see `claims`): one whose claim was given away meanwhile changes nothing.

A process that is killed with acknowledgements in the buffer has not made them: those tasks run again, and have used an
attempt. Only first attempts are buffered, so a task that kills its worker costs each of the others one attempt at most.
A forked child has an empty buffer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from psync.engine.contract.engine import Engine
from psync.engine.system import fork_hooks
from psync.engine.system.reentry import Section
from psync.errors import PsyncError
from psync.sync.queue.claims import Ack, Claims

ACK_DELAY_S = 0.05
"""The longest time for which an acknowledgement waits for others, and prefetched tasks for a slow one."""
MIN_LEASE_S = 20 * ACK_DELAY_S
"""A shorter lease could run out while its acknowledgement waits."""
MAX_ACKS, MAX_ACK_BYTES = 256, 1 << 20
"""The buffer is full when it reaches this number of acknowledgements, or of bytes of results."""


class AckBuffer:
    """The acknowledgements of this process to one queue's tasks that are not recorded yet."""

    def __init__(self, claims: Claims, engine: Engine, ensure_reaper: Callable[[], object]) -> None:
        self._claims = claims
        self._now = engine.now
        self.enabled = engine.remote and claims.max_attempts > 1 and not 0 < claims.lease < MIN_LEASE_S
        """Whether buffering is worth while; if not, every acknowledgement is recorded at once."""
        self._ensure_reaper = ensure_reaper
        """Called when the buffer is no longer empty: a thread must record it in time."""
        self.loops = 0
        """How many loops over the queue go on in this process."""
        self._acks: list[Ack] = []
        self._bytes = 0
        self._since = 0.0
        """When the oldest acknowledgement was given."""
        self.after_fork()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        """Called in a forked child: the acknowledgements are the parent's."""
        self.loops = self._bytes = 0
        self._acks = []
        self._adding = Section("the acknowledgements of this process")
        self._recording = threading.RLock()
        self._busy = False
        """Whether the thread that holds `_recording` is recording."""

    def begin_loop(self) -> None:
        """A loop has begun: acknowledgements may be buffered."""
        with self._adding, self._adding.lock:
            self.loops += 1

    def end_loop(self) -> None:
        """A loop is over: record its acknowledgements, or raise why not; then a later call may record them."""
        with self._adding, self._adding.lock:
            self.loops -= 1
        self.record()

    def add(self, ack: Ack) -> bool:
        """Buffer an acknowledgement; False if no loop would record it: then the caller has to."""
        with self._adding, self._adding.lock:
            if not self.enabled or self.loops <= 0:
                return False
            if not self._acks:
                self._since = self._now()
            self._acks.append(ack)
            self._bytes += len(ack.ops or b"")
            full = len(self._acks) >= MAX_ACKS or self._bytes >= MAX_ACK_BYTES
        if full:
            self.record()
        elif len(self._acks) == 1:
            self._ensure_reaper()
        return True

    def record(self) -> None:
        """Record all that was added before this call. Raises what the store raises; acknowledgements that were not
        recorded stay in the buffer then, for the next call."""
        if not self._acks:
            return
        with self._recording:
            if self._busy:  # in this very thread: the garbage collector may end a forgotten loop at any moment
                return
            self._busy = True
            try:
                acks = self._acks[:]
                # all of them again after an error: one that was recorded has no claim left, so it changes nothing
                self._claims.finish_all(acks)
                with self._adding, self._adding.lock:
                    del self._acks[: len(acks)]
                    self._bytes = sum(len(ack.ops or b"") for ack in self._acks)
                    self._since = self._now()
            finally:
                self._busy = False

    def record_quietly(self) -> None:
        with contextlib.suppress(PsyncError):  # the next call raises it, or the tasks come back when this process ends
            self.record()

    def is_due(self, now: float) -> bool:
        """Whether the oldest acknowledgement has waited so long that the next chance may come too late."""
        return bool(self._acks) and now - self._since >= ACK_DELAY_S / 2

    def __bool__(self) -> bool:
        """Whether the buffer holds any."""
        return bool(self._acks)
