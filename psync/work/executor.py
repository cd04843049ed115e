"""`concurrent.futures` over a directory: calls are made by processes that may be killed, be elsewhere, come and go.

A call is a task of a `WorkQueue`, so what is promised of tasks is promised of calls: a worker that is killed costs one
attempt of the one call it was at, a result is recorded once, and a client that died may be followed by another.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from concurrent.futures import Executor as StandardExecutor
from itertools import islice
from multiprocessing.context import BaseContext
from multiprocessing.util import Finalize, is_exiting
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from psync.engine import private_directory, remove_directory
from psync.engine.system import fork_hooks
from psync.store import PickleShareDB
from psync.sync.primitive import Place
from psync.sync.queue.work_queue import WorkQueue
from psync.work import call
from psync.work.futures import Futures, TaskFuture
from psync.work.local_workers import FAILURE, LocalWorkers, WorkerOptions
from psync.work.progress import Progress

T = TypeVar("T")
P = ParamSpec("P")
EXIT_PRIORITY = 0
"""Among the exit callbacks of `multiprocessing`: before it joins the children, in worker processes too."""
CHUNKS_PER_WORKER, MAX_CHUNK_CALLS = 64, 64
"""A `map` without a chunksize cuts the share of each worker into this many chunks of at most that many calls."""


class Executor(StandardExecutor):
    """A `concurrent.futures.Executor` whose workers are processes here, started as they are needed, and any others
    that work on the same directory and queue (``psync worker DIR``).

    >>> with Executor(max_workers=2) as executor:
    ...     future = executor.submit(pow, 2, 8)
    ...     future.result(), list(executor.map(abs, [-1, 2, -3]))
    (256, [1, 2, 3])

    `db`: a store, an engine or a path; None is a private directory that is gone after `shutdown`. `max_workers`: how
    many processes to start here, at most (None: one for each processor; 0: none). `mp_context`, `initializer`,
    `initargs` and `max_tasks_per_child` are as in `ProcessPoolExecutor`. After `idle` seconds without a call (None:
    never) a worker ends, and is started again when there is one.

    A call whose worker dies is made again, until it was begun `max_attempts` times; then its future raises
    `TaskFailed`. A call that raises is made again `retries` times, each `pause` seconds later; then its future raises
    that exception, with the remote traceback and the worker. After `timeout` seconds a call is interrupted by a
    `TimeoutError`. An exception that can't be pickled is a `RemoteError`.

    In a forked child of the process that made it, each verb raises `ForkedCopy`, and so do the futures that were not
    done. (An executor on the same directory can be made there.)

    Not promised: that a call is made only once. (Its result is recorded only once.)
    """

    def __init__(
        self,
        db: Place | None = None,
        max_workers: int | None = None,
        *,
        queue: str = "jobs",
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        idle: float | None = None,
        max_attempts: int = 3,
        retries: int = 0,
        pause: float = 0.0,
        timeout: float | None = None,
        progress: bool = False,
    ) -> None:
        if isinstance(db, int):
            raise TypeError(f"Executor's first argument is a directory; how many workers: Executor(max_workers={db!r})")
        if max_workers is not None and max_workers < 0:
            raise ValueError(f"max_workers must be greater than 0, or 0 to start no workers here, not {max_workers!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None and max_tasks_per_child < 1:
            raise ValueError(f"max_tasks_per_child must be 1 or more, not {max_tasks_per_child!r}")
        if retries < 0 or pause < 0:
            raise ValueError(f"retries and pause must not be negative: {retries!r}, {pause!r}")
        if (timeout is not None and timeout <= 0) or (idle is not None and idle <= 0):
            raise ValueError(f"timeout and idle must be seconds above 0, or None: {timeout!r}, {idle!r}")
        self.max_workers = multiprocessing.cpu_count() if max_workers is None else max_workers
        self._terms = call.Terms(retries, pause, timeout)
        self._private = private_directory() if db is None else None
        place = PickleShareDB(self._private) if self._private is not None else db
        assert place is not None
        self.queue = WorkQueue(place, queue, max_attempts=max(max_attempts, retries + 1))
        call.check(self.queue)
        context = multiprocessing.get_context() if mp_context is None else mp_context
        options = WorkerOptions(initializer, initargs, max_tasks_per_child, idle)
        self._workers = workers = LocalWorkers(self.queue, context, self.max_workers, options)
        self._origin = fork_hooks.Origin("Executor")
        self._submitted = 0
        self._closed = False
        self._progress = Progress() if progress else None
        self._futures = Futures(self.queue, workers.replace_ended, _Cleanup(workers, place, self._private))
        # the thread of the futures has no reference to the executor, so an executor that is forgotten can be collected
        Finalize(self, _close_futures, (self._futures,), exitpriority=EXIT_PRIORITY)

    # -- handing out -------------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """The call ``fn(*args, **kwargs)``, made by some worker: its future, whose `id` others may `attach` to.

        Raises RuntimeError after `shutdown`, `BrokenExecutor` once an initializer failed, and `RemoteError` if the
        call can't be pickled.
        """
        self._check_open()
        payload = call.pack(fn, args, kwargs, self._terms)
        return self._hand_out([payload])[0]

    def submit_as(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """`submit` under an id of your own: a client that submits it again, even another one later, gets the future of
        the same call, which is not made again once it was answered."""
        self._check_open()
        payload = call.pack(fn, args, kwargs, self._terms)
        self._grow(1)
        return self._futures.attach(self.queue.put(payload, id=id))

    def attach(self, id: str) -> TaskFuture[Any]:
        """The future of a call that somebody submitted before, also one who died. KeyError for an id never given."""
        self._check_open()
        self._grow(1)
        return self._futures.attach(id)

    def _check_open(self) -> None:
        self._origin.check()
        if self._closed or self._futures.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._workers.broken:
            raise BrokenExecutor(FAILURE)

    def _hand_out(self, payloads: list[bytes]) -> list[TaskFuture[Any]]:
        self._grow(len(payloads))
        futures = self._futures.put(payloads)
        if self._progress is not None:
            self._progress.watch(futures)
        return futures

    def _grow(self, calls: int) -> None:
        if self._submitted < self.max_workers:
            self._submitted += calls
            self._workers.grow(self._submitted)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """``map(fn, *iterables)``, made by the workers, in order. `TimeoutError` after `timeout` seconds.

        Everything is submitted at once, several calls in a task (`chunksize`; None: chosen by how many there are). With
        a `buffersize` the iterables may be endless: at most so many calls are submitted ahead of the results taken.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._check_open()
        engine = self.queue.engine
        deadline = None if timeout is None else engine.now() + timeout
        calls = iter(zip(*iterables, strict=False))
        if buffersize is not None:
            size = chunksize or 1
            pending = deque(self._submit_chunks(fn, _chunks(islice(calls, buffersize), size)))
            rest = _chunks(calls, size)
            return self._results(pending, deadline, lambda: self._submit_chunks(fn, islice(rest, 1)))
        everything = list(calls)
        share = len(everything) // (CHUNKS_PER_WORKER * max(1, self.max_workers))
        size = chunksize or max(1, min(share, MAX_CHUNK_CALLS))
        return self._results(deque(self._submit_chunks(fn, _chunks(iter(everything), size))), deadline, list)

    def _submit_chunks(self, fn: Callable[..., T], chunks: Iterable[list[Any]]) -> list[TaskFuture[Any]]:
        payloads = [call.pack(_each, (fn, chunk), {}, self._terms) for chunk in chunks]
        return self._hand_out(payloads) if payloads else []

    def _results(
        self, pending: deque[TaskFuture[Any]], deadline: float | None, more: Callable[[], list[TaskFuture[Any]]]
    ) -> Iterator[Any]:
        now = self.queue.engine.now
        try:
            while pending:
                values, error = pending.popleft().result(None if deadline is None else max(0.0, deadline - now()))
                pending.extend(more())
                values.reverse()
                while values:
                    yield values.pop()
                if error is not None:
                    raise error
        finally:
            if self._origin.is_here():  # a forked child may drop its copy of the iterator
                for future in pending:
                    future.cancel()

    # -- ending ------------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        if error is not None and not self._origin.is_here():
            return None  # a forked child ends: nothing here is its own
        return super().__exit__(kind, error, where)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls are accepted; with `cancel_futures`, those that nobody has begun are not made. With `wait`,
        returns when all others are done and the workers started here have ended."""
        self._origin.check()
        self._closed = True
        if cancel_futures:
            for future in self._futures.pending():
                future.cancel()
        self._futures.close()
        if wait:
            self._futures.join()
            if self._progress is not None:
                self._progress.close()

    def kill_workers(self) -> None:
        """Like `shutdown`, but nothing is waited for: the workers started here are killed, whatever they are at, and no
        call is made any more that nobody elsewhere has begun. The futures that were not done are cancelled."""
        self._origin.check()
        self._closed = True
        self._workers.kill()
        self.queue.recover()
        for future in self._futures.pending():
            future.abandon()
        self._futures.close()


class _Cleanup:
    """Stops the workers and removes a private directory: called once, when all futures are done and none will come."""

    def __init__(self, workers: LocalWorkers, place: Place, private: str | None) -> None:
        self._workers = workers
        self._place = place
        self._private = private

    def __call__(self) -> None:
        self._workers.stop()
        if self._private is not None:
            if isinstance(self._place, PickleShareDB):
                self._place.close()
            remove_directory(self._private)


def _close_futures(futures: Futures) -> None:
    """Finish the submitted calls when the executor is forgotten, or its process ends, as the executors of the standard
    library do."""
    futures.close()
    if is_exiting():
        futures.join()


def _chunks(calls: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(calls, size)):
        yield chunk


def _each(fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> tuple[list[Any], Exception | None]:
    """Make the calls of one chunk of a `map`: the results up to the first call that raised, and its exception."""
    results = []
    for args in calls:
        try:
            results.append(fn(*args))
        except Exception as error:
            return results, error
    return results, None
