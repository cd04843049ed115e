"""The handles of the shapes that are kept open (buckets, logs, registers, mutexes): each is made once in an engine."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from psync.engine.directory.cells.verbs import CellEngine
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.fs.syscalls import let_go, lock, open_made
from psync.engine.directory.layout import slot_of
from psync.engine.directory.liveness.registry import Owners

if TYPE_CHECKING:
    from psync.engine.contract.engine import Mutex
    from psync.engine.contract.log import Log
    from psync.engine.contract.register import Register
    from psync.engine.directory.buckets.bucket import DirectoryBucket
    from psync.engine.directory.buckets.transaction import MultiAppend
    from psync.engine.directory.locks.mutex import DirectoryMutex
    from psync.engine.directory.log.log import DirectoryLog
    from psync.engine.directory.registers.register import DirectoryRegister
    from psync.engine.system import fork_hooks

_NOTHING = b"\x80\x05N."  # a pickled None: what rests in a directory can be read by every pickle reader


class ShapeEngine(CellEngine):
    """What an engine hands out."""

    can: Capabilities
    _together: MultiAppend
    _owners: Owners
    _kept: DescriptorCache
    _first: ShapeEngine | None
    """The engine of the same directory that has all that has no level."""
    _mutexes: dict[str, DirectoryMutex]

    def _without_handles(self) -> None:
        """None was handed out so far."""
        self._buckets: dict[str, DirectoryBucket] = {}
        self._logs: dict[str, DirectoryLog] = {}
        self._registers: dict[str, DirectoryRegister] = {}
        self._lock = threading.Lock()

    def bucket(self, name: str) -> DirectoryBucket:
        kept = self._buckets.get(name)
        if kept is None:
            from psync.engine.directory.buckets.bucket import DirectoryBucket

            slot = slot_of(name)
            kept = DirectoryBucket(
                name,
                self.layout,
                self._fs,
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
            raise translate_os_error(error, named, self.layout.path(first)) from error

    def log(self, name: str) -> Log:
        with self._lock:
            log = self._logs.get(name)
            if log is None:
                slot, final = slot_of(name), slot_of(name + "/final")
                log = self._logs[name] = _kind_of_log(self.can)(
                    name,
                    self.layout,
                    fs=self._fs,
                    owners=self._owners,
                    changed=functools.partial(self._wake.notify_takers, slot),
                    finished=functools.partial(self._wake.notify_slot, final),
                    kept=self._kept,
                )
            return log

    def register(self, name: str) -> Register:
        with self._lock:
            register = self._registers.get(name)
            if register is None:
                slot = slot_of(name)
                register = self._registers[name] = _kind_of_register(self.can)(
                    name,
                    self.layout.path(name),
                    self._fs,
                    changed=lambda: self._wake.notify_slot(slot),
                    kept=self._kept,
                    mends=self.can.writable,
                    seated=self.can.ordered,
                )
            return register

    def mutex(self, name: str) -> Mutex:
        if self._first is not None:
            return self._first.mutex(name)
        watched = ".psync/locks/" + name
        with self._lock:
            mutex = self._mutexes.get(name)
            if mutex is None:
                from psync.engine.directory.locks.mutex import DirectoryMutex

                slot = slot_of(watched)
                mutex = self._mutexes[name] = DirectoryMutex(
                    self.layout.lock(name),
                    fs=self._fs,
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
            raise translate_os_error(error, name, path) from error
        try:
            yield
        finally:
            let_go(fd)

    def _handles(self) -> tuple[fork_hooks.Forked, ...]:
        """All that were handed out."""
        return (
            *self._buckets.values(),
            *self._logs.values(),
            *self._registers.values(),
            *self._mutexes.values(),
        )


def _kind_of_log(can: Capabilities) -> type[DirectoryLog]:
    """Import a log's class when the first log is made: most stores have none."""
    if can.network:
        from psync.engine.directory.log.nfs_log import NetworkLog

        return NetworkLog
    from psync.engine.directory.log.log import DirectoryLog

    return DirectoryLog


def _kind_of_register(can: Capabilities) -> type[DirectoryRegister]:
    """Import a register's class when the first register is made."""
    if can.network:
        from psync.engine.directory.registers.nfs import NetworkRegister

        return NetworkRegister
    from psync.engine.directory.registers.register import DirectoryRegister

    return DirectoryRegister
