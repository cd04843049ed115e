"""Prefetch: a loop claims several short tasks at once, as many as it works off in a moment and no more than its share.

Prefetched tasks are claimed and not begun. They go back at once when tasks turn out to be slow, when the loop is left,
or when the engine is closed. So that none waits for a slow task that is still being worked on, a reaper thread gives
them back, and records what is in the ack buffer. The thread runs only while there is something of that, and for
REAPER_IDLE_S after. The fact that decides within this process: removing the record from `Prefetched`; the thread that
removes it begins the task, or gives it back. A forked child has prefetched nothing.

Not promised: that the thread gets to run beside a task that never releases the interpreter lock.
"""

from __future__ import annotations

import threading
from collections import deque

from psync.engine.contract.engine import Engine
from psync.engine.contract.log import Record
from psync.engine.system import fork_hooks
from psync.engine.system.bell import Bell
from psync.sync.queue.ack_buffer import ACK_DELAY_S, AckBuffer
from psync.sync.queue.claims import Claims
from psync.sync.queue.priorities import Priority

MAX_BATCH_TASKS = 32
BATCH_WORK_S = 0.002
"""As much work as is claimed at once."""
SLOW_TASK_S = 0.001
"""After a task that takes this long, batches start small again; after two in a row nothing stays prefetched."""
REMOTE_SCALE, MAX_REMOTE_BATCH_TASKS = 25, 64
"""On a remote engine, which gets a request for each claim and acknowledgement, both times are multiplied by this, and
batches may be larger."""
REAPER_IDLE_S = 0.2
"""The reaper thread ends when it had no work for this time."""
REAPER_PERIOD_S = ACK_DELAY_S / 2
REAPER_JOIN_S = 1.0


class BatchSize:
    """Measures how long the tasks of one loop take, and so how many to claim next (`tasks`)."""

    def __init__(self, *, remote: bool = False) -> None:
        scale, self._max = (REMOTE_SCALE, MAX_REMOTE_BATCH_TASKS) if remote else (1, MAX_BATCH_TASKS)
        self._work_s, self._slow_s = BATCH_WORK_S * scale, SLOW_TASK_S * scale
        self.tasks = 1
        self._spent_s = 0.0
        self._count = 0
        self._last_was_slow = False

    def took(self, seconds: float) -> bool:
        """A task took so long; True if prefetched tasks should not wait for another one like it.

        One slow task among short ones may only have lost the processor to another process.
        """
        if seconds >= self._slow_s:
            again = self._last_was_slow or seconds >= ACK_DELAY_S
            self.tasks, self._spent_s, self._count, self._last_was_slow = 1, 0.0, 0, True
            return again
        self._spent_s += seconds
        self._count += 1
        if self._count >= self.tasks:
            fitting = self._work_s * self._count / self._spent_s if self._spent_s > 0 else self._max
            self.tasks = max(1, min(2 * self.tasks, self._max, int(fitting)))
            self._spent_s, self._count = 0.0, 0
        self._last_was_slow = False
        return False


class Batch:
    """The tasks that one loop has prefetched, in order. The loop takes from the left, the reaper from the right."""

    __slots__ = ("began", "claims")

    def __init__(self) -> None:
        self.claims = deque[tuple[Priority, Record]]()
        self.began = 0.0
        """When the loop last began a task, by the engine's clock."""


