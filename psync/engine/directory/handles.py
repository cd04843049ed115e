"""Hand out the handles that stay open (buckets, logs, registers, mutexes): one a name, shared by all threads.

A handle opens nothing when it is made. So two threads may make one for the same name, and `setdefault`, one C call,
decides which is used: no lock is needed, which a call that interrupts another one would have to wait for.

Buckets, logs and registers have a level of durability, so each engine has a `HandleCache`. Mutexes have none: the
engines of one directory share a `MutexCache`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.errors import loading, translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.layout import OWN, Layout, slot_of
from psync.engine.directory.liveness.registry import OwnerRegistry
from psync.engine.directory.notify.wakeup import Wakeup
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import fork_hooks
from psync.errors import CorruptValue

if TYPE_CHECKING:
    from psync.engine.directory.buckets.bucket import DirectoryBucket
    from psync.engine.directory.buckets.transaction import MultiAppend
    from psync.engine.directory.locks.mutex import DirectoryMutex
    from psync.engine.directory.log.log import DirectoryLog
    from psync.engine.directory.notify.nfs_poll import ChangeToken
    from psync.engine.directory.registers.register import DirectoryRegister


class HandleCache:
    """The buckets, logs and registers of one directory, at one level of durability."""

    def __init__(
        self,
        layout: Layout,
        can: Capabilities,
        fs: AtomicFiles,
        *,
        damaged: Callable[[str, Unreadable], CorruptValue],
        owners: OwnerRegistry,
        wake: Wakeup,
        descriptors: DescriptorCache,
    ) -> None:
        self._layout = layout
        self._can = can
        self._fs = fs
        self._damaged = damaged
        self._owners = owners
        self._wake = wake
        self._descriptors = descriptors
        # A handle lasts as long as somebody refers to it: a user of its name, or the descriptor cache for a while.
        self._buckets: WeakValueDictionary[str, DirectoryBucket] = WeakValueDictionary()
        self._logs: WeakValueDictionary[str, DirectoryLog] = WeakValueDictionary()
        self._registers: WeakValueDictionary[str, DirectoryRegister] = WeakValueDictionary()
        self._transactions: MultiAppend | None = None
        fork_hooks.remember(self)

    @property
    def transactions(self) -> MultiAppend:
        # Not a functools.cached_property: Python 3.11 guards it by a lock of the class. A child that is forked while
        # another thread holds that lock would wait for it for ever.
        if self._transactions is None:
            from psync.engine.directory.buckets.transaction import MultiAppend

            self._transactions = MultiAppend(self._layout, self._fs)  # it has no state: two threads may make two
        return self._transactions

    def bucket(self, name: str) -> DirectoryBucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            with loading(name, self._layout.path(name)):
                from psync.engine.directory.buckets.bucket import DirectoryBucket

            bucket = DirectoryBucket(
                name,
                self._layout,
                self._fs,
                changed=functools.partial(self._wake.notify_slot, slot_of(name)),
                damaged=self._damaged,
                commit_byte_for=self.transactions.commit_byte_for,
                descriptors=self._descriptors,
            )
            bucket = self._buckets.setdefault(name, bucket)
        return bucket

    def append_all(self, ops: Mapping[str, bytes]) -> None:
        buckets = {name: self.bucket(name) for name in ops}
        for name, bucket in buckets.items():
            tail = bucket.tail()
            if tail is not None and tail.foreign:
                from psync.engine.contract.bucket import ForeignBucket

                raise ForeignBucket(name)
        try:
            self.transactions.append_all(buckets, ops)
        except OSError as error:
            first, *others = sorted(ops)
            named = f"{first} and {len(others)} more" if others else first
            raise translate_os_error(error, named, self._layout.path(first)) from error

    def log(self, name: str) -> DirectoryLog:
        log = self._logs.get(name)
        if log is None:
            with loading(name, self._layout.path(name)):
                from psync.engine.directory.log.log import DirectoryLog
                from psync.engine.directory.log.state import WRITABLE

            kinds = WRITABLE
            if self._fs.reading or self._can.refused:
                with loading(name, self._layout.path(name)):
                    from psync.engine.directory.log.reading import READING as kinds
            log = DirectoryLog(
                name,
                self._layout,
                fs=self._fs,
                owners=self._owners,
                changed=functools.partial(self._wake.notify_claimers, slot_of(name)),
                finished=functools.partial(self._wake.notify_slot, slot_of(name + "/final")),
                kept=self._descriptors,
                kinds=kinds,
            )
            log = self._logs.setdefault(name, log)  # another thread, or a signal's handler, may have made one
        return log

    def register(self, name: str) -> DirectoryRegister:
        register = self._registers.get(name)
        if register is None:
            register = _register_kind(self._can, name, self._layout)(
                name,
                self._layout.path(name),
                self._fs,
                wake=self._wake,
                descriptors=self._descriptors,
                repairs=self._can.writable,
                with_slots=self._can.ordered,
            )
            register = self._registers.setdefault(name, register)
        return register

    def change_tokens(self, name: str) -> Iterator[ChangeToken]:
        """Tokens that differ once `name` has changed, for polling a network file system; none if no token shows it.

        A name that is only announced belongs to the log or the register whose name it begins with. A log's change may
        also show in the registers and logs below its name.
        """
        lookups = self._fs.lookups
        if lookups is None:
            return
        from psync.engine.directory.notify.nfs_poll import ChangeToken

        if name in self._buckets or not name.startswith(f"{OWN}/"):
            path = self._layout.path(name)
            yield ChangeToken(name, lambda asked: lookups.status(path, asked), exact=False)
            return
        known = name in self._logs or name in self._registers
        owner, part = (name, "") if known else name.rpartition("/")[::2]
        if (register := self._registers.get(owner)) is not None:
            yield ChangeToken(owner, functools.partial(_register_token, register))
        if owner in self._logs:
            # copied by one call each, because other threads open more
            logs, registers = list(self._logs.items()), list(self._registers.items())
            for each, below in registers:
                if each.startswith(f"{owner}/"):
                    yield ChangeToken(each, functools.partial(_register_token, below))
            for each, log in logs:
                if f"{each}/".startswith(f"{owner}/"):
                    yield from log.change_tokens(final=part == "final")

    def after_fork(self) -> None:
        """In a child: no handle of the parent's may be used with its descriptors and locks."""
        handles: tuple[fork_hooks.Forked, ...] = (
            *self._buckets.values(),
            *self._logs.values(),
            *self._registers.values(),
        )
        for handle in handles:
            handle.after_fork()


