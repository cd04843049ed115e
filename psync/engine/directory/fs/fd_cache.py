"""Descriptor cache: bounds the descriptors that psync keeps open in this process, for all directories together.

A handle (bucket, log, register, mutex, flags) keeps its file open as long as somebody refers to it, and tells this
module when it has opened one. Above the bound those that were not used for the longest time are closed: approximately,
by a second chance for each that was used since it was looked at last. What is in use or held stays open. A handle that
was closed opens its file again when it is used.

Nothing here waits for a lock: a handle may tell of a descriptor from within its own lock, from any thread, and from a
signal's handler that interrupts any of this. So one caller at a time keeps the accounts, and the others leave word.
"""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from psync.engine.system import fork_hooks

T = TypeVar("T")
SHARE = 0.3
"""The part of the soft limit RLIMIT_NOFILE that psync's descriptors may take. A category has 256 buckets, which fit
into that of the usual 1,024."""
MIN_DESCRIPTORS = 32
"""The bound where that part is smaller: one queue with its results takes about 20."""
RECENT_HANDLES = 16
"""Handles of one directory that stay open though nobody may refer to them: they are likely to be asked for again."""

PASSED_AT_ONCE = 2
"""Handles that are looked at for each that is opened: so the row is passed faster than it grows."""


class Closable(Protocol):
    def descriptors(self) -> int:
        """How many descriptors it has open now."""

    def was_used(self) -> bool:
        """Whether it was used since the last call, as far as can be told at no cost to its verbs."""

    def close_if_idle(self) -> bool:
        """Close the descriptors unless somebody uses or holds them; True if they are closed. They are opened again when
        needed. Never waits."""


class DescriptorCache:
    """The handles of one directory that have descriptors open."""

    def __init__(self, most: int) -> None:
        """`most`: how many handles of this process may be open, whatever its limit on descriptors."""
        self._most = most
        self._handles: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._recent: deque[Closable] = deque(maxlen=RECENT_HANDLES)
        _process.begin(self)

    def opened(self, handle: Closable, *, keep: bool = True) -> None:
        """Note that `handle` has opened a descriptor, and close idle handles beyond the bound, but not this one.

        `keep`: it stays open for a while though nobody refers to it any more.
        """
        self._handles.add(handle)
        if keep:
            self._recent.append(handle)
        _process.note(handle, self._most)

    def close(self) -> None:
        self._recent.clear()
        for handle in list(self._handles):
            if handle.close_if_idle():
                self._handles.discard(handle)
            _process.note(handle, self._most)


class _Process:
    """The descriptors of all directories."""

    def __init__(self) -> None:
        self._counts: OrderedDict[weakref.ref[Closable], int] = OrderedDict()
        """How many each handle had open when it was counted last; the one that is to be looked at next is first."""
        self._total = 0
        self._news: deque[weakref.ref[Closable]] = deque()
        """Handles to be counted; append and popleft are atomic."""
        self._turn = threading.Lock()
        """Never waited for."""
        self._directories: weakref.WeakSet[DescriptorCache] = weakref.WeakSet()
        self._collect_at = 0
        fork_hooks.remember(self)

    def begin(self, directory: DescriptorCache) -> None:
        """A directory was opened. An engine that was dropped keeps the file of its owner until the next collection: so
        one is made when there are as many engines as descriptors for them."""
        if len(self._directories) >= max(self._collect_at, share_of_descriptors()):
            gc.collect()
            self._collect_at = 2 * len(self._directories)
        self._directories.add(directory)

    def note(self, handle: Closable, most: int) -> None:
        reference = weakref.ref(handle, self._news.append)
        hash(reference)  # while the handle lives: then its hash is known when it is dead, too
        self._news.append(reference)
        while self._news and self._turn.acquire(blocking=False):  # what comes before the release is counted here, too
            try:
                while self._news:
                    self._count(self._news[0])
                    self._news.popleft()
                if self._total > MIN_DESCRIPTORS:
                    self._age()
                    self._shrink(handle, most)
            finally:
                self._turn.release()

    def _count(self, reference: weakref.ref[Closable]) -> None:
        """Count a handle anew, which comes to the end of the row."""
        handle = reference()
        number = 0 if handle is None else handle.descriptors()
        self._total += number - self._counts.pop(reference, 0)
        if number:
            self._counts[reference] = number

    def _age(self) -> None:
        """Pass over the first in the row if they were used. So when one has to go it is not among many that were all
        used once, when they were opened."""
        for _ in range(min(PASSED_AT_ONCE, len(self._counts))):
            reference = next(iter(self._counts))
            handle = reference()
            if handle is not None and not handle.was_used():
                return
            self._count(reference)

    def _shrink(self, user: Closable, most: int) -> None:
        bound = share_of_descriptors()
        for _ in range(2 * len(self._counts)):
            if self._total <= bound and len(self._counts) <= most:
                return
            reference = next(iter(self._counts))
            handle = reference()
            if handle is not None and handle is not user and not handle.was_used():
                handle.close_if_idle()
            self._count(reference)

    def close_idle(self) -> bool:
        """Close all that is idle, and engines that were dropped; whether that freed any descriptor."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            before, directories = self._total, len(self._directories)
            for reference in list(self._counts):
                handle = reference()
                if handle is not None:
                    handle.close_if_idle()
                self._count(reference)
            if self._total < before:
                return True
            gc.collect()
            return len(self._directories) < directories
        finally:
            self._turn.release()

    def after_fork(self) -> None:
        """In a child: its handles have closed what they shared with the parent, or will."""
        self._turn = threading.Lock()
        self._counts.clear()
        self._news.clear()
        self._total = 0


_process = _Process()


def share_of_descriptors() -> int:
    """How many descriptors psync may keep open, by the present limit of the process (-1: it has none)."""
    limit = os.sysconf("SC_OPEN_MAX")
    return max(MIN_DESCRIPTORS, int(limit * SHARE)) if limit >= 0 else 1 << 30


def make_room(error: OSError) -> bool:
    """Whether to try again: there was no free descriptor, and there may be one now, as idle handles were closed."""
    return error.errno in (errno.EMFILE, errno.ENFILE) and _process.close_idle()


def with_room(make: Callable[[], T]) -> T:
    """``make()``, which needs a descriptor; again if there was none, and idle handles could be closed."""
    while True:
        try:
            return make()
        except OSError as error:
            if not make_room(error):
                raise
