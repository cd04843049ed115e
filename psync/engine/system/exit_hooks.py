"""To leave in order is to say so: what a process has to do before it is nobody any more, if it is not killed.

An engine that has an owner in this process is told when the process ends by itself: by `atexit`, or, in a child of
`multiprocessing`, which ends without that, by its own way of ending.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Protocol

from psync.engine.system import fork_hooks


class Leaving(Protocol):
    def close(self) -> None:
        """Say farewell, and be nobody any more."""


class _Present:
    """The engines that are somebody in this process."""

    def __init__(self) -> None:
        self.engines: weakref.WeakSet[Leaving] = weakref.WeakSet()
        self.pid = 0
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self.engines.clear()  # a child is somebody else

    def leave(self) -> None:
        if self.pid == os.getpid():
            for engine in list(self.engines):
                engine.close()


_present = _Present()
atexit.register(_present.leave)


def remember(engine: Leaving) -> None:
    """Close `engine` when this process ends in order."""
    _present.engines.add(engine)
    if _present.pid != os.getpid():
        _present.pid = os.getpid()
        ways = sys.modules.get("multiprocessing.util")  # there if this process is a child of multiprocessing
        if ways is not None:
            ways.Finalize(None, _present.leave, exitpriority=0)


class CloseCallbacks:
    """The methods to call before one engine is closed. They are kept as long as their objects live."""

    def __init__(self) -> None:
        self._methods: set[weakref.WeakMethod[Callable[[], object]]] = set()

    def add(self, method: Callable[[], object]) -> None:
        self._methods.add(weakref.WeakMethod(method, self._methods.discard))

    def say(self) -> None:
        for reference in list(self._methods):
            method = reference()
            if method is not None:
                method()

    def forget(self) -> None:
        """In a forked child: its parent's are not its own."""
        self._methods.clear()
