"""CPython's own tests of what an executor is, on psync's (they come with Python 3.13 and later).

Left out: that 0 workers are refused (here they are an executor whose workers are elsewhere), and what looks into the
threads, pipes and processes that make up the standard's executors. Some errors have another name here: a call that
kills its workers is a `TaskFailed` and breaks nothing else; what can't travel is a `RemoteError`, and what can't be
sent is refused at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import sys
import unittest
from concurrent import futures
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from psync import Executor, RemoteError, TaskFailed
from tests.support import ENGINE, fresh_in

PROJECT = Path(__file__).parent.parent.parent
WHY = "this Python came without `test.test_concurrent_futures` (3.13 and later have it)"
executor = pytest.importorskip("test.test_concurrent_futures.executor", reason=WHY)
util = pytest.importorskip("test.test_concurrent_futures.util", reason=WHY)
waiting = pytest.importorskip("test.test_concurrent_futures.test_wait", reason=WHY)
completed = pytest.importorskip("test.test_concurrent_futures.test_as_completed", reason=WHY)
shutdown = pytest.importorskip("test.test_concurrent_futures.test_shutdown", reason=WHY)
deadlock = pytest.importorskip("test.test_concurrent_futures.test_deadlock", reason=WHY)


class OnPsync(util.ExecutorMixin):
    executor_type = Executor
    worker_count = 2
    ctx = "fork"

    @pytest.fixture(autouse=True)
    def _on_a_server(self, root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """With PSYNC_TEST_ENGINE; else in private directories."""
        if ENGINE:
            kind = type("Executor", (Executor,), {"__init__": partialmethod(Executor.__init__, root)})
            monkeypatch.setattr(type(self), "executor_type", kind)


class TestForked(OnPsync, executor.ExecutorTest, unittest.TestCase):
    test_max_workers_negative = None


class TestSpawned(OnPsync, executor.ExecutorTest, unittest.TestCase):
    ctx = "spawn"
    test_max_workers_negative = None
    test_map_timeout = None  # once is enough: it takes 5 seconds


class TestWait(OnPsync, waiting.WaitTests, unittest.TestCase):
    pass


class TestAsCompleted(OnPsync, completed.AsCompletedTests, unittest.TestCase):
    pass


class TestShutdown(OnPsync, shutdown.ExecutorShutdownTest, unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _programs_that_use_psync(self, root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        theirs = shutdown.assert_python_ok
        place = f"{fresh_in(root)!r}, " if ENGINE else ""

        def assert_python_ok(*arguments: str) -> Any:
            ours = list(arguments)
            for old, new in (
                ("from concurrent.futures import", "import multiprocessing; from psync import"),
                ("Executor(5", "Executor(max_workers=5"),
                ("Executor(", f"Executor({place}"),
            ):
                ours = [each.replace(old, new) for each in ours]
            return theirs(*ours, __isolated=False, PYTHONPATH=str(PROJECT))

        monkeypatch.setattr(shutdown, "assert_python_ok", assert_python_ok)


class TestShutdownSpawned(TestShutdown):
    ctx = "spawn"
    test_cancel_futures = None  # wants one to be begun before a worker can be there


class TestDeadlock(OnPsync, deadlock.ExecutorDeadlockTest, unittest.TestCase):
    OTHERWISE = {  # noqa: RUF012
        "test_error_at_task_pickle": RemoteError,
        "test_exit_at_task_unpickle": SystemExit,
        "test_error_at_task_unpickle": pickle.UnpicklingError,
        "test_exit_during_result_pickle_on_worker": RemoteError,
        "test_error_during_result_pickle_on_worker": RemoteError,
        "test_error_during_result_unpickle_in_result_handler": RemoteError,
        "test_exit_during_result_unpickle_in_result_handler": RemoteError,
    }
    test_shutdown_deadlock_pickle = None
    test_gh105829_should_not_deadlock_if_wakeup_pipe_full = None

    @pytest.fixture(autouse=True)
    def _broken_means_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deadlock, "BrokenProcessPool", TaskFailed)
        monkeypatch.setattr(sys, "stderr", sys.stderr)  # as one of them replaces it

    def _check_crash(self, error: type[BaseException], func: Any, *args: Any, ignore_stderr: bool = False) -> None:
        wanted = self.OTHERWISE.get(self._testMethodName, error)
        quiet = deadlock.support.captured_stderr() if ignore_stderr else contextlib.nullcontext()
        with quiet, self.assertRaises(wanted):
            self.executor.submit(func, *args).result(timeout=60)
        assert self.executor.submit(pow, 2, 3).result(timeout=60) == 8


def test_the_standard_wait_and_as_completed_take_its_futures() -> None:
    with Executor(max_workers=2, mp_context=multiprocessing.get_context("fork")) as made_by:
        made: list[Any] = [made_by.submit(pow, 2, number) for number in range(20)]
        assert sorted(future.result() for future in futures.as_completed(made, timeout=30)) == [2**n for n in range(20)]
        more = [made_by.submit(divmod, 1, number) for number in (1, 0, 2)]
        done, left = futures.wait(more, timeout=30, return_when=futures.ALL_COMPLETED)
        assert len(done) == 3 and not left
        assert [type(future.exception()) for future in more] == [type(None), ZeroDivisionError, type(None)]
