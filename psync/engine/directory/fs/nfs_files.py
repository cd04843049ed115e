"""Make, replace and remove files on a network file system: each look-up asks the server, and each lock may be lost.

A file is emptied once it was replaced or removed (`invalidate_replaced`). A replacement takes four steps
(`Replacements`), so that a kill between any two requests loses nothing.
"""

from __future__ import annotations

import contextlib
import os

from psync.engine.delegate import Delegate
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.fd_cache import with_room
from psync.engine.directory.fs.nfs_lookup import Lookups, check_lock, invalidate_replaced, status_now
from psync.engine.directory.fs.nfs_replace import Replacements
from psync.engine.directory.fs.nfs_temporary import NfsTemporary
from psync.engine.directory.fs.temporary import Temporary
from psync.engine.directory.layout import Layout
from psync.engine.encoding.framing import Parts


class NfsFiles(AtomicFiles):
    """Each new file is synced before it gets its name: else a server could say at its close that it lost the data."""

    local = False

    def __init__(
        self, layout: Layout, can: Capabilities, *, sync_file: bool, sync_name: bool, reading: bool = False
    ) -> None:
        super().__init__(layout, can, sync_file=sync_file, sync_name=sync_name, reading=reading)
        self.lookups: Lookups = Lookups(layout.root, coarse=can.kind == "nfs", direct=can.direct)
        self.replacements = Replacements(self.lookups, layout.trust.access)
        self._unnamed = False

    scan = Delegate("lookups", Lookups.scan)
    listing = Delegate("lookups", Lookups.listing)
    is_live = Delegate("lookups", Lookups.is_live)
    finish_replacement = Delegate("replacements", Replacements.finish)
    sweep_successor = Delegate("replacements", Replacements.sweep)

    def _link_named(self, path: str, data: bytes | Parts, replaced: bool) -> bool:
        new = self.temporary(data, sync=True)
        return self.replacements.make(path, new) if replaced else new.link(path)

    def replace(self, path: str, old: int, data: bytes | Parts, *, durable: bool = False) -> Temporary:
        new = self.replacements.replace(path, old, data)
        self.renamed(path)
        return new

    def remove(self, path: str, fd: int, *, lasting: bool = False) -> None:
        alone = check_lock(fd)
        # only who has the lock removes it: if it is gone, it was this call, and the reply to the first request was lost
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if lasting:
            self._changed_at(path, fd)
        if alone:
            invalidate_replaced(fd)

    def temporary(self, data: bytes | Parts, *, sync: bool) -> Temporary:
        if self.reading:
            raise self.refusal(self._tmp)
        return NfsTemporary(self._tmp, data, self.lookups, sync=sync, access=self.trust.access)

    def attach(self, path: str, flags: int) -> tuple[int, os.stat_result] | None:
        if self.reading and flags & os.O_RDWR:
            raise self.refusal(path)
        return with_room(lambda: self.replacements.attach(path, flags | self.direct))

    def open(self, path: str, flags: int) -> int:
        if self.reading and flags & os.O_RDWR:
            raise self.refusal(path)
        return self.lookups.open(path, flags | self.direct, sure=False)

    def size(self, fd: int) -> int:
        return status_now(fd).st_size
