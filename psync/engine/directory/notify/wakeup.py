"""Whoever waits raises a flag; whoever changes something looks for the flag and only then spends a system call.

On disk: ``wake/armed``, one byte a slot (a name's slot is a checksum of it), mapped into every process, and
one side file a slot. A waiter watches the side file, raises the flag, and looks once more before it pauses. A
writer that finds the flag raised lowers it and touches the side file; the waiters that are still
unsatisfied raise it again. So a flag that a killed waiter left costs one touch, and waiters on
other names cost nothing.

Of those who wait for something to take, one is enough: so each process has a seat of its own there, with a flag and a
side file, and who puts something in calls as many as there are records. Who leaves has found something by itself: it
lowers its flag, and a call that had come already goes on to another. Not promised: that two processes never have one
seat (both are woken then, and when one leaves, the other may be called in vain until it has looked by itself). A call
to a seat whose process was killed is lost, and what was to be taken waits until the others look by themselves.

The fact that decides: the flag goes up before the look, the change is made before the flag is read; so
either the look sees the change or the writer sees the flag.

inotify sees only what this host does. Where that is not enough (a network file system, see `far`), or where
inotify is used up, a watch polls with a growing pause instead.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from psync.engine.contract.engine import Watch
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import CHANGE
from psync.engine.directory.layout import SEATS, SLOTS, Layout, slot_of
from psync.engine.system import clock, fork_hooks

if TYPE_CHECKING:
    from psync.engine.directory.notify.inotify import Inotify
    from psync.engine.directory.notify.nfs_poll import PollCoordinator, SignsOf

GRACE = 2.0
"""Seconds between two looks of a waiter whom nobody wakes: for changes that psync did not make."""
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.0005, 0.05, 1.5
"""Seconds: a polling watch pauses so long at first, at most, and by what factor longer each time."""

_ALL = SLOTS * (1 + SEATS)
_HEAD = b"\x80\x05B" + struct.pack("<I", _ALL)  # the flags are one pickled bytes object
_FLAGS = len(_HEAD)
_SEATS = _FLAGS + SLOTS
"""Where they begin, and where those of the seats do."""
_NOTHING = b"\x80\x05N."  # a pickled None
_BLANK = _HEAD + bytes(_ALL) + b"."


class Wakeup:
    """The flags of one directory: `notify` for those who change, `watch` for those who wait."""

    def __init__(self, layout: Layout, fs: AtomicFiles, *, announce: bool, inotify: bool) -> None:
        self._layout = layout
        self._rounds: PollCoordinator | None = None
        if fs.shared is not None:
            from psync.engine.directory.notify.nfs_poll import PollCoordinator

            self._rounds = PollCoordinator()
        self._fs = fs
        self._inotify = inotify
        self._announce = announce
        self._mapped: mmap.mmap | None = None
        self._seated: set[_Woken] = set()
        """Those of this process that wait to take."""
        self._flags()

    def _flags(self) -> mmap.mmap | None:
        """The flags of all slots; None where nobody is told anything. After `close` they are mapped again."""
        if self._mapped is None and self._announce:
            with contextlib.suppress(OSError):  # read-only, or no room: who waits will have to look by itself
                self._mapped = self._map()
        return self._mapped

    def _map(self) -> mmap.mmap:
        path = self._layout.armed
        if not os.path.exists(path):
            self._fs.make(path, _BLANK)
        fd = self._fs.trust.kept(os.open(path, CHANGE), path)
        try:
            if (size := os.fstat(fd).st_size) < len(_BLANK):
                os.pwrite(fd, _BLANK[size:], size)  # only hints stand there: nobody misses what was damaged
            return mmap.mmap(fd, len(_BLANK))
        finally:
            os.close(fd)

    def notify(self, name: str) -> None:
        """Something about `name` has changed: wake who waits for it. One look into memory if nobody does."""
        flags = self._mapped or self._flags()
        if flags is not None and flags.find(b"\x01", _FLAGS, _SEATS) >= 0:
            self.notify_slot(slot_of(name))

    def notify_slot(self, slot: int) -> None:
        """The same of a name's slot. utime if somebody waits."""
        flags = self._mapped or self._flags()
        if flags is not None and flags[_FLAGS + slot]:
            flags[_FLAGS + slot] = 0
            try:
                os.utime(self._layout.slot(slot))
            except OSError:
                pass  # the change is made; who waits looks again by itself

    def notify_takers(self, slot: int, most: int) -> None:
        """So many records can be taken from the log whose name has the slot. utime for each who is woken."""
        self.notify_slot(slot)
        self.call(slot, most)

    def call(self, slot: int, most: int) -> None:
        """Wake `most` of those who sit there, or as many as there are."""
        flags = self._mapped or self._flags()
        if flags is not None:
            seats = _SEATS + slot * SEATS
            while most and (raised := flags.find(b"\x01", seats, seats + SEATS)) >= 0:
                self.notify_slot(raised - _FLAGS)
                most -= 1

    def sit_down(self, one: _Woken) -> None:
        self._seated.add(one)

    def stand_up(self, one: _Woken, seat: int, *, woken: bool) -> None:
        """Who sat there does not wait any more; was it `woken`, it took what it was called for."""
        self._seated.discard(one)
        if any(other.seat == seat for other in self._seated.copy()):
            return  # a thread that hears the same calls
        flags = self._mapped or self._flags()
        if flags is None:
            return
        if flags[_FLAGS + seat]:
            flags[_FLAGS + seat] = 0
        elif not woken:
            self.call((seat - SLOTS) // SEATS, 1)

    def watch(self, names: Sequence[str], taking: str | None, signs_of: SignsOf) -> AbstractContextManager[Watch]:
        flags = self._mapped or self._flags()
        if flags is None or not self._inotify:
            names = names if taking is None else [*names, taking]
            if self._rounds is None:
                return _Polling()
            from psync.engine.directory.notify.nfs_poll import PollingWatch

            return PollingWatch(self._rounds, names, signs_of)
        slots = [slot_of(names[0])] if len(names) == 1 else sorted(set(map(slot_of, names)))
        seat = None
        if taking is not None:
            seat = SLOTS + slot_of(taking) * SEATS + os.getpid() % SEATS
            slots.append(seat)  # a seat is one more slot
        return _Woken(self, flags, slots, seat)

    def listen(self, instance: Inotify, slots: list[int]) -> None:
        """`instance` hears from now on when one of `slots` is touched. No system call if it did before."""
        for slot in slots:
            path = self._layout.slot(slot)
            try:
                instance.watch(path)
            except FileNotFoundError:
                self._fs.make(path, _NOTHING)
                instance.watch(path)

    def close(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None


class _Woken(Watch):
    """Its own context manager, and without a system call at its beginning: many waits are short."""

    def __init__(self, wake: Wakeup, flags: mmap.mmap, slots: list[int], seat: int | None) -> None:
        self._wake = wake
        self._all = flags
        self._slots = slots
        self.seat = seat
        self._sits = False
        self._touched = False
        self._instance: Inotify | None = None

    def __enter__(self) -> Watch:
        instance = self._instance = _idle.borrow()
        if instance is None:
            return _Polling()
        try:
            if instance.heard:
                instance.drain()
            self._wake.listen(instance, self._slots)
        except OSError:  # fs.inotify.max_user_watches is used up
            return _Polling()
        if self.seat is not None:
            self._wake.sit_down(self)
            self._sits = True
        self._raise_flags()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._instance is not None:
            _idle.give_back(self._instance)
        if self._sits and self.seat is not None:
            self._wake.stand_up(self, self.seat, woken=self._touched)

    def _raise_flags(self) -> None:
        for slot in self._slots:
            self._all[_FLAGS + slot] = 1

    def pause(self, timeout: float | None) -> None:
        instance = self._instance
        assert instance is not None
        if self._touched:
            # Who was woken looks first, and mostly has what it waited for. It is here because it has not: only
            # now is it worth while to raise the flags again, and to look once more after that.
            self._touched = False
            if not instance.drain():
                self._wake.listen(instance, self._slots)
            self._raise_flags()
        else:
            self._touched = instance.wait(GRACE if timeout is None else min(timeout, GRACE))
            if self._sits and not self._touched:
                self._raise_flags()  # one with the same seat may have lowered that flag


class _Polling(Watch):
    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Nothing to give back."""

    def pause(self, timeout: float | None) -> None:
        clock.sleep(self._pause if timeout is None else max(0.0, min(timeout, self._pause)))
        self._pause = min(self._pause * GROWTH, LONGEST_PAUSE)


class _Idle:
    """Instances are few (128 a user), so some are kept for the next wait, with what they watch; what they hear of
    earlier waits only ends a pause early. Each is used by one thread at a time."""

    KEPT, WATCHES = 4, 512

    def __init__(self) -> None:
        self._instances: list[Inotify] = []  # taken and given back by single calls, so threads need no lock
        fork_hooks.remember(self)

    def borrow(self) -> Inotify | None:
        """None when the user has no instance left."""
        try:
            return self._instances.pop()
        except IndexError:
            pass
        from psync.engine.directory.notify.inotify import Inotify

        try:
            return Inotify()
        except OSError:
            return None

    def give_back(self, instance: Inotify) -> None:
        if len(self._instances) < self.KEPT and len(instance.watched) <= self.WATCHES:
            self._instances.append(instance)
        else:
            instance.close()

    def after_fork(self) -> None:
        """A child that read its parent's events would steal them."""
        while self._instances:
            self._instances.pop().close()


_idle = _Idle()
