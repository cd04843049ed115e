"""CPython's own tests of what an executor is, on psync's (they come with Python 3.13 and later).

Left out: that 0 workers are refused (here they are an executor whose workers are elsewhere).
"""

from __future__ import annotations

import multiprocessing
import unittest
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest

from psync import Executor

theirs = pytest.importorskip(
    "test.test_concurrent_futures.executor",
    reason="this Python came without `test.test_concurrent_futures` (3.13 and later have it)",
)


class OnPsync:
    executor_type = Executor
    worker_count = 2
    context = "fork"

    @pytest.fixture(autouse=True)
    def _executor(self) -> Iterator[None]:
        with Executor(max_workers=self.worker_count, mp_context=multiprocessing.get_context(self.context)) as made:
            self.executor = made
            yield
        del self.executor


class TestForked(OnPsync, theirs.ExecutorTest, unittest.TestCase):
    test_max_workers_negative = None


class TestSpawned(OnPsync, theirs.ExecutorTest, unittest.TestCase):
    context = "spawn"
    test_max_workers_negative = None
    test_map_timeout = None  # once is enough: it takes 5 seconds


def test_the_standard_wait_and_as_completed_take_its_futures() -> None:
    with Executor(max_workers=2) as executor:
        made: list[Any] = [executor.submit(pow, 2, number) for number in range(20)]
        assert sorted(future.result() for future in futures.as_completed(made, timeout=30)) == [2**n for n in range(20)]
        more = [executor.submit(divmod, 1, number) for number in (1, 0, 2)]
        done, waiting = futures.wait(more, timeout=30, return_when=futures.ALL_COMPLETED)
        assert len(done) == 3 and not waiting
        assert [type(future.exception()) for future in more] == [type(None), ZeroDivisionError, type(None)]
