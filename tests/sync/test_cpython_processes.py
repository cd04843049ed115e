"""CPython's own tests of `multiprocessing`'s primitives, on psync's, with forked and with spawned processes.

Left out: what looks at private fields, what pins the text of a `repr`, and (of a semaphore's timeouts) a call that
`threading` and `multiprocessing` answer differently, where psync does as `threading`.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
import unittest
from pathlib import Path
from typing import Any

import pytest

import psync

theirs = pytest.importorskip(
    "test._test_multiprocessing", reason="this Python came without its own tests (`test._test_multiprocessing`)"
)
_numbers = itertools.count()


class OnPsync:
    """What `multiprocessing` has, but psync's primitives; each under a name of its own, in one directory a test."""

    TYPE = "processes"
    context: Any
    test_repr = None

    @pytest.fixture(autouse=True)
    def _directory(self, root: Path) -> None:
        self.root = root

    def made(self, kind: Any, *arguments: Any, **options: Any) -> Any:
        return kind(self.root, f"{kind.__name__} {next(_numbers)}", *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name in ("Process", "Pipe", "Queue", "Value"):
            return getattr(self.context, name)
        kind = getattr(psync, name)
        return lambda *arguments, **options: self.made(kind, *arguments, **options)

    def DummyList(self) -> Tally:
        return Tally(self.made(psync.Counter))


class Tally:
    """What the tests use of a list: how many times something was appended."""

    def __init__(self, counter: psync.Counter) -> None:
        self._counter = counter

    def append(self, _: object) -> None:
        self._counter.add()

    def __len__(self) -> int:
        return self._counter.value


class Forked(OnPsync):
    context = multiprocessing.get_context("fork")


class Spawned(OnPsync):
    context = multiprocessing.get_context("spawn")


class OfSemaphores(theirs._TestSemaphore):  # type: ignore[name-defined, misc]
    def test_timeout(self) -> None:
        semaphore = self.Semaphore(0)
        begun = time.monotonic()
        assert semaphore.acquire(False) is False
        assert semaphore.acquire(False, None) is False
        assert semaphore.acquire(True, 0.2) is False
        assert semaphore.acquire(timeout=0.3) is False
        assert 0.49 < time.monotonic() - begun < 5


class OfConditions(theirs._TestCondition):  # type: ignore[name-defined, misc]
    def check_invariant(self, condition: Any) -> None:
        assert condition.statistics().waiting == ()


class TestForkedLock(Forked, theirs._TestLock, unittest.TestCase):  # type: ignore[name-defined, misc]
    pass


class TestForkedSemaphore(Forked, OfSemaphores, unittest.TestCase):
    pass


class TestForkedCondition(Forked, OfConditions, unittest.TestCase):
    pass


class TestForkedEvent(Forked, theirs._TestEvent, unittest.TestCase):  # type: ignore[name-defined, misc]
    pass


class TestForkedBarrier(Forked, theirs._TestBarrier, unittest.TestCase):  # type: ignore[name-defined, misc]
    pass


class TestSpawnedLock(Spawned, theirs._TestLock, unittest.TestCase):  # type: ignore[name-defined, misc]
    pass


class TestSpawnedSemaphore(Spawned, OfSemaphores, unittest.TestCase):
    pass


class TestSpawnedCondition(Spawned, OfConditions, unittest.TestCase):
    pass


class TestSpawnedEvent(Spawned, theirs._TestEvent, unittest.TestCase):  # type: ignore[name-defined, misc]
    pass


class TestSpawnedBarrier(Spawned, theirs._TestBarrier, unittest.TestCase):  # type: ignore[name-defined, misc]
    pass
