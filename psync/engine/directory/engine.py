"""Implement the engine's verbs on files, composed of parts that suit the file system.

`CellVerbs` reads and changes cells, `HandleCache` hands out buckets, logs and registers: each engine has its own, as
they have a level of durability. `OpenDirectory` holds the parts without one, which the engines of a directory share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from psync.engine.contract.engine import Engine, Watch
from psync.engine.contract.values import Durability, Format
from psync.engine.delegate import Delegate
from psync.engine.directory.cells.local import Cells
from psync.engine.directory.cells.verbs import CellVerbs
from psync.engine.directory.fs import format_version
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import Capabilities, probe_capabilities
from psync.engine.directory.fs.errors import advise, loading, translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.fs.permissions import PRIVATE_UMASK, Permissions
from psync.engine.directory.fs.presence import begin_anew
from psync.engine.directory.fs.syscalls import CHANGE, let_go, make_folder, remove_empty_folders, remove_quietly
from psync.engine.directory.handles import HandleCache, MutexCache
from psync.engine.directory.layout import OWN, OWN_FOLDERS, WAITER_SLOTS, Layout, is_leftover, is_used, slot_of
from psync.engine.directory.liveness.registry import OwnerRegistry
from psync.engine.directory.notify.wakeup import GRACE_S, Wakeup
from psync.engine.system import clock, fork_hooks

if TYPE_CHECKING:
    from psync.engine.contract.report import Facts, Process, Shape
    from psync.engine.system.exit_hooks import CloseCallbacks

Wakeups = Literal["auto", "inotify", "poll"]
Sharing = Literal["auto", "host", "network"]
Options = tuple[Wakeups, bool, Sharing, int, bool]
OpenedWith = tuple[str, Durability, Wakeups, bool, Sharing, int, bool, Format | None]
MAX_OPEN_HANDLES = 2000
"""Buckets, logs, registers and mutexes that this process keeps open, at most, however many descriptors it may have.
Each maps up to some ten files, and the kernel allows 65,530 maps."""
SPIN_S = 0.0003
"""About the time that two processes need to wake each other."""


class OpenDirectory:
    """The parts that the engines of one directory share, whatever their level of durability."""

    def __init__(
        self, layout: Layout, can: Capabilities, fs: AtomicFiles, *, announce: bool = False, inotify: bool = False
    ) -> None:
        self.layout = layout
        self.can = can
        # A reference to itself: a process that drops its last handle stays an owner until the next collection, so that
        # what it has just seen (a broken barrier, say) is not taken for that of a process that ended.
        self.owners = OwnerRegistry(layout, fs, self._close_at_exit)
        self.descriptors = DescriptorCache(MAX_OPEN_HANDLES)
        self.wake = Wakeup(layout, fs, self.descriptors, announce=announce, inotify=inotify)
        self.mutexes = MutexCache(layout, fs, self.owners, self.wake, self.descriptors)
        self._callbacks: CloseCallbacks | None = None
        self.engines: weakref.WeakValueDictionary[Durability, DirectoryEngine] = weakref.WeakValueDictionary()
        """One engine a level, as far as somebody uses it."""
        fork_hooks.remember(self)

    def at_close(self, callback: Callable[[], object]) -> None:
        """Call `callback` before the directory is closed."""
        if self._callbacks is None:
            with loading("this process", self.layout.owners):
                from psync.engine.system.exit_hooks import CloseCallbacks

            self._callbacks = CloseCallbacks()
        self._callbacks.add(callback)

    def close(self) -> None:
        if self._callbacks is not None:
            self._callbacks.run()
        self.wake.close()
        self.descriptors.close()
        self.owners.close()

    def _close_at_exit(self) -> None:
        from psync.engine.system import exit_hooks

        exit_hooks.remember(self)

    def after_fork(self) -> None:
        """In a child: the owner and the callbacks are the parent's. (The handles' parts see to themselves.)"""
        self._callbacks = None
        self.owners.after_fork()


class DirectoryEngine(Engine):
    """Bytes under names, in files below `root` (created with mode 0700 if it is not there).

    `durability`: see the contract. `wakeups`: how a wait ends; "auto" takes inotify where that sees every change (on a
    local file system), and polls with a growing pause elsewhere. `trust_group`: the members of the group of `root`, a
    folder with the setgid bit, are trusted, and get access to all new files (see `Permissions`). `sharing`: the
    processes that work in the directory; "host": only those of this host, "network": also those of other hosts, through
    a network file system; "auto": judge by the type of file system. `umask`: who else may read what is made (see
    `access_for`). `unpickles`: False if nothing that others could have written is unpickled (`open_engine` knows).

    Raises `UnsafeStore` if a user who is not trusted could write to `root`, or put another directory in its place;
    `StoreFailed` if it can't be opened, `FormatMismatch` if psync works there with another format, `ValueError` for an
    option that does not exist.
    """

    spin = SPIN_S
    grace = GRACE_S
    own_folders = OWN_FOLDERS

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        wakeups: Wakeups = "auto",
        trust_group: bool = False,
        sharing: Sharing = "auto",
        umask: int = PRIVATE_UMASK,
        unpickles: bool = True,
    ) -> None:
        check_level(durability)
        if wakeups not in ("auto", "inotify", "poll"):
            raise ValueError(f"wakeups must be 'auto', 'inotify' or 'poll', not {wakeups!r}")
        if sharing not in ("auto", "host", "network"):
            raise ValueError(f"sharing must be 'auto', 'host' or 'network', not {sharing!r}")
        layout = layout_of(root, trust_group, umask, unpickles=unpickles)
        try:
            if not layout.trust.check_root():
                begin_anew(layout.root)
                make_folder(layout.root, layout.trust.access)
                layout.trust.check_root()
            stated = format_version.check(layout)
            can = probe_capabilities(layout, network=None if sharing == "auto" else sharing == "network")
            layout.trust.unnamed = can.unnamed
            layout.presence.begin(network=can.network)
            fs = files_of(layout, can, durability)
            if not stated and can.writable:
                format_version.begin(layout, fs)
        except OSError as error:
            raise translate_os_error(error, str(root), layout.root) from error
        inotify = wakeups == "inotify" or (wakeups == "auto" and not can.network)
        directory = OpenDirectory(layout, can, fs, announce=inotify or not can.network, inotify=inotify)
        self._compose(directory, fs, durability, (wakeups, trust_group, sharing, umask, unpickles))
        with contextlib.suppress(OSError):  # somebody else's orphan files keep nobody from working
            if can.writable and (os.listdir(layout.tmp) or os.path.exists(layout.pending)):
                self._sweep()

    def _compose(
        self,
        directory: OpenDirectory,
        fs: AtomicFiles,
        durability: Durability,
        options: Options,
    ) -> None:
        """Build the parts that have a level of durability on those that the engines of the directory share."""
        self.layout, self.can = directory.layout, directory.can
        self.root = self.layout.root
        self.durability = durability
        self.wakeups, self.trust_group, self.sharing, self.umask, self.unpickles = self._options = options
        if fs.reading or self.can.refused:
            self.read_only = True
        if self.can.network:
            self.spin, self.remote = 0.0, True
        self._directory = directory
        self._owners, self._wake, self._mutexes = directory.owners, directory.wake, directory.mutexes
        self._fs = fs
        self._cells = CellVerbs(self.layout, fs, cells_of(self.can, fs), self._wake)
        self._handles = HandleCache(
            self.layout,
            self.can,
            fs,
            damaged=self._cells.damaged,
            owners=self._owners,
            wake=self._wake,
            descriptors=directory.descriptors,
        )
        directory.engines[durability] = self

    def at(self, durability: Durability | None) -> DirectoryEngine:
        if durability is None or durability == self.durability:
            return self
        check_level(durability)
        engine = self._directory.engines.get(durability)
        if engine is None:
            engine = object.__new__(DirectoryEngine)
            engine.format = self.format
            engine._compose(self._directory, files_of(self.layout, self.can, durability), durability, self._options)
        return engine

    def is_gone(self) -> bool:
        return self.layout.presence.is_gone()

    def __repr__(self) -> str:
        return f"DirectoryEngine({self.root!r})"

    def __reduce__(self) -> tuple[Callable[..., DirectoryEngine], OpenedWith]:
        return _reopen, self.opened_with

    @property
    def opened_with(self) -> OpenedWith:
        """The root and the options: engines for which this is the same can stand for each other."""
        return self.root, self.durability, *self._options, self.format

    # -- cells and the other shapes: verbs of the parts ------------------------------------------------

    read = Delegate("_cells", CellVerbs.read)
    write = Delegate("_cells", CellVerbs.write)
    create = Delegate("_cells", CellVerbs.create)
    delete = Delegate("_cells", CellVerbs.delete)
    pop = Delegate("_cells", CellVerbs.pop)
    move = Delegate("_cells", CellVerbs.move)
    update = Delegate("_cells", CellVerbs.update)
    entries = Delegate("_cells", CellVerbs.entries)
    list = Delegate("_cells", CellVerbs.list)
    set_aside = Delegate("_cells", CellVerbs.set_aside)
    spare_damaged = Delegate("_cells", CellVerbs.spare_damaged)
    keep = Delegate("_cells", CellVerbs.keep)
    bucket = Delegate("_handles", HandleCache.bucket)
    append_all = Delegate("_handles", HandleCache.append_all)
    log = Delegate("_handles", HandleCache.log)
    register = Delegate("_handles", HandleCache.register)
    mutex = Delegate("_mutexes", MutexCache.mutex)

    def guard(self, name: str) -> AbstractContextManager[None]:
        with loading(name, self.layout.guards):
            from psync.engine.directory.locks.guard import LOCAL_POLL_S, NFS_POLL_S, guard

        self.layout.presence.look()
        return guard(self.layout, name, NFS_POLL_S if self.can.network else LOCAL_POLL_S)

    # -- waiting, time, owners -----------------------------------------------------------------------

    def watch(self, names: Sequence[str], taking: str | None = None) -> AbstractContextManager[Watch]:
        return self._wake.watch(names, taking, self._handles.change_tokens)

    def announce(self, name: str) -> None:
        self._wake.notify_claimers(slot_of(name), WAITER_SLOTS)

    def give_way(self) -> None:
        os.sched_yield()

    now = staticmethod(clock.monotonic)

    def due(self, seconds: float) -> int:
        from psync.engine.system import boot_time

        return boot_time.due(seconds)

    def until(self, due: int) -> float | None:
        from psync.engine.system import boot_time

        return boot_time.until(due)

    owner = Delegate("_owners", OwnerRegistry.owner)
    alive = Delegate("_owners", OwnerRegistry.alive)
    describe = Delegate("_owners", OwnerRegistry.describe)

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self._directory.at_close(farewell)

    # -- the whole directory ------------------------------------------------------------------------

    def is_used(self) -> bool:
        return is_used(self.root)

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        from psync.engine.directory import scan

        return scan.walk(self.layout, self._fs, folder)

    def facts(self, name: str) -> Facts | None:
        from psync.engine.directory import scan

        return scan.facts(self.layout, name)

    def mutexes(self) -> Sequence[str]:
        from psync.engine.directory import scan

        return scan.mutexes(self.layout, self._fs)

    def processes(self) -> Sequence[Process]:
        from psync.engine.directory import scan

        return scan.processes(self.layout, self._fs, self._owners)

    # -- housekeeping --------------------------------------------------------------------------------

    def sweep(self) -> int:
        from psync.engine.directory import scan

        removed, pending = 0, False
        for path in scan.successors(self.layout, self._fs):
            with contextlib.suppress(OSError):
                try:
                    removed += self._fs.sweep_successor(path)
                except BlockingIOError:
                    pending = True
        removed += remove_empty_folders(self.layout.root, OWN)
        return removed + self._sweep(linked=not pending)

    def _sweep(self, *, linked: bool = False) -> int:
        """Remove what needs no walk through all folders. `linked`: also temporary files that have their own name as
        well: while a replacement is under way, that second link tells others to check the name (see `nfs_replace`)."""
        removed = self._owners.sweep()
        for note, buckets in self._handles.transactions.abandoned():
            for name in buckets:
                self.bucket(name).tail()  # which writes the commit bytes that are missing
            removed += remove_quietly(note)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.layout.tmp):
                if not is_leftover(name):  # which its client removes when it is closed
                    removed += _remove_abandoned(f"{self.layout.tmp}/{name}", linked or not self.can.network)
        return removed

    def close(self) -> None:
        self._directory.close()


def check_level(durability: str) -> None:
    """Raises ValueError."""
    if durability not in ("process", "file", "power"):
        raise ValueError(f"durability must be 'process', 'file' or 'power', not {durability!r}")


def layout_of(
    root: str | os.PathLike[str], trust_group: bool, umask: int = PRIVATE_UMASK, *, unpickles: bool
) -> Layout:
    absolute = os.path.abspath(os.path.expanduser(os.fspath(root)))
    return Layout(
        absolute,
        Permissions(absolute, team=trust_group, own=OWN_FOLDERS, umask=umask, unpickles=unpickles, advise=advise),
    )


def files_of(layout: Layout, can: Capabilities, durability: Durability, *, reading: bool = False) -> AtomicFiles:
    kind: type[AtomicFiles] = AtomicFiles
    if can.network:
        from psync.engine.directory.fs.nfs_files import NfsFiles

        kind = NfsFiles
    return kind(layout, can, sync_file=durability != "process", sync_name=durability == "power", reading=reading)


def cells_of(can: Capabilities, fs: AtomicFiles) -> Cells:
    if fs.local:
        return Cells(can, fs)
    from psync.engine.directory.cells.nfs import NetworkCells
    from psync.engine.directory.fs.nfs_files import NfsFiles

    assert isinstance(fs, NfsFiles)
    return NetworkCells(can, fs)


def _reopen(
    root: str,
    durability: Durability,
    wakeups: Wakeups,
    trust_group: bool,
    sharing: Sharing,
    umask: int,
    unpickles: bool,
    format: Format | None,
) -> DirectoryEngine:
    engine = DirectoryEngine(
        root,
        durability=durability,
        wakeups=wakeups,
        trust_group=trust_group,
        sharing=sharing,
        umask=umask,
        unpickles=unpickles,
    )
    engine.format = format
    return engine


def _remove_abandoned(path: str, linked: bool) -> int:
    """Remove a temporary file unless its writer lives, and so holds its lock. One with a second link goes only if
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
