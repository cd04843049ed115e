"""The directory engine: the contract's verbs on files, with the strategies that the file system allows."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, TypeVar

from psync.engine import boot, clock, forks, leaving
from psync.engine.contract import Alive, Cell, Durability, Engine, Log, Mutex, Register, Update, Version, Watch
from psync.engine.directory import walking
from psync.engine.directory.buckets import DirectoryBucket
from psync.engine.directory.cells import Cells
from psync.engine.directory.far import Sign
from psync.engine.directory.files import (
    CHANGE,
    blocked,
    let_go,
    lock,
    make_folder,
    open_made,
    refused,
    remove_empty,
    remove_quietly,
)
from psync.engine.directory.kept import Kept
from psync.engine.directory.logs import DirectoryLog
from psync.engine.directory.mutex import DirectoryMutex
from psync.engine.directory.names import OWN, OWN_FOLDERS, Layout, is_leftover, is_used, slot_of
from psync.engine.directory.network_cells import NetworkCells
from psync.engine.directory.network_log import NetworkLog
from psync.engine.directory.network_register import NetworkRegister
from psync.engine.directory.owners import Owners
from psync.engine.directory.probe import Abilities, look
from psync.engine.directory.register import DirectoryRegister
from psync.engine.directory.together import Together
from psync.engine.directory.trust import Trust
from psync.engine.directory.wake import GRACE, Wake
from psync.engine.directory.whole import Whole
from psync.engine.format import Format
from psync.engine.looks import Facts, Process, Shape
from psync.engine.seal import Unreadable
from psync.errors import CorruptValue, StoreFailed

Wakeups = Literal["auto", "inotify", "poll"]
Sharing = Literal["auto", "host", "network"]
OpenedWith = tuple[str, Durability, Wakeups, bool, Sharing, Format | None]
KEPT = 280
"""Buckets, logs, registers and mutexes whose descriptors are kept open, at most. A category has 256 buckets."""
SPIN = 0.0003
"""Seconds: about what two processes need to wake each other."""
_NOTHING = b"\x80\x05N."  # a pickled None: what rests in a directory can be read by every pickle reader
A = TypeVar("A")
T = TypeVar("T")


class DirectoryEngine(Engine):
    """Bytes under names, in files below `root` (created with mode 0700 if it is not there).

    `durability`: see the contract. `wakeups`: how waiting ends; "auto" takes inotify where it sees every
    change (a local file system) and polls with a growing pause elsewhere. `trust_group`: who is in the group of
    `root`, a folder with the setgid bit, is trusted, and gets access to all that is made (see `trust`). `sharing`: who
    else works in the directory; "host": only processes of this host, "network": those of others, too, by a network file
    system; "auto" goes by the type of file system.

    Raises `UnsafeStore` if somebody who is not trusted could write to `root`, or put another directory in its place;
    `StoreFailed` if it can't be opened, `ValueError` for an option that does not exist.
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
        self.layout = Layout(self.root, Trust(self.root, team=trust_group, own=OWN_FOLDERS))
        try:
            if not self.layout.trust.look():
                make_folder(self.root, self.layout.trust.access)
                self.layout.trust.look()
            self.can = look(self.layout, network=None if sharing == "auto" else sharing == "network")
        except OSError as error:
            raise refused(error, str(root), self.root) from error
        self.layout.trust.unnamed = self.can.unnamed
        if self.can.network:
            self.spin, self.remote = 0.0, True
        self._set_level(durability)
        self._owners = Owners(self.layout, self._whole)
        inotify = wakeups == "inotify" or (wakeups == "auto" and not self.can.network)
        self._wake = Wake(self.layout, self._whole, announce=inotify or not self.can.network, inotify=inotify)
        self._kept = Kept(KEPT)
        self._mutexes: dict[str, DirectoryMutex] = {}
        self._farewells = leaving.Farewells()
        self._first: DirectoryEngine | None = None
        self._others: weakref.WeakValueDictionary[Durability, DirectoryEngine] = weakref.WeakValueDictionary()
        """The engines at other levels: they keep this one, their `_first`, and use all of it that has no level."""
        forks.remember(self)
        with contextlib.suppress(OSError):  # somebody else's litter keeps nobody from working
            if self.can.writable and (os.listdir(self.layout.tmp) or os.path.exists(self.layout.pending)):
                self.sweep()

    def _set_level(self, durability: Durability) -> None:
        """What of an engine has a level, and its handles."""
        self.durability = durability
        self._whole = Whole(self.layout, self.can, sync_file=durability != "process", sync_name=durability == "power")
        self._cells = cells_of(self.can, self._whole)
        self._together = Together(self.layout, self._whole)
        self._buckets: dict[str, DirectoryBucket] = {}
        self._logs: dict[str, DirectoryLog] = {}
        self._registers: dict[str, DirectoryRegister] = {}
        self._lock = threading.Lock()

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
                forks.remember(other)
        return other

    def __repr__(self) -> str:
        return f"DirectoryEngine({self.root!r})"

    def __reduce__(self) -> tuple[Callable[..., DirectoryEngine], OpenedWith]:
        return _reopen, self.opened_with

    @property
    def opened_with(self) -> OpenedWith:
        """The root and the options: engines for which this is the same can stand for each other."""
        return self.root, self.durability, self.wakeups, self.trust_group, self.sharing, self.format

    # -- cells ---------------------------------------------------------------------------------------

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        path = self.layout.prefix + name
        try:
            return self._cells.read(path, known)
        except OSError as error:
            raise refused(error, name, path) from error
        except Unreadable as error:
            raise self._damaged(name, str(error)) from error

    def write(self, name: str, payload: bytes) -> None:
        path = self.layout.prefix + name
        try:
            self._cells.write(path, payload)
        except OSError as error:
            if not remove_empty(path):
                raise refused(error, name, path) from error
            self.write(name, payload)
        else:
            self._wake.notify(name)

    def create(self, name: str, payload: bytes) -> bool:
        path = self.layout.prefix + name
        try:
            made = self._cells.create(path, payload)
        except OSError as error:
            if not remove_empty(path):
                raise refused(error, name, path) from error
            return self.create(name, payload)
        if made:
            self._wake.notify(name)
        return made

    def delete(self, name: str) -> bool:
        return self._change(name, self._cells.delete)

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        with _CallersOwn() as own:
            return self._change(name, lambda path: self._cells.pop(path, own.guard(before or _nothing)))

    def move(self, name: str, new: str) -> bool:
        try:
            moved = self._change(name, lambda path: self._cells.move(path, self.layout.path(new)))
        except StoreFailed as error:
            if error.errno != errno.EEXIST:
                raise
            if not os.path.isdir(self.layout.path(new)):
                return False
            if not remove_empty(self.layout.path(new)):
                raise blocked(new, self.layout.path(new)) from error
            return self.move(name, new)
        if moved:
            self._wake.notify(new)
        return moved

    def update(self, name: str, function: Update) -> bytes | None:
        with _CallersOwn() as own:
            return self._change(name, lambda path: self._cells.update(path, own.guard(function)))

    def _change(self, name: str, verb: Callable[[str], T]) -> T:
        """A verb on a path, with its errors in psync's words, and a wake-up for who waits for the name."""
        path = self.layout.prefix + name
        try:
            result = verb(path)
        except OSError as error:
            if not isinstance(error, IsADirectoryError) or not remove_empty(path):
                raise refused(error, name, path) from error
            return self._change(name, verb)
        except Unreadable as error:
            raise self._damaged(name, str(error)) from error
        self._wake.notify(name)
        return result

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        names: list[str] = []
        folders: list[str] = []
        path = self.layout.prefix + folder if folder else self.root
        try:
            with self._whole.scan(path) as found:
                for entry in found:
                    if entry.is_file(follow_symlinks=False):
                        name = entry.name
                        if name[0] != "." or not is_leftover(name):
                            names.append(name)
                    elif entry.is_dir(follow_symlinks=False) and (folder or entry.name != OWN):
                        folders.append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except OSError as error:
            raise refused(error, folder, path) from error
        return names, folders

    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        waiting = [folder, OWN] if hidden and not folder else [folder]
        while waiting:
            folder = waiting.pop()
            names, folders = self.entries(folder)
            if folder:
                for name in names:
                    yield f"{folder}/{name}"
                waiting.extend([f"{folder}/{name}" for name in folders])
            else:
                yield from names
                waiting.extend(folders)

    # -- the other shapes ----------------------------------------------------------------------------

    def bucket(self, name: str) -> DirectoryBucket:
        kept = self._buckets.get(name)
        if kept is None:
            slot = slot_of(name)
            kept = DirectoryBucket(
                name,
                self.layout,
                self._whole,
                changed=lambda: self._wake.notify_slot(slot),
                damaged=self._damaged,
                together=self._together,
                kept=self._kept,
            )
            kept = self._buckets.setdefault(name, kept)
        return kept

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        buckets = {name: self.bucket(name) for name in ops}
        for name, bucket in buckets.items():
            tail = bucket.tail()
            if tail is not None and tail.foreign:
                raise ValueError(f"{name!r} is a foreign pickle, which can't be extended: replace it")
        try:
            self._together.append_all(buckets, ops)
        except OSError as error:
            first, *others = sorted(ops)
            named = f"{first} and {len(others)} more" if others else first
            raise refused(error, named, self.layout.path(first)) from error

    def log(self, name: str) -> Log:
        with self._lock:
            log = self._logs.get(name)
            if log is None:
                slot, final = slot_of(name), slot_of(name + "/final")
                kind = NetworkLog if self.can.network else DirectoryLog
                log = self._logs[name] = kind(
                    name,
                    self.layout,
                    whole=self._whole,
                    owners=self._owners,
                    changed=functools.partial(self._wake.notify_slot, slot),
                    finished=functools.partial(self._wake.notify_slot, final),
                    kept=self._kept,
                )
            return log

    def register(self, name: str) -> Register:
        with self._lock:
            register = self._registers.get(name)
            if register is None:
                slot = slot_of(name)
                kind = NetworkRegister if self.can.network else DirectoryRegister
                register = self._registers[name] = kind(
                    name,
                    self.layout.path(name),
                    self._whole,
                    changed=lambda: self._wake.notify_slot(slot),
                    kept=self._kept,
                    mends=self.can.writable,
                )
            return register

    def mutex(self, name: str) -> Mutex:
        if self._first is not None:
            return self._first.mutex(name)
        watched = ".psync/locks/" + name
        with self._lock:
            mutex = self._mutexes.get(name)
            if mutex is None:
                slot = slot_of(watched)
                mutex = self._mutexes[name] = DirectoryMutex(
                    self.layout.lock(name),
                    whole=self._whole,
                    me=self.owner,
                    alive=self.alive,
                    watch=lambda: self.watch([watched]),
                    changed=lambda: self._wake.notify_slot(slot),
                    kept=self._kept,
                )
            return mutex

    @contextlib.contextmanager
    def guard(self, name: str) -> Iterator[None]:
        import filelock  # 50 ms to import: only who compacts pays for it

        path = self.layout.guard(name)
        try:
            fd = open_made(path, self.layout.trust.access)
            try:
                filelock.lock_descriptor(fd, poll_interval=0.05 if self.can.network else 0.005)
                lock(fd)  # which it has; from here on it counts as held
                if not os.fstat(fd).st_size:
                    os.pwrite(fd, _NOTHING, 0)
            except BaseException:
                let_go(fd)
                raise
        except OSError as error:
            raise refused(error, name, path) from error
        try:
            yield
        finally:
            let_go(fd)

    # -- waiting, time, owners -----------------------------------------------------------------------

    def watch(self, names: Sequence[str]) -> AbstractContextManager[Watch]:
        return self._wake.watch(names, self._signs)

    def _signs(self, name: str) -> Iterator[Sign]:
        """By which a change of `name` shows on a network file system; none if it does not. What is only announced shows
        in the log or the register whose name it begins with, and what belongs to a log in what stands below its name.
        """
        shared = self._whole.shared
        if shared is None:
            return
        with self._lock:
            logs, registers = dict(self._logs), dict(self._registers)
        owner, part = (name, "") if name in logs or name in registers else name.rpartition("/")[::2]
        if name in self._buckets or not name.startswith(f"{OWN}/"):
            path = self.layout.path(name)
            yield Sign(name, lambda asked: shared.lookups.status(path, asked), exact=False)
            return
        if owner not in logs and owner not in registers:
            return
        for each, register in registers.items():
            if f"{each}/".startswith(f"{owner}/"):
                yield Sign(each, functools.partial(_read, register))
        for each, log in logs.items():
            if isinstance(log, NetworkLog) and f"{each}/".startswith(f"{owner}/"):
                yield from log.signs(final=part == "final")

    def announce(self, name: str) -> None:
        self._wake.notify(name)

    def give_way(self) -> None:
        os.sched_yield()

    now = staticmethod(clock.monotonic)

    def due(self, seconds: float) -> int:
        return boot.due(seconds)

    def until(self, due: int) -> float | None:
        return boot.until(due)

    def owner(self) -> int:
        if number := self._owners.number:
            return number
        try:
            number = self._owners.mine()
        except OSError as error:
            raise refused(error, "this process", self.layout.owners) from error
        leaving.remember(self._first or self)
        return number

    def at_leaving(self, farewell: Callable[[], object]) -> None:
        self._farewells.add(farewell)

    def alive(self, owner: int) -> Alive:
        try:
            return self._owners.alive(owner)
        except OSError as error:
            raise refused(error, "an owner", self.layout.owner(owner)) from error

    def describe(self, owner: int) -> str:
        return self._owners.describe(owner)

    # -- looking at the whole ------------------------------------------------------------------------

    def is_used(self) -> bool:
        return is_used(self.root)

    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        return walking.walk(self.layout, self._whole, folder)

    def facts(self, name: str) -> Facts | None:
        return walking.facts(self.layout, name)

    def mutexes(self) -> Sequence[str]:
        return walking.mutexes(self.layout, self._whole)

    def processes(self) -> Sequence[Process]:
        return walking.processes(self.layout, self._whole, self._owners)

    # -- housekeeping --------------------------------------------------------------------------------

    def _damaged(self, name: str, reason: str) -> CorruptValue:
        path = self.layout.path(name)
        refuge = self.set_aside(name, reason)
        kept = f"its bytes are kept at {refuge}" if refuge else f"it is still at {path}"
        return CorruptValue(
            f"the value of {name!r} is damaged ({reason}); {kept}. "
            "Set the key again, or restore the file from a backup",
            key=name,
            path=path,
            quarantine=refuge,
            reason=reason,
        )

    def set_aside(self, name: str, reason: str, seen: Version | None = None) -> str | None:
        refuge = self.layout.refuge(name, clock.wall_ns())
        try:
            if not self._cells.set_aside(self.layout.path(name), refuge, seen):
                return None
            self._whole.say_why(refuge, name, reason)
        except OSError:
            return None  # nowhere to put it: it stays where it is
        self._wake.notify(name)
        return refuge

    def keep(self, name: str, data: bytes, reason: str) -> str | None:
        return self._whole.keep(name, data, reason)

    def sweep(self) -> int:
        removed = self._owners.sweep()
        for note, buckets in self._together.abandoned():
            for name in buckets:
                self.bucket(name).tail()  # which makes up for what is missing
            removed += remove_quietly(note)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.layout.tmp):
                if not is_leftover(name):  # which goes as soon as nobody has it open any more
                    removed += _remove_abandoned(f"{self.layout.tmp}/{name}")
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
        handles: tuple[forks.Forked, ...] = (
            *self._buckets.values(),
            *self._logs.values(),
            *self._registers.values(),
            *self._mutexes.values(),
            self._owners,
        )
        for each in handles:
            each.after_fork()


