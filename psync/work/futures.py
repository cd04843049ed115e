"""Futures: complete the futures of one client when the results of their tasks arrive.

One thread of the client serves all futures. It is woken when a task ends, and reads what was appended to the results
since its last look, so a thousand results cost little more than one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from typing import Any, NoReturn, TypeVar

from psync.engine.system import fork_hooks
from psync.errors import DirectoryGone, TaskFailed
from psync.store.sentinels import MISSING
from psync.sync.queue.work_queue import WorkQueue, internals_of
from psync.sync.wait import until_next_look
from psync.work import call

T = TypeVar("T")

MAX_POLLED_FIRST = 256
"""A look reads the results of the futures that are awaited longest first, this many: their results lie together, in a
few buckets, while a look for all reads every bucket."""
PAUSE_ABOVE_FUTURES, PAUSE_RATIO = 16, 4
"""When more futures than this are awaited, the thread pauses after each look, for a multiple of the time that it took:
meanwhile results gather, and threads that submit get the interpreter."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.0005, 0.02


class _Refusing:
    """Stands for the condition of a future, which all its verbs enter."""

    def __init__(self, origin: fork_hooks.Origin) -> None:
        self._origin = origin

    def acquire(self) -> NoReturn:
        raise self._origin.error()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        pass


class TaskFuture(Future[T]):
    """A `concurrent.futures.Future` of a task; `id` is what `Executor.attach` takes, in whichever process."""

    def __init__(self, futures: Futures, id: str) -> None:
        super().__init__()
        self.id = id
        self._futures = futures

    def cancel(self) -> bool:
        """True if the call was taken back before any worker had begun it: it will not be made."""
        if self.cancelled() or not self._futures.forget(self.id):
            return self.cancelled()
        if not self._futures.queue.cancel(self.id):
            self._futures.await_again(self)
            return False
        self._become_cancelled()
        return True

    def abandon(self) -> None:
        """Cancel the future even if a worker is making the call; the outcome will not be known here."""
        if self._futures.forget(self.id):
            self._futures.queue.cancel(self.id)
            self._become_cancelled()

    def _become_cancelled(self) -> None:
        super().cancel()
        self.set_running_or_notify_cancel()

    def running(self) -> bool:
        """Whether a worker is making the call, at this moment."""
        return not self.done() and self._futures.queue.state(self.id) == "claimed"

    def refuse_all(self, origin: fork_hooks.Origin) -> None:
        """In a forked child, where nothing will complete it: each use raises `ForkedCopy` from now on."""
        self._condition = _Refusing(origin)  # type: ignore[assignment]

    def answer(self, outcome: call.Outcome) -> None:
        try:
            if outcome.error is not None:
                self.set_exception(outcome.error)
            else:
                self.set_result(outcome.value)
        except InvalidStateError:
            pass  # cancelled a moment ago


