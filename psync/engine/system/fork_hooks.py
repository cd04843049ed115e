"""Fork hooks: tell each object with locks, descriptors or an owner that it is in a forked child now.

A child owns and holds nothing of its parent's, and keeps none of it alive. A module that another thread was importing
at the fork would be half loaded in the child for ever, and the child's own import of it would wait for ever (psync
imports what it seldom needs when it needs it). So a process with threads forks between two imports: the fact that
decides is the interpreter's import lock, without which no import begins, held through the fork at a moment when no
module's lock is taken.
"""

from __future__ import annotations

import _imp
import os
import threading
import time
import weakref
from importlib import _bootstrap
from typing import Protocol

from psync.errors import ForkedCopy

put_off = threading.RLock()
"""Held while a descriptor that will be locked is opened and registered to be closed in a child. A fork by another
thread in between would leave the child an unknown copy, which keeps the lock."""


IMPORT_LOOK_S = 0.001
"""Seconds between two looks whether other threads still import something."""
IMPORT_PATIENCE_S = 10.0
"""Seconds after which a process forks all the same: an import may wait for the thread that forks."""


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


def _before() -> None:
    """Return with `put_off` and the interpreter's import lock held, when no other thread imports anything."""
    put_off.acquire()
    _imp.acquire_lock()
    patience = IMPORT_PATIENCE_S
    while patience > 0 and threading.active_count() > 1 and _others_import():
        _imp.release_lock()
        put_off.release()  # the other thread may be about to open something
        time.sleep(IMPORT_LOOK_S)
        patience -= IMPORT_LOOK_S
        put_off.acquire()
        _imp.acquire_lock()


def _others_import() -> bool:
    """With the import lock: whether another thread holds the lock of a module, or has just asked for one."""
    me = threading.get_ident()
    locks = [lock() for lock in list(_bootstrap._module_locks.values())]  # type: ignore[attr-defined]
    return any(lock is not None and lock.owner != me for lock in locks)


def _in_parent() -> None:
    _imp.release_lock()
    put_off.release()


def _in_child() -> None:
    _in_parent()
    for one in [*_first, *_concerned]:
        one.after_fork()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
