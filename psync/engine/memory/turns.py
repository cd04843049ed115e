"""Turns: make each verb of one owner a single atomic step, and let it wait for the locks of other owners.

All owners of one memory share its `State`, and the one lock in it. A verb has its turn while it holds that lock. The
fact that decides: the change of the state within the turn.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from psync.engine.memory.state import Died, Key, State, ThreadLock
from psync.engine.system.reentry import catch_up, postponed, reentrant


class Turns:
    """The steps of one owner. The parts of an engine (mutexes, logs ...) get this object to do theirs with."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.number = 0
        """The owner; 0 until its first use."""
        self._pid = 0

    def as_owner(self) -> Turns:
        """The turns of another owner in the same memory, with the same scheduler."""
        other = copy.copy(self)
        other.number = other._pid = 0
        return other

    # -- steps --------------------------------------------------------------------------------------

    def step(self, verb: str, name: str) -> None:
        """Called before each verb, with no lock held. A scheduler replaces this: it may block, raise, or kill."""

    @contextmanager
    def turn(self, verb: str, name: str, key: Key | None = None) -> Iterator[State]:
        """One step, alone in the memory. With a `key`: once nobody else holds its lock."""
        self.step(verb, name)
        if self.state.condition._is_owned():  # type: ignore[attr-defined]
            raise reentrant(repr(name))
        with self.alone():
            if key is not None:
                self.until(lambda: self.is_free(key))
            self.check_alive()
            yield self.state

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Alone in the memory for the length of the block, which is a part of a step."""
        try:
            with self.state.condition:
                yield
        finally:
            if postponed:
                catch_up()

    def changing(self, verb: str, name: str) -> AbstractContextManager[State]:
        """A step that changes the cell or bucket at `name`."""
        return self.turn(verb, name, ("name", name))

    def until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, giving up the turn, until `ready()`; False if that is not so after `timeout` seconds."""
        clock = self.state.clock
        deadline = None if timeout is None else clock.now() + timeout
        while not ready():
            if deadline is not None and clock.now() >= deadline:
                return False
            clock.wait(self.state.condition, deadline)
            self.check_alive()
        return True

    # -- locks of names -----------------------------------------------------------------------------

    def is_free(self, key: Key) -> bool:
        """Whether this thread may change `key` now. Raises `ReentrantCall` if the thread would wait for itself."""
        lock = self.state.locks.get(key)
        if lock is None:
            return True
        if lock.thread != threading.get_ident():
            return False
        if key[0] == "log" and lock.owner == self.owner():
            return True
        raise reentrant(repr(key[1]))

    @contextmanager
    def holding(self, key: Key) -> Iterator[None]:
        """Nobody else holds or changes `key` during the block, which runs without the turn."""
        state = self.state
        if state.condition._is_owned():  # type: ignore[attr-defined]
            raise reentrant(repr(key[1]))
        with self.alone():
            self.until(lambda: self.is_free(key))
            lock = state.locks.setdefault(key, ThreadLock(self.owner(), depth=0))
            lock.depth += 1
        try:
            yield
        finally:
            with self.alone():
                lock.depth -= 1
                # A death in the meantime has freed the lock already, and it may be another owner's by now.
                if not lock.depth and state.locks.get(key) is lock:
                    del state.locks[key]
                    state.condition.notify_all()

    # -- the owner ----------------------------------------------------------------------------------

    def owner(self) -> int:
        """The number of this process; a forked child gets another one."""
        with self.alone():
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self.number = self.state.new_owner(self._pid)
            return self.number

    def check_alive(self) -> None:
        if self.number and not self.state.owners[self.number].alive:
            raise Died(f"owner {self.number} has died")

    def die(self) -> None:
        """The owner ends like a killed process."""
        with self.alone():
            self.state.free_all_of(self.owner())

    def leave(self) -> None:
        """The owner is nobody any more; the next verb that needs one is done as another one."""
        with self.alone():
            if self.number and self._pid == os.getpid():
                self.state.retire(self.number)
            self.number = self._pid = 0
