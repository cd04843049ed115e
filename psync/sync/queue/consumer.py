"""Consumers: claim the tasks of a queue: one, several, or one after the other, as soon as there are any.

A consumer that waits also keeps the queue going for all: it gives back the tasks of dead workers and releases delayed
tasks that are due.
"""

from __future__ import annotations

import functools
import queue
import random
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

from psync.engine.contract.engine import Watch
from psync.engine.contract.log import Mark, Record, State
from psync.store.waiting import watched
from psync.sync.queue.delays import Delays
from psync.sync.queue.prefetch import Batch, BatchSize, Prefetched
from psync.sync.queue.priorities import Priorities, Priority
from psync.sync.queue.put import closed_error
from psync.sync.queue.task import Task
from psync.sync.queue.task_id import TaskLocation
from psync.sync.queue.task_index import TaskIndex
from psync.sync.wait import until_next_look

MAX_POLLS_PER_S = 400
"""Polls for a task by all waiting processes together, on a remote engine."""


class Consumer:
    """Claims tasks of one queue for this process."""

    def __init__(self, priorities: Priorities, index: TaskIndex, prefetched: Prefetched) -> None:
        self._engine = priorities.engine
        self._priorities = priorities
        self._index = index
        self._claims = prefetched.claims
        self._prefetched = prefetched
        self._delays = Delays(priorities)
        self._now = self._engine.now
        self._waiting: set[Watch] = set()

    def _maintain(self) -> None:
        """Recover claims and release delayed tasks, if this process has not done so for a while."""
        if self._engine.now() >= self._claims.next_look:
            self._claims.recover()
            self._delays.release_due()

    def wait(self, take: Callable[[], Any], block: bool, timeout: float | None) -> Any:
        """Return what `take` returns once that is true. Raises `queue.Empty`, or `QueueClosed`."""
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout!r}")
        found = self._wait_for_task(take, self._is_over, timeout if block else 0.0)
        if found:
            return found
        if self._is_over():
            raise closed_error(self._claims.queue_name)
        raise queue.Empty

    def _is_over(self) -> bool:
        """Whether no task will ever come: the queue is closed and worked off."""
        return self._priorities.main.log.sealed and self._priorities.finished()

    def wait_until_finished(self, timeout: float | None) -> bool:
        """True once every task that was put so far has ended; False after `timeout` seconds."""

        def look() -> bool:
            self._maintain()
            return self._priorities.finished()

        return bool(self._until(look, lambda: False, timeout, watched(self._engine, [self._priorities.final], timeout)))

    def _wait_for_task(self, take: Callable[[], Any], ended: Callable[[], bool], timeout: float | None) -> Any:
        """Return what `take` returns once that is true; a false value once `ended()`, or after `timeout` seconds."""
        # a consumer that waits for the end of the queue is not woken for each task that ends: it learns soon enough
        names = [] if ended == self._is_over else [self._priorities.final]
        return self._until(take, ended, timeout, watched(self._engine, names, timeout, self._priorities.where))

    def _until(
        self,
        take: Callable[[], Any],
        ended: Callable[[], bool],
        timeout: float | None,
        watching: AbstractContextManager[Watch],
    ) -> Any:
        self._prefetched.ack_buffer.record()  # others may wait for what this process holds back while it sleeps
        deadline = None if timeout is None else self._engine.now() + timeout
        with watching as watch:
            self._waiting.add(watch)
            try:
                if not self._claims.looked:
                    self._claims.recover()
                while True:
                    next_due = self._delays.release_due()
                    if (found := take()) or ended():
                        return found
                    look_again = self._until_recovery()
                    left = look_again if deadline is None else deadline - self._engine.now()
                    if left <= 0:
                        return found
                    self._pause(watch, min(left, next_due, look_again))
            finally:
                self._waiting.discard(watch)

    def _pause(self, watch: Watch, seconds: float) -> None:
        """Sleep until something changes. On a remote engine the pause is the longer the more processes wait: it
        is enough if one of them sees a new task."""
        earliest = self._now() + min(seconds, self._claims.workers / MAX_POLLS_PER_S if self._engine.remote else 0.0)
        watch.pause(seconds)
        while (left := earliest - self._now()) > 0:
            watch.pause(left)

    def _until_recovery(self) -> float:
        """Seconds until this waiting thread should probe for dead workers. On a remote engine one of the waiting
        threads of this process looks for all: the first to wake, on average as soon as a single one would."""
        pause = until_next_look(self._engine, 0.0)
        others = len(self._waiting) - 1
        return pause + random.uniform(0, pause * others) if others and self._engine.remote else pause

    def loop(self, *, drain: bool = True, idle: float | None = None) -> Generator[Task, None, None]:
        """See `WorkQueue.__iter__`. Without `drain` the loop ends when no task came for `idle` seconds (None: never),
        or when none will ever come."""
        now, prefetched, ack_buffer = self._engine.now, self._prefetched, self._prefetched.ack_buffer
        size, batch = BatchSize(remote=self._engine.remote), Batch()
        claims, beat, opened = batch.claims, self._claims.beat, self._opened
        ended = self._priorities.finished if drain else self._is_over
        buffered = ack_buffer.enabled
        take = functools.partial(self.take, buffered)
        ack_buffer.begin_loop()
        try:
            while True:
                if claims:
                    try:
                        priority, record = claims.popleft()
                    except IndexError:  # the reaper gave it back at this moment
                        continue
                    begun: Record | None = record
                    if not prefetched.remove(record):
                        begun = None  # the reaper gave it back before
                    elif not record.mark.beat:
                        begun = beat(priority, record)
                    task = None if begun is None else opened(priority, begun, buffered)
                else:
                    prefetched.wait_for_giving()
                    ack_buffer.record()
                    if size.tasks > 1 and (share := self._share(size.tasks)) > 1:
                        priority, records = self._claim(share, together=True)
                        if records:
                            prefetched.fill(batch, priority, records)
                        else:
                            size.tasks = 1
                        continue
                    task = take() or self._wait_for_task(take, ended, idle)
                    if task is None:
                        return
                if task is not None:
                    batch.began = began = now()
                    yield task
                    then = now()
                    if size.took(then - began) and claims:
                        prefetched.give_back_from(batch)
                    if buffered and ack_buffer.is_due(then):
                        ack_buffer.record()
        finally:
            prefetched.drop(batch)

    def _share(self, wanted: int) -> int:
        """At most `wanted`, and no more than this loop's part of the waiting tasks."""
        if not self._claims.looked:
            self._claims.recover()
        loops = self._claims.workers + self._prefetched.ack_buffer.loops - 1
        return max(1, min(wanted, self._priorities.waiting() // loops))

    def _claim(self, limit: int, *, together: bool = False) -> tuple[Priority, list[Record]]:
        """Prefetch up to `limit` tasks."""
        self._maintain()
        priority, records = self._claims.take(limit, beat=0)
        if self._prefetched.ack_buffer.enabled and together:
            records = self._claims.begin(priority, records)
        self._prefetched.add(priority, records)
        return priority, records

    def take(self, buffered: bool = False) -> Task | None:
        """Claim a task, and begin it; None if there is none."""
        claims = self._claims
        while True:
            if self._now() >= claims.next_look:
                self._maintain()
            priority, records = claims.take(1, 1)
            if not records:
                return None
            task = self._opened(priority, records[0], buffered)
            if task is not None:
                return task

    def take_many(self, n: int) -> list[Task]:
        """Claim up to `n` tasks, without beginning them."""
        while True:
            priority, records = self._claim(n)
            opened = [self._opened(priority, record, False) for record in records]
            tasks = [task for task in opened if task is not None]
            if tasks or not records:
                return tasks

    def _opened(self, priority: Priority, record: Record, buffered: bool) -> Task | None:
        """Return the task in a record that was just claimed; None if it is void."""
        try:
            try:
                id, value, tried = self._index.unpack(record.payload)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                if self._refuse(priority, record, error):
                    return None
                raise
            if id is None:
                id = f"{priority.id_prefix}{record.position:x}"
            elif self._index.is_duplicate(id, TaskLocation(priority.number, record.position)):
                self._prefetched.remove(record)
                priority.settle(record.position, record.mark, Mark(State.DONE, record.mark.attempt))
                return None
            return Task(self._prefetched, priority, record, id, value, tried, buffered)
        except BaseException:
            self._claims.give_up_quietly(priority, record)  # the caller gets an error and no task
            raise

    def _refuse(self, priority: Priority, record: Record, error: BaseException) -> bool:
        """Give back a task that can't be unpickled here: another worker may have the module that it needs. False for an
        `error` that is not the task's."""
        id, tried = self._index.id_in(record.payload, priority, record.position)
        why = self._index.explained(id, record.payload, error)
        if not isinstance(why, Exception) or (
            isinstance(why, MemoryError) and self._index.can_be_unpacked(record.payload)
        ):
            return False
        self._prefetched.remove(record)
        self._claims.set_back(priority, record, id, tried, f"can't be read here: {type(why).__name__}: {why}")
        return True
