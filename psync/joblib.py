"""joblib's calls on psync's workers: import this, and there is ``joblib.parallel_config("psync", dir=...)``.

joblib cuts its calls into batches; a batch is a call of an `Executor`. It travels whole, also what is defined in
``__main__`` (by `cloudpickle`). The workers start afresh ("spawn"), as those of
joblib's own backend do, because libraries that use threads (OpenMP, BLAS) do not survive a fork; so a script needs its
``if __name__ == "__main__":``. They are kept for the next `Parallel`. Calls within calls are made by threads.
"""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from joblib import cpu_count, register_parallel_backend  # type: ignore[import-not-found, import-untyped, unused-ignore]
from joblib.parallel import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from psync.engine.system import fork_hooks
from psync.store import pickles
from psync.sync.primitive import Place
from psync.work import Executor

WORKER_IDLE_S = 300.0
"""Seconds without a batch after which a worker ends."""
IGNORED_OPTIONS = {"max_nbytes", "temp_folder", "mmap_mode", "verbose", "context"}
"""Options that `joblib.Parallel` gives to every backend and this one does not use."""


class Terms(NamedTuple):
    """The options of the workers."""

    dir: Place | None = None
    queue: str = "joblib"
    workers: int | None = None
    context: str | BaseContext = "spawn"
    idle: float | None = WORKER_IDLE_S
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    max_attempts: int = 3


class PsyncBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """The backend "psync" of joblib: `n_jobs` batches at once (as many as there are processors, if not said).

    `dir`: the directory (or store) that workers share; None: a private one. `workers`: how many of them are started
    here (None: `n_jobs`); others may be anywhere (``psync worker DIR --queue joblib``), and come and go. `context` is a
    start method of `multiprocessing`; `queue`, `idle`, `initializer`, `initargs` and `max_attempts` are those of
    `Executor`.

    A worker that is killed costs one attempt of one batch. A call that raises ends the whole: calls that have not
    begun are not made any more, and the workers that were started here are killed.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, nesting_level: int | None = None, **options: Any) -> None:
        super().__init__(nesting_level=nesting_level)
        self._options = options
        self._workers: Executor | None = None
        self._terms = Terms(**options)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        wanted = self.default_n_jobs if n_jobs is None else n_jobs
        jobs: int = max(cpu_count() + 1 + wanted, 1) if wanted < 0 else wanted
        if jobs > 1 and (why := self._alone()):
            warnings.warn(f"psync-backed parallel loops cannot be nested {why}, setting n_jobs=1", stacklevel=3)
            return 1
        return jobs

    def _alone(self) -> str:
        """Why no workers can be started from here, if that is so."""
        if multiprocessing.current_process().daemon:
            return "in a daemonic process"
        return "" if self.nesting_level == 0 or self.in_main_thread() else "below threads"

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        own = {name: value for name, value in options.items() if name not in IGNORED_OPTIONS}
        terms = Terms(**{**self._options, **own})
        self._terms = terms._replace(workers=n_jobs if terms.workers is None else terms.workers)
        self._workers = _cache.take(self._terms) or _executor(self._terms)
        self.parallel = parallel
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None) -> Future[Any]:
        future: Future[Any]
        try:
            assert self._workers is not None
            future = self._workers.submit(_call, pickles.dumps_by_value(func))
        except Exception as error:  # in the thread that tells futures nobody could catch it
            future = Future()
            future.set_exception(error)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return pickles.loads(out.result())

    def terminate(self) -> None:
        if self._workers is not None:
            _cache.keep(self._terms, self._workers)
            self._workers = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        if self._workers is not None:
            self._workers.kill_workers()
            self._workers = None
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)


class _WorkerCache:
    """Keeps the executor that was used last for the next `Parallel` with equal terms."""

    def __init__(self) -> None:
        self._one: tuple[Terms, Executor] | None = None
        self._lock = threading.RLock()
        fork_hooks.remember(self)

    def exchange(self, one: tuple[Terms, Executor] | None) -> tuple[Terms, Executor] | None:
        with self._lock:
            before, self._one = self._one, one
        return before

    def take(self, terms: Terms) -> Executor | None:
        kept = self.exchange(None)
        if kept is None:
            return None
        if _alike(kept[0], terms):
            return kept[1]
        kept[1].shutdown(wait=False)
        return None

    def keep(self, terms: Terms, executor: Executor) -> None:
        before = self.exchange((terms, executor))
        if before is not None:
            before[1].shutdown(wait=False)

    def after_fork(self) -> None:
        self._one = None
        self._lock = threading.RLock()


_cache = _WorkerCache()


def shutdown() -> None:
    """The workers that are kept for the next `Parallel` end now."""
    kept = _cache.exchange(None)
    if kept is not None:
        kept[1].shutdown()


def _alike(one: Terms, other: Terms) -> bool:
    """Arguments of an initializer may not bear being compared."""
    same = len(one.initargs) == len(other.initargs) and all(map(lambda a, b: a is b, one.initargs, other.initargs))
    return same and one._replace(initargs=()) == other._replace(initargs=())


def _executor(terms: Terms) -> Executor:
    context = terms.context
    return Executor(
        terms.dir,
        terms.workers,
        queue=terms.queue,
        mp_context=multiprocessing.get_context(context) if isinstance(context, str) else context,
        initializer=terms.initializer,
        initargs=terms.initargs,
        idle=terms.idle,
        max_attempts=terms.max_attempts,
    )


def _call(batch: bytes) -> bytes:
    """Make the calls of a batch, in a worker. `batch` is loaded whatever the store allows: to allow this function is to
    allow everything."""
    return pickles.dumps_by_value(pickles.loads(batch)())


register_parallel_backend("psync", PsyncBackend)
