"""Fork hooks: tell each object with locks, descriptors or an owner that it is in a forked child now.

A child owns and holds nothing of its parent's, and keeps none of it alive.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

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


def _in_child() -> None:
    put_off.release()
    for one in list(_concerned):
        one.after_fork()


os.register_at_fork(before=put_off.acquire, after_in_parent=put_off.release, after_in_child=_in_child)