def _register_kind(can: Capabilities, name: str, layout: Layout) -> type[DirectoryRegister]:
    with loading(name, layout.path(name)):
        if can.network:
            from psync.engine.directory.registers.nfs import NetworkRegister

            return NetworkRegister
        from psync.engine.directory.registers.register import DirectoryRegister

        return DirectoryRegister


def _register_token(register: DirectoryRegister, asked: dict[str, bool]) -> Hashable:
    from psync.engine.directory.registers.nfs import NetworkRegister

    assert isinstance(register, NetworkRegister)
    return register.change_token()


class MutexCache:
    """The mutexes of one directory, which have no level of durability."""

    def __init__(
        self, layout: Layout, fs: AtomicFiles, owners: OwnerRegistry, wake: Wakeup, descriptors: DescriptorCache
    ) -> None:
        self._layout = layout
        self._fs = fs
        self._owners = owners
        self._wake = wake
        self._descriptors = descriptors
        self._mutexes: WeakValueDictionary[str, DirectoryMutex] = WeakValueDictionary()
        self._held: dict[str, DirectoryMutex] | None = {}
        """Those to which nobody refers any more though they are held, as only the end of this process, or of this
        object, releases them. None once that has come."""
        fork_hooks.remember(self)

    def mutex(self, name: str) -> DirectoryMutex:
        watched = f"{OWN}/locks/{name}"
        mutex = self._mutexes.get(name) or (self._held or {}).get(name)
        if mutex is None:
            with loading(name, self._layout.locks):
                from psync.engine.directory.locks.mutex import DirectoryMutex

            mutex = DirectoryMutex(
                self._layout.lock(name),
                fs=self._fs,
                owners=self._owners,
                wake=self._wake,
                watched=watched,
                descriptors=self._descriptors,
                abandoned=functools.partial(self._keep, name),
            )
            mutex = self._mutexes.setdefault(name, mutex)
        return mutex

    def _keep(self, name: str, mutex: DirectoryMutex) -> bool:
        """Keep a mutex that is held though nobody refers to it; for good, as Python finalizes no object twice."""
        if self._held is None:
            return False
        self._held[name] = mutex
        return True

    def __del__(self) -> None:
        held, self._held = self._held, None
        with contextlib.suppress(Exception):  # the interpreter is going down
            for mutex in (held or {}).values():
                mutex.close()

    def after_fork(self) -> None:
        for mutex in {*self._mutexes.values(), *(self._held or {}).values()}:
            mutex.after_fork()
        self._held = {}
