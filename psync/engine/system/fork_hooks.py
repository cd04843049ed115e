"""Fork hooks: tell each object with locks, descriptors or an owner that it is in a forked child now.

A child owns and holds nothing of its parent's, and keeps none of it alive. A module that another thread was loading at
the fork would be half loaded in the child for ever, and an import of it would wait for ever. So before a process with
threads forks, the modules of psync that its threads are loading are loaded to their end, and so are those that most
threads need, though they are else loaded when they are first needed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from typing import Protocol

from psync.errors import ForkedCopy

put_off = threading.RLock()
"""Held while a descriptor that will be locked is opened and registered to be closed in a child. A fork by another
thread in between would leave the child an unknown copy, which keeps the lock."""


class Forked(Protocol):
    def after_fork(self) -> None:
        """Called in the child, while it has one thread: drop what is the parent's, and make new locks."""


_concerned: weakref.WeakSet[Forked] = weakref.WeakSet()


def remember(one: Forked) -> None:
    """`one.after_fork()` will be called in each forked child in which it still exists."""
    _concerned.add(one)


_first: list[Forked] = []


def remember_first(one: Forked) -> None:
    """`remember`, for what others ask for new locks in their `after_fork`. It is kept for ever."""
    _first.append(one)


class Origin:
    """The process that made something which is of no use to its forked children."""

    __slots__ = ("_pid", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self._pid = os.getpid()

    def is_here(self) -> bool:
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise `ForkedCopy` in a forked child."""
        if os.getpid() != self._pid:
            raise self.error()

    def error(self) -> ForkedCopy:
        return ForkedCopy(
            f"this {self.what} belongs to process {self._pid}, and this process is a forked child of that, in which it "
            "can't work. Make one here, or use it in its own process",
            what=self.what,
            pid=self._pid,
        )


_deferred: list[str] = []


def load_before_forks(*modules: str) -> None:
    """Load `modules`, which functions import when they are first needed, before a process with threads forks."""
    _deferred.extend(modules)


def _before() -> None:
    if threading.active_count() > 1:  # a single thread loads nothing while it forks
        _load()
    put_off.acquire()


def _load() -> None:
    """Load what is deferred, and wait for other threads that are loading modules of psync's."""
    deferred = _deferred[:]
    half_loaded = [
        name
        for name, module in list(sys.modules.items())
        if name.startswith("psync.") and getattr(getattr(module, "__spec__", None), "_initializing", False)
    ]
    for name in [*deferred, *half_loaded]:
        with contextlib.suppress(Exception):  # no descriptor is free, say: as if it were not needed
            __import__(name)
    del _deferred[: len(deferred)]


def _in_child() -> None:
    put_off.release()
    for one in [*_first, *_concerned]:
        one.after_fork()


os.register_at_fork(before=_before, after_in_parent=put_off.release, after_in_child=_in_child)