def check_level(durability: str) -> None:
    """Raises ValueError."""
    if durability not in ("process", "file", "power"):
        raise ValueError(f"durability must be 'process', 'file' or 'power', not {durability!r}")


def cells_of(can: Abilities, whole: Whole) -> Cells:
    return Cells(can, whole) if whole.shared is None else NetworkCells(can, whole, whole.shared)


class _CallersOwn:
    """Tells an OSError that the caller's function raised from one of the file system."""

    def __enter__(self) -> _CallersOwn:
        self._raised: BaseException | None = None
        return self

    def guard(self, function: Callable[[A], T]) -> Callable[[A], T]:
        def guarded(argument: A) -> T:
            try:
                return function(argument)
            except BaseException as error:
                self._raised = error
                raise

        return guarded

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if self._raised is not None and error is not None and error.__cause__ is self._raised:
            raise self._raised from None


def _read(register: Register, asked: dict[str, bool]) -> bytes | None:
    return register.read()


def _nothing(cell: Cell) -> None:
    """What `pop` asks for when nobody wants to look first."""


def _reopen(
    root: str, durability: Durability, wakeups: Wakeups, trust_group: bool, sharing: Sharing, format: Format | None
) -> DirectoryEngine:
    engine = DirectoryEngine(root, durability=durability, wakeups=wakeups, trust_group=trust_group, sharing=sharing)
    engine.format = format
    return engine


def _remove_abandoned(path: str) -> int:
    """Remove a temporary file unless its writer lives, which keeps it locked."""
    try:
        fd = os.open(path, CHANGE)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return 1
    except OSError:
        return 0
    finally:
        let_go(fd)
