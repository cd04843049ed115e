"""Descriptor cache: limit how many handles keep descriptors open; the one that opened first is closed first."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from itertools import islice
from typing import Protocol

from psync.engine.system import fork_hooks


class Closable(Protocol):
    def close_if_idle(self) -> bool:
        """Close the descriptors unless a thread is using them; True if they are closed. They are opened again when
        needed."""


class DescriptorCache:
    """The handles of one directory that have descriptors open."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[int, Closable] = OrderedDict()
        self._lock = threading.Lock()
        fork_hooks.remember(self)

    def opened(self, handle: Closable) -> None:
        """Note that `handle` has opened a descriptor, and close the oldest idle ones beyond the limit."""
        with self._lock:
            self._open[id(handle)] = handle
            surplus = list(islice(self._open.values(), max(0, len(self._open) - self._limit)))
        for one in surplus:
            if one is not handle and one.close_if_idle():
                with self._lock:
                    self._open.pop(id(one), None)

    def close(self) -> None:
        with self._lock:
            all_open = [*self._open.values()]
        for one in all_open:
            if one.close_if_idle():
                with self._lock:
                    self._open.pop(id(one), None)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter is going down
            self.close()  # the handles, which nobody can reach any more either, do not close by themselves

    def after_fork(self) -> None:
        self._lock = threading.Lock()
