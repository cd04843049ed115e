"""CPython's own tests of `threading`'s primitives, on psync's: they were written by nobody who knew psync.

Left out: what looks at private fields, and what pins the text of a `repr`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from psync.engine import shared_engine

lock_tests = pytest.importorskip("test.lock_tests", reason="this Python came without its own tests (`test.lock_tests`)")
_numbers = itertools.count()


class OnPsync:
    """Makes each primitive under a name of its own, in one directory a test."""

    test_repr = None
    test_locked_repr = None
    test_at_fork_reinit = None

    @pytest.fixture(autouse=True)
    def _directory(self, root: Path) -> Iterator[None]:
        self.root = root
        engine = shared_engine(root)
        engine.owner()  # on a server this starts a thread: before a test counts its own
        yield
        engine.close()

    def made(self, kind: Any, *arguments: Any, **options: Any) -> Any:
        return kind(self.root, f"{kind.__name__} {next(_numbers)}", *arguments, **options)


class TestLock(OnPsync, lock_tests.LockTests):
    def locktype(self) -> Lock:
        return self.made(Lock)


class TestRLock(OnPsync, lock_tests.RLockTests):
    test_release_save_unacquired = None
    test_recursion_count = None
    test__is_owned = None

    def locktype(self) -> RLock:
        return self.made(RLock)


class TestEvent(OnPsync, lock_tests.EventTests):
    def eventtype(self) -> Event:
        return self.made(Event)


class TestCondition(OnPsync, lock_tests.ConditionTests):
    test_acquire = None  # makes locks of threading's

    def condtype(self, lock: Any = None) -> Condition:
        return self.made(Condition, lock)

    def test_its_own_lock_can_be_taken_again_and_another_one_not(self) -> None:
        condition = self.condtype()
        assert condition.acquire() and condition.acquire()
        condition.release()
        condition.release()
        lock = self.made(Lock)
        condition = self.condtype(lock)
        assert condition.acquire() and not lock.acquire(False)
        condition.release()
        assert lock.acquire(False) and not condition.acquire(False)
        lock.release()


class TestConditionOnLock(OnPsync, lock_tests.ConditionTests):
    test_acquire = None  # makes locks of threading's

    def condtype(self, lock: Any = None) -> Condition:
        return self.made(Condition, self.made(Lock))


class TestSemaphore(OnPsync, lock_tests.SemaphoreTests):
    def semtype(self, *value: int, **values: int) -> Semaphore:
        return self.made(Semaphore, *value, **values)


class TestBoundedSemaphore(OnPsync, lock_tests.BoundedSemaphoreTests):
    def semtype(self, *value: int, **values: int) -> BoundedSemaphore:
        return self.made(BoundedSemaphore, *value, **values)


class TestBarrier(OnPsync, lock_tests.BarrierTests):
    def tearDown(self) -> None:
        super().tearDown()
        del self.barrier

    def barriertype(self, *arguments: Any, **options: Any) -> Barrier:
        return self.made(Barrier, *arguments, **options)
