"""The futures of one client: each is told how its call ended, as soon as that is known.

One thread of the client looks for all of them. It is woken when a task ends; it reads what was appended to the results
since, so that a thousand answers cost little more than one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from typing import Any, TypeVar

from psync.errors import TaskFailed
from psync.store.sentinels import MISSING
from psync.sync.queue.work_queue import WorkQueue
from psync.sync.wait import until_next_look
from psync.work import call

T = TypeVar("T")

OLDEST = 256
"""So many of those that are awaited longest are looked for first: their answers lie together, so that is a look into a
few buckets of the results, and not into all."""
FEW, REST = 16, 4
"""When more than a FEW are awaited, a look costs, and the interpreter is wanted by those who submit: so many times as
long as it took, answers gather before the next."""
SHORTEST_REST, LONGEST_REST = 0.0005, 0.02
"""Seconds."""


class TaskFuture(Future[T]):
    """A `concurrent.futures.Future` of a task; `id` is what `Executor.attach` takes, in whichever process."""

    def __init__(self, futures: Futures, id: str) -> None:
        super().__init__()
        self.id = id
        self._futures = futures

    def cancel(self) -> bool:
        """True if the call will not be made: nobody has begun it, and nobody will."""
        if self.cancelled() or not self._futures.forget(self.id):
            return self.cancelled()
        if not self._futures.queue.cancel(self.id):
            self._futures.await_again(self)
            return False
        self._become_cancelled()
        return True

    def abandon(self) -> None:
        """It is cancelled, even if somebody is at it; how that ends will not be known here."""
        if self._futures.forget(self.id):
            self._futures.queue.cancel(self.id)
            self._become_cancelled()

    def _become_cancelled(self) -> None:
        super().cancel()
        self.set_running_or_notify_cancel()

    def running(self) -> bool:
        """Whether somebody is at it, at this moment."""
        return not self.done() and self._futures.queue.state(self.id) == "claimed"

    def answer(self, outcome: call.Outcome) -> None:
        try:
            if outcome.error is not None:
                self.set_exception(outcome.error)
            else:
                self.set_result(outcome.value)
        except InvalidStateError:
            pass  # cancelled a moment ago


class Futures:
    """All futures of one client that are not done, and the thread that looks for their outcomes."""

    def __init__(self, queue: WorkQueue, tend: Callable[[], str | None], ended: Callable[[], None]) -> None:
        self.queue = queue
        self._tend = tend
        """Called now and then; says why no outcome will ever come, if that is so."""
        self._ended = ended
        """Called once when it is over: `close` was called, and nothing is awaited any more."""
        self._awaited: dict[str, TaskFuture[Any]] = {}
        self._adding = 0
        """How many tasks are being put in whose ids are not known yet."""
        self._early: dict[str, Any] = {}
        """Letters that came while that was so."""
        self._lock = threading.RLock()  # `close` may be called by the garbage collector, wherever that comes in
        self._changed = threading.Condition(self._lock)
        self.closing = False
        self._rest = threading.Event()
        """Never set: waiting for it is to rest."""
        self._thread: threading.Thread | None = None
        self._arrivals = queue.results.arrivals()
        self._loads = queue._codec.loads

    def add(self, put: Callable[[], list[str]]) -> list[TaskFuture[Any]]:
        """The futures of the tasks that `put` puts in and returns the ids of."""
        with self._lock:
            self._adding += 1
        futures: list[TaskFuture[Any]] = []
        early: list[tuple[TaskFuture[Any], Any]] = []
        try:
            futures = [TaskFuture(self, id) for id in put()]
        finally:
            with self._lock:
                self._adding -= 1
                for future in futures:
                    if self._early and (letter := self._early.pop(future.id, MISSING)) is not MISSING:
                        early.append((future, letter))
                    else:
                        self._await(future)
        for future, letter in early:
            future.answer(call.unseal(letter, self._loads))
        return futures

    def attach(self, id: str) -> TaskFuture[Any]:
        """The future of a task that was put in before, by whomever. KeyError if there is none."""
        with self._lock:
            future = self._awaited.get(id)
            if future is not None:
                return future
        if self.queue.state(id) is None:
            raise KeyError(id)
        future = TaskFuture(self, id)
        self.await_again(future)
        return future

    def await_again(self, future: TaskFuture[Any]) -> None:
        """Its letter may have come while nobody looked for it."""
        with self._lock:
            self._await(future)
        letter = self.queue.results.letter(future.id)
        if letter is not MISSING and self.forget(future.id):
            future.answer(call.unseal(letter, self._loads))

    def _await(self, future: TaskFuture[Any]) -> None:
        """With the lock."""
        self._awaited[future.id] = future
        if self._thread is None:
            name = f"psync futures of {self.queue.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        elif len(self._awaited) == 1:
            self._changed.notify()

    def forget(self, id: str) -> bool:
        """True for the one who may tell the future of it how that ended."""
        with self._lock:
            return self._awaited.pop(id, None) is not None

    def pending(self) -> list[TaskFuture[Any]]:
        with self._lock:
            return list(self._awaited.values())

    def close(self) -> None:
        """No more futures are added; the thread ends when it has told all."""
        with self._lock:
            self.closing = True
            alone = self._thread is None
            self._changed.notify()
        if alone:
            self._ended()

    def join(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._await_work():
                self._look_until_idle()
        finally:
            self._ended()

    def _await_work(self) -> bool:
        """True once something is awaited; False when nothing will be."""
        with self._changed:
            while not self._awaited and not self.closing:
                self._changed.wait()
            return bool(self._awaited)

    def _look_until_idle(self) -> None:
        engine = self.queue.engine
        next_look = 0.0
        woken = False
        with engine.watch([f"{self.queue._where}/final"]) as watch:
            while self._awaited:
                begun = engine.now()
                found = self._look() or (woken and self._look_behind())
                woken = False
                now = engine.now()
                if now >= next_look:
                    self._look_for_dead()
                    next_look = now + until_next_look(engine, engine.now() - now)
                elif not found:
                    watch.pause(next_look - now)
                    woken = True
                elif len(self._awaited) > FEW:
                    self._rest.wait(min(LONGEST_REST, max(SHORTEST_REST, REST * (now - begun))))

    def _look(self) -> int:
        """Tell the oldest futures, and what lies beside them, whose outcome has come; how many."""
        return self._tell(self._arrivals.buckets_of(list(self._awaited)[:OLDEST]))

    def _look_behind(self) -> int:
        """The same of all there are, if there are more."""
        return self._tell() if len(self._awaited) > OLDEST else 0

    def _tell(self, buckets: Iterable[str] | None = None) -> int:
        """Tell all futures whose outcome has come to one of `buckets` (None: to any); how many."""
        told = 0
        for id, letter in self._arrivals.new(buckets):
            future = self._awaited.pop(id, None)  # a single call, so it decides who tells the future
            if future is None:
                with self._lock:
                    future = self._awaited.pop(id, None)
                    if future is None and self._adding:
                        self._early[id] = letter
            if future is not None:
                future.answer(call.unseal(letter, self._loads))
                told += 1
        return told

    def _look_for_dead(self) -> None:
        """What brings no letter: tasks that ended dead, letters that came before their future, a spoiled crew; and what
        came behind the oldest, as long as theirs went on coming."""
        self._look_behind()
        self.queue.recover()
        if (trouble := self._tend()) is not None:
            for lost in self.pending():
                self._fail(lost, BrokenExecutor(trouble))
        with self._changed:
            if not self._adding:
                self._early.clear()  # others' letters
        for dead in self.queue.dead():
            future = self._awaited.get(dead.id)
            if future is not None:
                try:
                    self.queue.results.get(dead.id, timeout=0)
                except TaskFailed as error:
                    self._fail(future, error)

    def _fail(self, future: TaskFuture[Any], error: Exception) -> None:
        if self.forget(future.id):
            future.answer(call.Outcome(None, error))
