"""Wake waiters through flags in shared memory: a writer makes a system call only if somebody waits.

On disk: ``wake/armed``, one byte a hash slot (a name's slot is a checksum of it), mapped into every process, and side
files, one a slot. A waiter watches the side file, raises the flag, and reads the awaited state once more before it
pauses. A writer that finds the flag raised lowers it and touches the side file; the waiters that are still unsatisfied
raise it again. So a flag that a killed waiter left costs one touch, and waiters on other names cost nothing.

A waiter makes the side file of its slot, and removes it when it closes the directory. One that waits for several names
makes none: it watches the side files that are there, and ``armed`` itself, which a writer touches if a slot has no side
file, and a waiter that has made one.

The fact that decides: a waiter raises the flag before it reads, and a writer makes its change before it reads the flag.
So either the waiter sees the change, or the writer sees the flag.

One waiter for each record is enough if they wait to claim from a log. So each process has a *waiter slot* there, with a
flag and a side file of its own, and a writer notifies as many as there are records. A waiter that deregisters without
having been woken has found something by itself: it lowers its flag, and a notification that had come already goes on to
another. Not promised: that two processes never share a waiter slot (both are woken then, and when one deregisters, the
other may be notified in vain until it reads by itself). A notification to the slot of a killed process is lost, and the
record waits until another waiter reads by itself, after `GRACE_S`.

inotify sees only what this host does. On a network file system (see `nfs_poll`), or where the user's inotify instances
are used up, a watch polls with a growing pause instead.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from psync.engine.contract.engine import Watch
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.fd_cache import DescriptorCache, share_of_descriptors, with_room
from psync.engine.directory.fs.presence import Presence
from psync.engine.directory.fs.syscalls import CHANGE, remove_quietly
from psync.engine.directory.layout import SLOTS, WAITER_SLOTS, Layout, slot_of
from psync.engine.system import clock, fork_hooks
from psync.errors import DirectoryGone

if TYPE_CHECKING:
    from psync.engine.directory.notify.inotify import Inotify
    from psync.engine.directory.notify.nfs_poll import PollingWatch, TokensOf

GRACE_S = 2.0
"""Seconds after which a waiter that nobody wakes reads again: for changes that psync did not make."""
REMOVAL_S = 0.005
"""Seconds that a waiter leaves to whoever removes side files, before it makes them again."""
FIRST_PAUSE_S, MAX_PAUSE_S, PAUSE_GROWTH = 0.0005, 0.05, 1.5
"""A polling watch's first and longest pause in seconds, and the factor by which each is longer than the last."""

_ALL = SLOTS * (1 + WAITER_SLOTS)
_HEAD = b"\x80\x05B" + struct.pack("<I", _ALL)  # the flags are one pickled bytes object
FIRST_FLAG = len(_HEAD)
FIRST_WAITER_SLOT = FIRST_FLAG + SLOTS
"""Where the flags of the hash slots begin, and where those of the waiter slots do."""
_NOTHING = b"\x80\x05N."  # a pickled None
_BLANK = _HEAD + bytes(_ALL) + b"."


