"""Make, replace and remove files on a network file system: each name is asked of the server, and each lock may be lost.

What was at a name is emptied once it is replaced or removed (`invalidate_replaced`), and a file is replaced in four
steps (`Replacements`), so that a kill between any two requests loses nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager

from psync.engine.directory.fs.atomic import AtomicFiles, read_only
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.nfs_lookup import Lookups, NfsContext, invalidate_replaced, status_now
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
        self.shared: NfsContext = NfsContext(Lookups(layout.root, coarse=can.kind == "nfs"), can.direct)
        self.lookups = self.shared.lookups
        self.replacements = Replacements(self.shared, layout.trust.access)

    def make(self, path: str, data: bytes | Parts, *, replaced: bool = False) -> bool:
        if self.reading:
            raise read_only(path)
        if not self.trust.private:
            self.trust.check_folder(path[: path.rindex("/")])
        new = self.temporary(data, sync=True)
        made = self.replacements.make(path, new) if replaced else new.link(path)
        if made and self.sync_name:
            try:
                self.secure(path)
            except BaseException:
                os.unlink(path)  # a name that a power cut may remove was not made: the verb raises
                raise
        return made

    def replace(self, path: str, old: int, data: bytes | Parts, *, durable: bool = False) -> Temporary:
        new = self.replacements.replace(path, old, data)
        self.renamed(path)
        return new

    def remove(self, path: str, fd: int) -> bool:
        alone = self.check_lock(fd)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # only who has the lock removes it: it was this call, and the reply to the first request was lost
        return alone

    def temporary(self, data: bytes | Parts, *, sync: bool) -> Temporary:
        if self.reading:
            raise read_only(self._tmp)
        return NfsTemporary(self._tmp, data, self.shared, sync=sync, access=self.trust.access)

    def attach(self, path: str, flags: int) -> tuple[int, os.stat_result] | None:
        if self.reading and flags & os.O_RDWR:
            raise read_only(path)
        return self.replacements.attach(path, flags | self.direct)

    def open(self, path: str, flags: int) -> int:
        if self.reading and flags & os.O_RDWR:
            raise read_only(path)
        return self.lookups.open(path, flags | self.direct, sure=False)

    def scan(self, folder: str) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
        return self.lookups.scan(folder)

    def listing(self, folder: str) -> list[str]:
        return self.lookups.listing(folder)

    def finish_replacement(self, path: str) -> bool:
        return self.replacements.finish(path)

    def sweep_successor(self, successor: str) -> bool:
        return self.replacements.sweep(successor)

    def is_live(self, path: str, fd: int) -> os.stat_result | None:
        return self.lookups.is_live(path, fd)

    def size(self, fd: int) -> int:
        return status_now(fd).st_size

    def check_lock(self, fd: int) -> bool:
        os.pread(fd, 1, 0)  # fails on version 4 if this host was cut off for longer than the server's lease
        return os.fstat(fd).st_nlink <= 1  # under another name (a snapshot of somebody's) the file stays what it is

    def invalidate_replaced(self, fd: int) -> None:
        invalidate_replaced(fd)
