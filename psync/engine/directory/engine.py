"""The directory engine: the contract's verbs on files, with the strategies that the file system allows."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from psync.engine.contract.engine import Watch
from psync.engine.contract.register import Register
from psync.engine.contract.report import Facts, Process, Shape
from psync.engine.contract.values import Alive, Durability, Format
from psync.engine.directory import format_version, scan
from psync.engine.directory.buckets.transaction import MultiAppend
from psync.engine.directory.cells.local import Cells
from psync.engine.directory.cells.nfs import NetworkCells
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import Capabilities, look
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.fs.nfs_lookup import Lookups
from psync.engine.directory.fs.nfs_replace import Replacements
from psync.engine.directory.fs.permissions import Permissions
from psync.engine.directory.fs.syscalls import CHANGE, Shared, let_go, make_folder, remove_quietly
from psync.engine.directory.handles import ShapeEngine
from psync.engine.directory.layout import OWN, OWN_FOLDERS, SEATS, Layout, is_leftover, is_used, slot_of
from psync.engine.directory.liveness.registry import Owners
from psync.engine.directory.locks.mutex import DirectoryMutex
from psync.engine.directory.log.nfs_log import NetworkLog
from psync.engine.directory.notify.nfs_poll import ChangeToken
from psync.engine.directory.notify.wakeup import GRACE, Wakeup
from psync.engine.directory.registers.nfs import NetworkRegister
from psync.engine.system import boot_time, clock, exit_hooks, fork_hooks

Wakeups = Literal["auto", "inotify", "poll"]
Sharing = Literal["auto", "host", "network"]
OpenedWith = tuple[str, Durability, Wakeups, bool, Sharing, Format | None]
KEPT = 280
"""Buckets, logs, registers and mutexes whose descriptors are kept open, at most. A category has 256 buckets."""
SPIN = 0.0003
"""Seconds: about what two processes need to wake each other."""


class DirectoryEngine(ShapeEngine):
    """Bytes under names, in files below `root` (created with mode 0700 if it is not there).

    `durability`: see the contract. `wakeups`: how waiting ends; "auto" takes inotify where it sees every
    change (a local file system) and polls with a growing pause elsewhere. `trust_group`: who is in the group of
    `root`, a folder with the setgid bit, is trusted, and gets access to all that is made (see `trust`). `sharing`: who
    else works in the directory; "host": only processes of this host, "network": those of others, too, by a network file
    system; "auto" goes by the type of file system.

    Raises `UnsafeStore` if somebody who is not trusted could write to `root`, or put another directory in its place;
    `StoreFailed` if it can't be opened, `FormatMismatch` if psync works there with another format, `ValueError` for an
    option that does not exist.
    """

    spin = SPIN
    grace = GRACE

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        wakeups: Wakeups = "auto",
        trust_group: bool = False,
        sharing: Sharing = "auto",
    ) -> None:
        check_level(durability)
        if wakeups not in ("auto", "inotify", "poll"):
            raise ValueError(f"wakeups must be 'auto', 'inotify' or 'poll', not {wakeups!r}")
        if sharing not in ("auto", "host", "network"):
            raise ValueError(f"sharing must be 'auto', 'host' or 'network', not {sharing!r}")
        self.root = os.path.abspath(os.path.expanduser(os.fspath(root)))
        self.durability: Durability = durability
        self.wakeups: Wakeups = wakeups
        self.trust_group = trust_group
        self.sharing: Sharing = sharing
        self.layout = Layout(self.root, Permissions(self.root, team=trust_group, own=OWN_FOLDERS))
        try:
            if not self.layout.trust.look():
                make_folder(self.root, self.layout.trust.access)
                self.layout.trust.look()
            stated = format_version.check(self.layout)
            self.can = look(self.layout, network=None if sharing == "auto" else sharing == "network")
            self.layout.trust.unnamed = self.can.unnamed
            self._set_level(durability)
            if not stated and self.can.writable:
                format_version.begin(self.layout, self._fs)
        except OSError as error:
            raise translate_os_error(error, str(root), self.root) from error
        if self.can.network:
            self.spin, self.remote = 0.0, True
        self._owners = Owners(self.layout, self._fs)
        inotify = wakeups == "inotify" or (wakeups == "auto" and not self.can.network)
        self._wake = Wakeup(self.layout, self._fs, announce=inotify or not self.can.network, inotify=inotify)
        self._kept = DescriptorCache(KEPT)
        self._mutexes: dict[str, DirectoryMutex] = {}
        self._farewells = exit_hooks.CloseCallbacks()
        self._first: DirectoryEngine | None = None
        self._others: weakref.WeakValueDictionary[Durability, DirectoryEngine] = weakref.WeakValueDictionary()
        """The engines at other levels: they keep this one, their `_first`, and use all of it that has no level."""
        fork_hooks.remember(self)
        with contextlib.suppress(OSError):  # somebody else's litter keeps nobody from working
            if self.can.writable and (os.listdir(self.layout.tmp) or os.path.exists(self.layout.pending)):
                self._sweep()

    def _set_level(self, durability: Durability) -> None:
        """What of an engine has a level, and its handles."""
        self.durability = durability
        self._fs = AtomicFiles(
            self.layout, self.can, sync_file=durability != "process", sync_name=durability == "power"
        )
        self._cells = cells_of(self.can, self._fs)
        self._together = MultiAppend(self.layout, self._fs)
        self._without_handles()

    def at(self, durability: Durability | None) -> DirectoryEngine:
        first = self._first or self
        if durability is None or durability == self.durability:
            return self
        check_level(durability)
        if durability == first.durability:
            return first
        with first._lock:
            other = first._others.get(durability)
            if other is None:
                other = object.__new__(DirectoryEngine)
                other.__dict__.update(first.__dict__)
                other._first = first
                other._set_level(durability)
                first._others[durability] = other
                fork_hooks.remember(other)
        return other

    def __repr__(self) -> str:
        return f"DirectoryEngine({self.root!r})"

    def __reduce__(self) -> tuple[Callable[..., DirectoryEngine], OpenedWith]:
        return _reopen, self.opened_with

    @property
    def opened_with(self) -> OpenedWith:
        """The root and the options: engines for which this is the same can stand for each other."""
        return self.root, self.durability, self.wakeups, self.trust_group, self.sharing, self.format

    # -- waiting, time, owners -----------------------------------------------------------------------

    def watch(self, names: Sequence[str], taking: str | None = None) -> AbstractContextManager[Watch]:
        return self._wake.watch(names, taking, self._signs)

    def _signs(self, name: str) -> Iterator[ChangeToken]:
        """By which a change of `name` shows on a network file system; none if it does not. What is only announced shows
        in the log or the register whose name it begins with, and what belongs to a log in what stands below its name.
        """
        shared = self._fs.shared
        if shared is None:
            return
        if name in self._buckets or not name.startswith(f"{OWN}/"):
            path = self.layout.path(name)
            yield ChangeToken(name, lambda asked: shared.lookups.status(path, asked), exact=False)
            return
        known = name in self._logs or name in self._registers
        owner, part = (name, "") if known else name.rpartition("/")[::2]
        if (register := self._registers.get(owner)) is not None:
            yield ChangeToken(owner, functools.partial(_read, register))
        if owner in self._logs:
            with self._lock:
                logs, registers = list(self._logs.items()), list(self._registers.items())
            for each, below in registers:
                if each.startswith(f"{owner}/"):
                    yield ChangeToken(each, functools.partial(_read, below))
            for each, log in logs:
                if isinstance(log, NetworkLog) and f"{each}/".startswith(f"{owner}/"):
                    yield from log.signs(final=part == "final")

    def announce(self, name: str) -> None:
        self._wake.notify(name)
        self._wake.call(slot_of(name), SEATS)

    def give_way(self) -> None:
        os.sched_yield()

    now = staticmethod(clock.monotonic)

    def due(self, seconds: float) -> int:
        return boot_time.due(seconds)

    def until(self, due: int) -> float | None:
        return boot_time.until(due)

    def owner(self) -> int:
        if number := self._owners.number:
            return number
        try:
            number = self._owners.mine()
        except OSError as error:
            raise translate_os_error(error, "this process", self.layout.owners) from error
        exit_hooks.remember(self._first or self)
        return number

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self._farewells.add(farewell)

    def alive(self, owner: int) -> Alive:
        try:
            return self._owners.alive(owner)
        except OSError as error:
            raise translate_os_error(error, "an owner", self.layout.owner(owner)) from error

    def describe(self, owner: int) -> str:
        return self._owners.describe(owner)

    # -- looking at the whole ------------------------------------------------------------------------

    def is_used(self) -> bool:
        return is_used(self.root)

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        return scan.walk(self.layout, self._fs, folder)

    def facts(self, name: str) -> Facts | None:
        return scan.facts(self.layout, name)

    def mutexes(self) -> Sequence[str]:
        return scan.mutexes(self.layout, self._fs)

    def processes(self) -> Sequence[Process]:
        return scan.processes(self.layout, self._fs, self._owners)

    # -- housekeeping --------------------------------------------------------------------------------

    def sweep(self) -> int:
        removed, pending = 0, False
        replacements = self._fs.replacements or Replacements(  # other hosts may have worked here before
            Shared(Lookups(self.root, coarse=False), direct=0), self.layout.trust.access
        )
        for path in scan.successors(self.layout, self._fs):
            with contextlib.suppress(OSError):
                try:
                    removed += replacements.sweep(path)
                except BlockingIOError:
                    pending = True
        return removed + self._sweep(linked=not pending)

    def _sweep(self, *, linked: bool = False) -> int:
        """Without looking at each folder. `linked`: also new files that came to their names, but were not looked at
        again there: where a replacement is under way that second link shows to whom a name belongs."""
        removed = self._owners.sweep()
        for note, buckets in self._together.abandoned():
            for name in buckets:
                self.bucket(name).tail()  # which makes up for what is missing
            removed += remove_quietly(note)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.layout.tmp):
                if not is_leftover(name):  # which goes as soon as nobody has it open any more
                    removed += _remove_abandoned(f"{self.layout.tmp}/{name}", linked or not self.can.network)
        return removed

    def close(self) -> None:
        self._farewells.say()
        self._kept.close()
        self._owners.close()
        self._wake.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is going down
            if self._first is None:
                self.close()

    def after_fork(self) -> None:
        """In a child: nothing of the parent's is ours."""
        self._lock = threading.Lock()
        self._farewells.forget()
        for each in (*self._handles(), self._owners):
            each.after_fork()


def check_level(durability: str) -> None:
    """Raises ValueError."""
    if durability not in ("process", "file", "power"):
        raise ValueError(f"durability must be 'process', 'file' or 'power', not {durability!r}")


def cells_of(can: Capabilities, fs: AtomicFiles) -> Cells:
    return Cells(can, fs) if fs.shared is None else NetworkCells(can, fs, fs.shared)


def _read(register: Register, asked: dict[str, bool]) -> bytes | None:
    assert isinstance(register, NetworkRegister)
    return register.sign()


def _reopen(
    root: str, durability: Durability, wakeups: Wakeups, trust_group: bool, sharing: Sharing, format: Format | None
) -> DirectoryEngine:
    engine = DirectoryEngine(root, durability=durability, wakeups=wakeups, trust_group=trust_group, sharing=sharing)
    engine.format = format
    return engine


def _remove_abandoned(path: str, linked: bool) -> int:
    """Remove a temporary file unless its writer lives, which keeps it locked; one that has another name, too, only if
    `linked`."""
    try:
        fd = os.open(path, CHANGE)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not linked and os.fstat(fd).st_nlink > 1:
            return 0
        os.unlink(path)
        return 1
    except OSError:
        return 0
    finally:
        let_go(fd)
