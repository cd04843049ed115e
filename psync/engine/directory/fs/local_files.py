"""Make, replace and remove files where this host's kernel sees all changes: a lock and a link count tell everything."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from psync.engine.directory.fs.atomic import AtomicFiles, read_only
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.syscalls import close, link_unnamed
from psync.engine.directory.layout import Layout
from psync.engine.encoding.framing import Parts

if TYPE_CHECKING:
    from psync.engine.directory.fs.temporary import Temporary


class LocalFiles(AtomicFiles):
    local = True

    def __init__(
        self, layout: Layout, can: Capabilities, *, sync_file: bool, sync_name: bool, reading: bool = False
    ) -> None:
        super().__init__(layout, can, sync_file=sync_file, sync_name=sync_name, reading=reading)
        self._unnamed = can.unnamed

    @functools.cached_property
    def _temporary_kind(self) -> type[Temporary]:
        """Imported for the first file that needs a temporary name: mostly none does."""
        from psync.engine.directory.fs.temporary import Temporary

        return Temporary

    def make(self, path: str, data: bytes | Parts, *, replaced: bool = False) -> bool:
        trust = self.trust
        if self.reading:
            raise read_only(path)
        if not trust.private:
            trust.check_folder(path[: path.rindex("/")])
        if self._unnamed:
            made = link_unnamed(path, data, sync=self.sync_file, access=trust.access)
        else:
            made = self.temporary(data, sync=self.sync_file).link(path)
        if made and self.sync_name:
            try:
                self.secure(path)
            except BaseException:
                os.unlink(path)  # a name that a power cut may remove was not made: the verb raises
                raise
        return made

    def replace(self, path: str, old: int, data: bytes | Parts, *, durable: bool = False) -> Temporary:
        new = self.temporary(data, sync=durable or self.sync_file)
        try:
            # decides: readers get the new file, and a waiter for the old one's lock finds it dead
            new.rename(path)
            if self.sync_name:
                try:
                    self.secure(path)
                except BaseException:
                    self.bring_back(path, old)
                    raise
        except BaseException:
            new.discard()
            raise
        return new

    def remove(self, path: str, fd: int) -> bool:
        os.unlink(path)
        return False

    def temporary(self, data: bytes | Parts, *, sync: bool) -> Temporary:
        if self.reading:
            raise read_only(self._tmp)
        return self._temporary_kind(self._tmp, data, sync=sync, access=self.trust.access)

    def attach(self, path: str, flags: int) -> tuple[int, os.stat_result] | None:
        if self.reading and flags & os.O_RDWR:
            raise read_only(path)
        while True:
            try:
                fd = os.open(path, flags)
            except FileNotFoundError:
                return None
            status = os.fstat(fd)
            if status.st_nlink:
                return fd, status
            close(fd)  # it was removed or replaced between the two calls: the name leads elsewhere now

    def open(self, path: str, flags: int) -> int:
        if self.reading and flags & os.O_RDWR:
            raise read_only(path)
        return os.open(path, flags)

    def scan(self, folder: str) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
        return os.scandir(folder)

    def listing(self, folder: str) -> list[str]:
        return os.listdir(folder)

    def finish_replacement(self, path: str) -> bool:
        return False  # one rename replaces a file here: no replacement is ever half done

    def sweep_successor(self, successor: str) -> bool:
        """Other hosts may have worked here before, when the directory was on a network file system."""
        from psync.engine.directory.fs.nfs_lookup import Lookups, NfsContext
        from psync.engine.directory.fs.nfs_replace import Replacements

        context = NfsContext(Lookups(self._root, coarse=False), direct=0)
        return Replacements(context, self.trust.access).sweep(successor)

    def is_live(self, path: str, fd: int) -> os.stat_result | None:
        status = os.fstat(fd)
        return status if status.st_nlink else None

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def check_lock(self, fd: int) -> bool:
        return False  # this kernel takes no lock away, and the link count says that the name is gone

    def invalidate_replaced(self, fd: int) -> None:
        """The link count says it."""
