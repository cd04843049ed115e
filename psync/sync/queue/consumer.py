"""How tasks come out of a queue: one, several, or one after the other, as soon as there are any.

Whoever waits also does what keeps a queue going: it gives back what the dead held, and lets be taken what is due.
"""

from __future__ import annotations

import queue
import random
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from psync.engine.contract.engine import Engine, Watch
from psync.engine.contract.log import Mark, Record, State
from psync.sync.queue.claims import Claims
from psync.sync.queue.delays import Delays
from psync.sync.queue.prefetch import Hand, InHand, Pace
from psync.sync.queue.priorities import Level, Levels, Location
from psync.sync.queue.put import closed_error
from psync.sync.queue.task import Task
from psync.sync.queue.task_index import Ledger
from psync.sync.wait import until_next_look

if TYPE_CHECKING:
    from psync.sync.queue.work_queue import WorkQueue

LOOKS = 400
"""Looks for a task, a second, of all processes together that wait for one, where a server is asked."""


class Taker:
    """Takes tasks of one queue for this process."""

    def __init__(
        self,
        queue: WorkQueue,
        engine: Engine,
        where: str,
        levels: Levels,
        ledger: Ledger,
        claims: Claims,
        in_hand: InHand,
    ) -> None:
        self._queue = queue
        self._engine = engine
        self._where = where
        self._final = where + "/final"
        self._levels = levels
        self._main = levels.main
        self._log = levels.main.log
        self._ledger = ledger
        self._claims = claims
        self._in_hand = in_hand
        self._delays = Delays(engine, levels)
        self._now = engine.now
        self._waiting: set[Watch] = set()

    def get(self, block: bool, timeout: float | None) -> Task:
        """See `WorkQueue.get`."""
        task: Task = self._take() or self._wait(self._take, block, timeout)
        return task

    def get_many(self, n: int, block: bool, timeout: float | None) -> list[Task]:
        """See `WorkQueue.get_many`."""
        return self._take_many(n) or self._wait(lambda: self._take_many(n), block, timeout)

    def look_now_and_then(self) -> None:
        """What every process that takes or waits does for all."""
        if self._engine.now() >= self._claims.next_look:
            self._claims.recover()
            self._delays.look()

    def _wait(self, take: Callable[[], Any], block: bool, timeout: float | None) -> Any:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout!r}")
        found = self.wait(take, self._is_over, timeout if block else 0.0)
        if found:
            return found
        if self._is_over():
            raise closed_error(self._queue.name)
        raise queue.Empty

    def _is_over(self) -> bool:
        return self._log.sealed and self._levels.finished()

    def wait_to_end(self, timeout: float | None) -> bool:
        """True once all that was put in so far has ended; False after `timeout` seconds."""

        def look() -> bool:
            self.look_now_and_then()
            return self._levels.finished()

        return bool(self._until(look, lambda: False, timeout, self._engine.watch([self._final])))

    def wait(self, take: Callable[[], Any], ended: Callable[[], bool], timeout: float | None) -> Any:
        """What `take` returns, once that is true; or what is not, when it has `ended`, or after `timeout` seconds."""
        # who takes has no need to hear of each task that ends: that a closed queue is worked off it learns soon enough
        names = [] if ended == self._is_over else [self._final]
        return self._until(take, ended, timeout, self._engine.watch(names, taking=self._where))

    def _until(
        self,
        take: Callable[[], Any],
        ended: Callable[[], bool],
        timeout: float | None,
        watching: AbstractContextManager[Watch],
    ) -> Any:
        self._in_hand.behind.record()
        deadline = None if timeout is None else self._engine.now() + timeout
        with watching as watch:
            self._waiting.add(watch)
            try:
                if not self._claims.looked:
                    self._claims.recover()
                while True:
                    next_due = self._delays.look()
                    if (found := take()) or ended():
                        return found
                    look_again = self._until_my_look()
                    left = look_again if deadline is None else deadline - self._engine.now()
                    if left <= 0:
                        return found
                    self._pause(watch, min(left, next_due, look_again))
            finally:
                self._waiting.discard(watch)

    def _pause(self, watch: Watch, seconds: float) -> None:
        """Where a server is asked, the more processes wait the longer each: one that sees a task is enough."""
        earliest = self._now() + min(seconds, self._claims.workers / LOOKS if self._engine.remote else 0.0)
        watch.pause(seconds)
        while (left := earliest - self._now()) > 0:
            watch.pause(left)

    def _until_my_look(self) -> float:
        """Seconds until who waits should look for the dead. Where a server is asked, one thread looks for all that wait
        here: whichever wakes first, in the mean as soon as one that waits alone."""
        pause = until_next_look(self._engine, 0.0)
        others = len(self._waiting) - 1
        return pause + random.uniform(0, pause * others) if others and self._engine.remote else pause

    def loop(self, *, drain: bool = True, idle: float | None = None) -> Generator[Task, None, None]:
        """See `WorkQueue.__iter__`. Without `drain` it ends when no task came for `idle` seconds (None: never), or none
        will ever come; so who waits has no need to hear of each task that ends."""
        now, in_hand, behind = self._engine.now, self._in_hand, self._in_hand.behind
        pace, hand = Pace(far=self._engine.remote), Hand()
        claims, beat, opened = hand.claims, self._claims.beat, self._opened
        ended = self._levels.finished if drain else self._is_over
        late = behind.used
        in_hand.loops += 1
        behind.begin()
        try:
            while True:
                if claims:
                    try:
                        level, record = claims.popleft()
                    except IndexError:  # it was given back at this moment
                        continue
                    going: Record | None = record
                    if not in_hand.remove(record):
                        going = None  # it was given away since
                    elif not record.mark.beat:
                        going = beat(level, record)
                    task = None if going is None else opened(level, going)
                else:
                    in_hand.wait_for_giver()
                    behind.record()
                    if pace.size > 1 and (share := self._share(pace.size)) > 1:
                        level, records = self._claim(share, together=True)
                        if records:
                            in_hand.fill(hand, level, records)
                        else:
                            pace.size = 1
                        continue
                    task = self._take() or self.wait(self._take, ended, idle)
                    if task is None:
                        return
                if task is not None:
                    task._answers_late = late and task._record.mark.attempt == 1
                    hand.began = began = now()
                    yield task
                    then = now()
                    if pace.took(then - began) and claims:
                        in_hand.give_back_from(hand)
                    if late and behind.is_due(then):
                        behind.record()
        finally:
            in_hand.loops -= 1
            in_hand.drop(hand)

    def _share(self, wanted: int) -> int:
        if not self._claims.looked:
            self._claims.recover()
        others = self._claims.workers + self._in_hand.loops - 1
        return max(1, min(wanted, self._levels.waiting() // others))

    def _claim(self, limit: int, *, together: bool = False) -> tuple[Level, list[Record]]:
        self.look_now_and_then()
        level, records = self._claims.take(limit, beat=0)
        if self._in_hand.behind.used and together:
            records = self._claims.begin(level, records)
        self._in_hand.add(level, records)
        return level, records

    def _take(self) -> Task | None:
        """A task, begun; None if there is none."""
        claims = self._claims
        while True:
            if self._now() >= claims.next_look:
                self.look_now_and_then()
            level, records = claims.take(1, 1)
            if not records:
                return None
            task = self._opened(level, records[0])
            if task is not None:
                return task

    def _take_many(self, n: int) -> list[Task]:
        """Tasks that are not begun."""
        while True:
            level, records = self._claim(n)
            opened = [self._opened(level, record) for record in records]
            tasks = [task for task in opened if task is not None]
            if tasks or not records:
                return tasks

    def _opened(self, level: Level, record: Record) -> Task | None:
        """The task in a record just claimed; None if it is not to be worked on."""
        try:
            try:
                id, value, tried = self._ledger.unpack(record.payload)
            except Exception as error:
                self._refuse(level, record, error)
                return None
            if id is None:
                return Task(self._queue, level, record, f"{level.ids}{record.position:x}", value, 0)
            if self._ledger.is_twin(id, Location(level.priority, record.position)):
                self._in_hand.remove(record)
                level.settle(record.position, record.mark, Mark(State.DONE, record.mark.attempt))
                return None
            return Task(self._queue, level, record, id, value, tried)
        except BaseException:
            self._claims.give_up_quietly(level, record)  # whoever asked for it hears of an error instead
            raise

    def _refuse(self, level: Level, record: Record, error: Exception) -> None:
        self._in_hand.remove(record)
        id, tried = self._ledger.id_in(record.payload, level, record.position)
        self._claims.set_back(level, record, id, tried, f"can't be read here: {error!r}")
