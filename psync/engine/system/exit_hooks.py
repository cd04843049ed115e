"""Exit hooks: close the engines of a process that ends in order, so that their close callbacks run.

An engine that has an owner in this process is closed by `atexit`; or, in a child of `multiprocessing`, which does not
run that, by a finalizer of `multiprocessing`. A process that is killed runs neither.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Protocol

from psync.engine.system import fork_hooks


class Closable(Protocol):
    """An engine that has an owner."""

    def close(self) -> None:
        """Call the close callbacks, and end the owner."""


class _OpenEngines:
    """The engines that have an owner in this process."""

    def __init__(self) -> None:
        self.engines: weakref.WeakSet[Closable] = weakref.WeakSet()
        self.pid = 0
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self.engines.clear()  # a child is another owner

    def close(self) -> None:
        if self.pid == os.getpid():
            for engine in list(self.engines):
                engine.close()


_open = _OpenEngines()
atexit.register(_open.close)


def remember(engine: Closable) -> None:
    """Close `engine` when this process ends in order."""
    _open.engines.add(engine)
    if _open.pid != os.getpid():
        _open.pid = os.getpid()
        finalizers = sys.modules.get("multiprocessing.util")  # there if this process is a child of multiprocessing
        if finalizers is not None:
            finalizers.Finalize(None, _open.close, exitpriority=0)


class CloseCallbacks:
    """The methods to call before one engine is closed. A method is kept weakly, as long as its object lives."""

    def __init__(self) -> None:
        self._methods: set[weakref.WeakMethod[Callable[[], object]]] = set()

    def add(self, method: Callable[[], object]) -> None:
        self._methods.add(weakref.WeakMethod(method, self._methods.discard))

    def run(self) -> None:
        """Call all of them."""
        for reference in list(self._methods):
            method = reference()
            if method is not None:
                method()

    def forget(self) -> None:
        """Drop all of them: in a forked child they are its parent's."""
        self._methods.clear()