class Wakeup:
    """The flags of one directory: writers `notify`, waiters `watch`."""

    def __init__(
        self, layout: Layout, fs: AtomicFiles, descriptors: DescriptorCache, *, announce: bool, inotify: bool
    ) -> None:
        self._layout = layout
        self._nfs_watch = None if fs.local else _nfs_watches(fs.presence)
        self._fs = fs
        self.presence = fs.presence
        self._inotify = inotify
        self._announce = announce
        self._descriptors = descriptors
        self.mapped: mmap.mmap | None = None
        """The flags, if they are mapped and in use."""
        self._resting: mmap.mmap | None = None
        """The flags, while the next use is to show that there is one: see `was_used`."""
        self._waiters: set[InotifyWatch] = set()
        """The watches of this process that wait to claim."""
        self._made: set[int] = set()
        """The slots whose side files this process made."""
        self._flags()

    def _flags(self) -> mmap.mmap | None:
        """The flags of all slots; None where writers notify nobody. After `close` they are mapped again."""
        flags = self.mapped or self._resting
        if flags is None and self._announce:
            with contextlib.suppress(OSError):  # read-only, or no room on the disk: waiters poll instead
                flags = with_room(self._map)
                self.mapped, self._resting = flags, None
                self._descriptors.opened(self, keep=False)
        self.mapped, self._resting = flags, None
        return flags

    def _map(self) -> mmap.mmap:
        path = self._layout.armed
        if not os.path.exists(path):
            self._fs.make(path, _BLANK)
        fd = self._fs.trust.checked(os.open(path, CHANGE), path)
        try:
            if (size := os.fstat(fd).st_size) < len(_BLANK):
                os.pwrite(fd, _BLANK[size:], size)  # only hints stand there: nobody misses what was damaged
            return mmap.mmap(fd, len(_BLANK))
        finally:
            os.close(fd)

    def notify(self, name: str) -> None:
        """Wake those who wait for `name`, which has changed. One load from memory if nobody waits for anything."""
        flags = self.mapped or self._flags()
        if flags is not None and flags.find(b"\x01", FIRST_FLAG, FIRST_WAITER_SLOT) >= 0:
            self.notify_slot(slot_of(name))

    def notify_slot(self, slot: int) -> None:
        """`notify`, by the hash slot of the name. utime if somebody waits."""
        flags = self.mapped or self._flags()
        if flags is not None and flags[FIRST_FLAG + slot]:
            flags[FIRST_FLAG + slot] = 0
            try:
                os.utime(self._layout.slot(slot))
            except FileNotFoundError:
                self._touch_flags()
            except OSError:
                pass  # the change is made, and a waiter reads by itself after GRACE_S

    def _touch_flags(self) -> None:
        """Wake those who wait for several names."""
        with contextlib.suppress(OSError):
            os.utime(self._layout.armed)

    def notify_claimers(self, slot: int, most: int) -> None:
        """Wake the waiters for a log, by its hash slot, and at most `most` waiters to claim from it. utime for each
        that is woken."""
        flags = self.mapped or self._flags()
        if flags is not None:
            if flags[FIRST_FLAG + slot]:
                self.notify_slot(slot)
            first = FIRST_WAITER_SLOT + slot * WAITER_SLOTS
            while most and (raised := flags.find(b"\x01", first, first + WAITER_SLOTS)) >= 0:
                self.notify_slot(raised - FIRST_FLAG)
                most -= 1

    def register(self, one: InotifyWatch) -> None:
        self._waiters.add(one)

    def deregister(self, one: InotifyWatch, waiter_slot: int, *, woken: bool) -> None:
        """End the wait of `one` in `waiter_slot`. If it was `woken`, it claims the record for which it was."""
        self._waiters.discard(one)
        if any(other.waiter_slot == waiter_slot for other in self._waiters.copy()):
            return  # another thread has the same waiter slot, and hears the same notifications
        flags = self.mapped or self._flags()
        if flags is None:
            return
        if flags[FIRST_FLAG + waiter_slot]:
            flags[FIRST_FLAG + waiter_slot] = 0
        elif not woken:
            self.notify_claimers((waiter_slot - SLOTS) // WAITER_SLOTS, 1)

    def watch(self, names: Sequence[str], taking: str | None, tokens_of: TokensOf) -> AbstractContextManager[Watch]:
        flags = self.mapped or self._flags()
        if flags is None or not self._inotify:
            names = names if taking is None else [*names, taking]
            return PollWatch(self.presence) if self._nfs_watch is None else self._nfs_watch(names, tokens_of)
        if taking is not None:
            # a waiter slot has a flag and a side file, as a hash slot has
            waiter_slot = SLOTS + slot_of(taking) * WAITER_SLOTS + os.getpid() % WAITER_SLOTS
            return InotifyWatch(self, flags, [*map(slot_of, names), waiter_slot], waiter_slot)
        slots = [slot_of(names[0])] if len(names) == 1 else sorted(set(map(slot_of, names)))
        return InotifyWatch(self, flags, slots, None)

    def listen(self, instance: Inotify, slots: list[int], *, several: bool) -> None:
        """Let `instance` watch the side files of `slots`, and the directory. No system call if it does already.

        For `several` names: those that are there, and the file of flags. listdir.
        """
        where = self.presence.inode
        instance.watch(self._layout.root, where, directory=True)
        if several:
            instance.watch(self._layout.armed, where)  # before the listing, which may miss what is made meanwhile
            there = set(os.listdir(self._layout.wake))
            slots = [slot for slot in slots if f"{slot:03x}" in there]
        for slot in slots:
            while not self._listens(instance, slot) and not several:
                # a process that closes the directory may remove it before it is watched
                if self._fs.make(self._layout.slot(slot), _NOTHING):
                    self._made.add(slot)
                    self._touch_flags()  # who waits for several names has to watch this file, too

    def _listens(self, instance: Inotify, slot: int) -> bool:
        """Let `instance` watch the side file of `slot`; False if there is none."""
        try:
            instance.watch(self._layout.slot(slot), self.presence.inode)
        except FileNotFoundError:
            return False
        return True

    def descriptors(self) -> int:
        return int((self.mapped or self._resting) is not None)  # a map has one of its own

    def was_used(self) -> bool:
        """The flags are put away, at no cost to the verbs: one that needs them brings them back."""
        if self.mapped is None:
            return False
        self.mapped, self._resting = None, self.mapped
        return True

    def close_if_idle(self) -> bool:
        self.mapped = self._resting = None  # not closed: a thread that has them yet may read and write them
        return True

    def close(self) -> None:
        flags = self.mapped or self._resting
        self.mapped = self._resting = None
        if flags is not None:
            while self._made:  # a waiter of another process hears of the removal, and makes it again
                remove_quietly(self._layout.slot(self._made.pop()))
            flags.close()


def _nfs_watches(presence: Presence) -> Callable[[Sequence[str], TokensOf], PollingWatch]:
    """Return the function that makes a watch whose waiters poll the server together."""
    from psync.engine.directory.notify.nfs_poll import PollCoordinator, PollingWatch

    return functools.partial(PollingWatch, PollCoordinator(), presence)


class InotifyWatch(Watch):
    """A watch by inotify. It enters without a system call if an idle instance watches the slots already."""

    def __init__(self, wake: Wakeup, flags: mmap.mmap, slots: list[int], waiter_slot: int | None) -> None:
        self._wake = wake
        self._all = flags
        self._slots = slots
        self.waiter_slot = waiter_slot
        self._several = waiter_slot is None and len(slots) > 1
        self._registered = False
        self._touched = False
        self._instance: Inotify | None = None

    def __enter__(self) -> Watch:
        instance = self._instance = _pool.fresh() if self._several else _pool.borrow()
        if instance is None:
            return PollWatch(self._wake.presence)
        try:
            if instance.heard:
                instance.drain()
            self._wake.listen(instance, self._slots, several=self._several)
        except DirectoryGone:
            _pool.give_back(instance)
            raise
        except OSError:  # fs.inotify.max_user_watches is used up
            return PollWatch(self._wake.presence)
        if self.waiter_slot is not None:
            self._wake.register(self)
            self._registered = True
        self._raise_flags()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._instance is not None and self._several:
            self._instance.close()  # a later waiter for one name should not hear of the flags' file
        elif self._instance is not None:
            _pool.give_back(self._instance)
        if self._registered and self.waiter_slot is not None:
            self._wake.deregister(self, self.waiter_slot, woken=self._touched)

    def _raise_flags(self) -> None:
        for slot in self._slots:
            self._all[FIRST_FLAG + slot] = 1

    def pause(self, timeout: float | None) -> None:
        instance = self._instance
        assert instance is not None
        if self._touched:
            # A woken waiter reads first, and mostly finds what it waited for. This one did not: so it raises the flags
            # again, and returns at once, to read once more after that.
            self._touched = False
            kept = instance.drain()
            if instance.moved or not kept:
                self._after_removal(instance)
            elif self._several:
                self._listen_again(instance)
            self._raise_flags()
        else:
            self._touched = instance.wait(GRACE_S if timeout is None else min(timeout, GRACE_S))
            if self._touched:
                return
            self._wake.presence.look()
            if self._registered:
                self._raise_flags()  # another process with the same waiter slot may have lowered the flag

    def _after_removal(self, instance: Inotify) -> None:
        """A directory was removed or moved away, or a side file was removed: by something else, perhaps with all that
        is in the directory. A file that is made in the middle of that would keep the directory from being removed."""
        instance.moved = False
        self._wake.presence.look()
        clock.sleep(REMOVAL_S)
        self._wake.presence.look()
        self._listen_again(instance)

    def _listen_again(self, instance: Inotify) -> None:
        try:
            self._wake.listen(instance, self._slots, several=self._several)
        except DirectoryGone:
            raise
        except OSError:
            pass  # it reads by itself after GRACE_S


class PollWatch(Watch):
    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._pause = FIRST_PAUSE_S

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Nothing to give back."""

    def pause(self, timeout: float | None) -> None:
        clock.sleep(self._pause if timeout is None else max(0.0, min(timeout, self._pause)))
        if clock.monotonic() > self._presence.due:
            self._presence.look()
        self._pause = min(self._pause * PAUSE_GROWTH, MAX_PAUSE_S)


class InotifyPool:
    """Idle inotify instances, kept with their watches for the next wait: a user has few (128).

    What an instance hears of an earlier wait only ends a pause early. One thread at a time uses an instance.
    """

    MAX_IDLE, MAX_WATCHES = 4, 512
    MAX_INSTANCES = 64
    """Instances that a process has at a time: half of what Linux allows a user. More waiting threads poll."""

    def __init__(self) -> None:
        self._instances: list[Inotify] = []  # pop and append are atomic, so threads need no lock
        self._all: weakref.WeakSet[Inotify] = weakref.WeakSet()
        """Also those that are in use."""
        fork_hooks.remember(self)

    def borrow(self) -> Inotify | None:
        """None when the user has no instance left, or the process no descriptor."""
        try:
            return self._instances.pop()
        except IndexError:
            return self.fresh()

    def fresh(self) -> Inotify | None:
        """A new instance, as `borrow` gives it."""
        try:
            from psync.engine.directory.notify.inotify import Inotify

            if len(self._all) >= min(self.MAX_INSTANCES, share_of_descriptors()):
                return None
            instance = with_room(Inotify)
            self._all.add(instance)
            return instance
        except (OSError, ImportError):  # without a free descriptor the kernel's library can't be loaded either
            return None

    def give_back(self, instance: Inotify) -> None:
        if len(self._instances) < self.MAX_IDLE and len(instance.watched) <= self.MAX_WATCHES:
            self._instances.append(instance)
        else:
            self._all.discard(instance)
            instance.close()

    def after_fork(self) -> None:
        """A child that read its parent's events would steal them."""
        while self._instances:
            self._instances.pop().close()


_pool = InotifyPool()