class Prefetched:
    """The claims of this process on one queue's tasks that are not begun."""

    def __init__(self, claims: Claims, engine: Engine) -> None:
        self.claims = claims
        self._now = engine.now
        self._helpers = engine.helpers
        """Whether psync may start a thread here."""
        self._all: dict[int, tuple[Priority, Record]] = {}
        """By `id` of the record. The record is kept alive here, so no other can get the same `id`."""
        self._batches: set[Batch] = set()
        self.ack_buffer = AckBuffer(claims, engine, ensure_reaper=self._ensure_reaper)
        self._reaper: threading.Thread | None = None
        self._stopped = Bell()
        """Rung to end the reaper thread; each thread has its own."""
        self._starting = threading.RLock()
        self._giving = threading.RLock()
        """Held while claims are given back: one thread at a time and the last claim first, or the tasks would wait in
        another order than before. Reentrant, because the garbage collector may end a forgotten loop at any moment, in
        any thread."""
        fork_hooks.remember(self)

    def add(self, priority: Priority, records: list[Record]) -> None:
        for record in records:
            self._all[id(record)] = priority, record

    def fill(self, batch: Batch, priority: Priority, records: list[Record]) -> None:
        """Put `records`, just added, into a loop's batch, under the eyes of the reaper."""
        batch.began = self._now()
        batch.claims.extend([(priority, record) for record in records])
        self._batches.add(batch)
        self._ensure_reaper()

    def _ensure_reaper(self) -> None:
        if self._reaper is not None:
            return
        with self._starting:
            if self._reaper is None and self._helpers:
                self._stopped = Bell()
                name = "psync reaper of prefetched tasks"
                self._reaper = threading.Thread(
                    target=self._reap_until_idle, args=(self._stopped,), name=name, daemon=True
                )
                self._reaper.start()

    def _reap_until_idle(self, stopped: Bell) -> None:
        """The reaper thread: give back and record, until nothing has been left to do for a while."""
        idle = 0.0
        try:
            while idle < REAPER_IDLE_S and not stopped.wait(REAPER_PERIOD_S):
                idle = 0.0 if self._reap() else idle + REAPER_PERIOD_S
        finally:
            # The thread is unregistered before it looks once more: a loop that filled its batch too early to start
            # another thread is seen by this look.
            self._reaper = None
            if self.ack_buffer or any(batch.claims for batch in list(self._batches)):
                self._ensure_reaper()

    def remove(self, record: Record) -> bool:
        """True for the one thread that may begin the task, or give it back."""
        return self._all.pop(id(record), None) is not None

    def give_back(self) -> None:
        """Give back everything that is prefetched."""
        with self._giving:
            for key in reversed(list(self._all)):  # the task that is given back last is claimed first
                priority, record = self._all.pop(key, (None, None))  # a loop may have taken it meanwhile
                if priority is not None and record is not None:
                    self.claims.give_up_quietly(priority, record)

    def leave(self) -> None:
        """The engine is about to be closed: record and give back everything, and end the thread."""
        self.ack_buffer.record_quietly()
        self.give_back()
        for batch in list(self._batches):
            batch.claims.clear()
        reaper = self._reaper
        if reaper is not None:
            self._stopped.ring()
            if reaper is not threading.current_thread():
                reaper.join(REAPER_JOIN_S)  # it may be giving something back

    def give_back_from(self, batch: Batch) -> None:
        """Give back what one loop has prefetched."""
        claims = batch.claims
        with self._giving:
            while claims:
                try:
                    priority, record = claims.pop()
                except IndexError:  # the loop took the last one meanwhile
                    return
                if self.remove(record):
                    self.claims.give_up_quietly(priority, record)

    def wait_for_giving(self) -> None:
        """Return when every claim that is being given back can be made again."""
        with self._giving:
            pass

    def drop(self, batch: Batch) -> None:
        """The loop is over: give back its batch. Raises what `AckBuffer.end_loop` raises."""
        try:
            self.give_back_from(batch)
            self._batches.discard(batch)
        finally:
            self.ack_buffer.end_loop()

    def _reap(self) -> bool:
        """Give back what waits for a slow task, and record due acknowledgements; True if more work may come."""
        if self.ack_buffer.is_due(self._now()):
            self.ack_buffer.record_quietly()
        needed = bool(self.ack_buffer)
        for batch in list(self._batches):
            if batch.claims:
                if self._now() - batch.began >= ACK_DELAY_S:
                    self.give_back_from(batch)
                else:
                    needed = True
        return needed

    def after_fork(self) -> None:
        """Called in a forked child: the claims and the thread are the parent's."""
        self.claims.after_fork()
        self._all.clear()
        self._batches.clear()
        self._reaper = None
        self._starting = threading.RLock()
        self._giving = threading.RLock()