class Futures:
    """The futures of one client that are not done, and the thread that completes them."""

    def __init__(self, queue: WorkQueue, tend: Callable[[], str | None], ended: Callable[[], None]) -> None:
        self.queue = queue
        self._tend = tend
        """Called now and then; returns why no outcome will ever come, if that is so."""
        self._ended = ended
        """Called once, after `close`, when nothing is awaited any more."""
        self._awaited: dict[str, TaskFuture[Any]] = {}
        self._adding = 0
        """How many calls of `put` are putting tasks whose ids are not known yet."""
        self._early: dict[str, Any] = {}
        """Results that arrived meanwhile for unknown ids: they may belong to those tasks."""
        self._origin = fork_hooks.Origin("future")
        self._lock = threading.RLock()  # `close` may be called by the garbage collector, wherever that comes in
        self._changed = threading.Condition(self._lock)
        self.closing = False
        self._never = threading.Event()
        """Never set: waiting for it is a pause."""
        self._thread: threading.Thread | None = None
        self._arrivals = queue.results.arrivals()
        self._loads = internals_of(queue).priorities.codec.loads
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        """Called in a forked child, which has no thread that completes the futures: they say so."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread = None
        for future in self._awaited.values():
            future.refuse_all(self._origin)

    def put(self, payloads: list[bytes]) -> list[TaskFuture[Any]]:
        """Put a task for each of `payloads`, and return their futures."""
        with self._lock:
            self._adding += 1
        futures: list[TaskFuture[Any]] = []
        early: list[tuple[TaskFuture[Any], Any]] = []
        try:
            ids = [self.queue.put(payloads[0])] if len(payloads) == 1 else self.queue.put_many(payloads)
            futures = [TaskFuture(self, id) for id in ids]
        finally:
            with self._lock:
                self._adding -= 1
                for future in futures:
                    if self._early and (result := self._early.pop(future.id, MISSING)) is not MISSING:
                        early.append((future, result))
                    else:
                        self._await(future)
        for future, result in early:
            future.answer(call.unseal(result, self._loads))
        return futures

    def attach(self, id: str) -> TaskFuture[Any]:
        """Return the future of a task that any client put before. KeyError if there is none."""
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
        """Await a future again; its result may have arrived while it was not awaited."""
        with self._lock:
            self._await(future)
        result = internals_of(self.queue).task_index.results.get(future.id, fast_only=False)
        if result is not MISSING and self.forget(future.id):
            future.answer(call.unseal(result, self._loads))

    def _await(self, future: TaskFuture[Any]) -> None:
        """With the lock."""
        self._awaited[future.id] = future
        if self._thread is None:
            name = f"psync futures of {self.queue.name}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            if self._thread is None:  # a signal's handler may have started one in the meantime
                self._thread = thread
                thread.start()
        elif len(self._awaited) == 1:
            self._changed.notify()

    def forget(self, id: str) -> bool:
        """True for the one thread that may complete the future."""
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
                try:
                    self._look_until_idle()
                except DirectoryGone as gone:  # no outcome can come any more
                    for lost in self.pending():
                        self._fail(lost, gone)
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
        with engine.watch([internals_of(self.queue).priorities.final]) as watch:
            while self._awaited:
                begun = engine.now()
                found = self._look() or (woken and self._look_behind())
                woken = False
                now = engine.now()
                if now >= next_look:
                    self._complete_the_rest()
                    next_look = now + until_next_look(engine, engine.now() - now)
                elif not found:
                    watch.pause(next_look - now)
                    woken = True
                elif len(self._awaited) > PAUSE_ABOVE_FUTURES:
                    self._never.wait(min(MAX_PAUSE_S, max(MIN_PAUSE_S, PAUSE_RATIO * (now - begun))))

    def _look(self) -> int:
        """Complete the oldest futures whose results have arrived, and those beside them; returns how many."""
        return self._tell(self._arrivals.buckets_of(list(self._awaited)[:MAX_POLLED_FIRST]))

    def _look_behind(self) -> int:
        """The same for all futures, if there are more than the oldest."""
        return self._tell() if len(self._awaited) > MAX_POLLED_FIRST else 0

    def _tell(self, buckets: Iterable[str] | None = None) -> int:
        """Complete the futures whose results have arrived in `buckets` (None: in any); returns how many."""
        told = 0
        for id, result in self._arrivals.new(buckets):
            future = self._awaited.pop(id, None)  # one atomic call: it decides which thread completes the future
            if future is None:
                with self._lock:
                    future = self._awaited.pop(id, None)
                    if future is None and self._adding:
                        self._early[id] = result
            if future is not None:
                future.answer(call.unseal(result, self._loads))
                told += 1
        return told

    def _complete_the_rest(self) -> None:
        """Complete the futures that no new result completes: tasks that are dead, workers that are broken, results that
        arrived before their future or behind the oldest ones."""
        self._look_behind()
        self.queue.recover()
        if (failure := self._tend()) is not None:
            for lost in self.pending():
                self._fail(lost, BrokenExecutor(failure))
        with self._changed:
            if not self._adding:
                self._early.clear()  # they belong to other clients
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
