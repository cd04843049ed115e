"""Files that appear whole: under a new name, or in another's place; and how durable they are then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.syscalls import Shared, Temporary, close, link_unnamed, read_all, sync_folder
from psync.engine.directory.layout import Layout
from psync.engine.encoding.framing import Parts
from psync.engine.system import clock

if TYPE_CHECKING:
    from psync.engine.directory.fs.nfs_replace import Replacements


class AtomicFiles:
    """How this directory makes files: `sync_file` before they become visible, `sync_name` (the folder) after."""

    def __init__(self, layout: Layout, can: Capabilities, *, sync_file: bool, sync_name: bool) -> None:
        self._tmp = layout.tmp
        self._root = layout.root
        self.trust = layout.trust
        self._layout = layout
        self._unnamed = can.unnamed
        self.shared: Shared | None = None
        """None where this host's kernel knows of all changes."""
        self.replacements: Replacements | None = None
        if can.network:
            from psync.engine.directory.fs.nfs_lookup import Lookups
            from psync.engine.directory.fs.nfs_replace import Replacements

            self.shared = Shared(Lookups(layout.root, coarse=can.kind == "nfs"), can.direct)
            self.replacements = Replacements(self.shared, layout.trust.access)
        self.direct = can.direct
        self.in_place = can.in_place
        self.sync_file = sync_file
        self._ask = sync_file or can.network
        """Whether files are asked for before they appear: else a server could say at their close that it lost them."""
        self.sync_name = sync_name
        self._lasting: set[str] = set()
        """Folders whose own names are known to be on the disk."""

    def make(self, path: str, data: bytes | Parts, *, replaced: bool = False) -> bool:
        """`path` comes into being with `data` in it, unless there is one: True for the one who made it.

        `replaced`: files at this name are replaced now and then (`replace`).
        """
        trust = self.trust
        if not trust.closed:
            trust.check_folder(path[: path.rindex("/")])
        if self._unnamed:
            made = link_unnamed(path, data, sync=self._ask, access=trust.access)
        elif replaced and self.replacements is not None:
            made = self.replacements.make(path, self.temporary(data, sync=self._ask))
        else:
            made = self.temporary(data, sync=self._ask).link(path)
        if made:
            try:
                self.renamed(path)
            except BaseException:
                os.unlink(path)  # a name that may not last was not made
                raise
        return made

    def replace(self, path: str, old: int, data: bytes | Parts, *, durable: bool = False) -> Temporary:
        """`path` is a new file with `data`, still locked: let go of it or keep it. `old` is the file that is there, and
        locked by the caller; it is dead then."""
        if self.replacements is not None:
            new = self.replacements.replace(path, old, data)
            self.renamed(path)
            return new
        new = self.temporary(data, sync=durable or self._ask)
        try:
            if self.sync_name:
                self._put_lastingly(new, path, old)
            else:
                new.rename(path)
        except BaseException:
            new.discard()
            raise
        return new

    def _put_lastingly(self, new: Temporary, path: str, old: int) -> None:
        new.rename(path)
        try:
            self.renamed(path)
        except BaseException:
            self.bring_back(path, old)
            raise

    def bring_back(self, path: str, old: int) -> None:
        """`path` holds what is in the file that is open as `old`: what was done to it failed in the end."""
        with contextlib.suppress(OSError):  # the disk does not even take what it had before
            self.temporary(read_all(old, os.fstat(old).st_size), sync=False).replace(path)

    def keep(self, name: str, data: bytes, reason: str) -> str | None:
        """Damaged bytes that were found at `name` go to quarantine; where they are now. None if that can't be done."""
        refuge = self._layout.refuge(name, clock.wall_ns())
        try:
            self.make(refuge, data)
            self.say_why(refuge, name, reason)
        except OSError:
            return None
        return refuge

    def say_why(self, refuge: str, name: str, reason: str) -> None:
        """Beside what is in quarantine: what it was, and why it is there."""
        text = f"{name}\n{' '.join(reason.split())}\n"
        self.make(f"{refuge}.why", text.encode("utf-8", "backslashreplace"))

    def temporary(self, data: bytes | Parts, *, sync: bool) -> Temporary:
        return Temporary(self._tmp, data, sync=sync, access=self.trust.access, shared=self.shared)

    def size(self, fd: int) -> int:
        """Bytes in an open file now."""
        if self.shared is None:
            return os.fstat(fd).st_size
        from psync.engine.directory.fs.nfs_lookup import status_now

        return status_now(fd).st_size

    def prove(self, fd: int) -> bool:
        """That the file open as `fd`, which is about to lose its name, is still locked: on a network file system the
        lock may have been lost. Whether it should be buried then. Raises OSError."""
        if self.shared is None:
            return False
        os.pread(fd, 1, 0)
        return os.fstat(fd).st_nlink <= 1  # under another name it stays what it is

    def bury(self, fd: int) -> None:
        """`fd` is locked, and at no name any more: let everybody know."""
        from psync.engine.directory.fs.nfs_lookup import bury

        bury(fd)

    def remove(self, path: str, fd: int) -> bool:
        """Remove the file at `path`, which is locked, and open as `fd`. Whether it should be buried then."""
        alone = self.prove(fd)
        try:
            os.unlink(path)
        except FileNotFoundError:
            if self.shared is None:
                raise
            # nobody else removes it: it was this, and the reply to the first request was lost
        return alone

    def scan(self, folder: str) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
        """`os.scandir`, of what is there now."""
        return os.scandir(folder) if self.shared is None else self.shared.lookups.scan(folder)

    def listing(self, folder: str) -> list[str]:
        """`os.listdir`, of what is there now, without what NFS clients keep of removed files."""
        return os.listdir(folder) if self.shared is None else self.shared.lookups.listing(folder)

    def attach(self, path: str, flags: int) -> tuple[int, os.stat_result] | None:
        """What `path` holds now, open, and its status; None if there is nothing."""
        if self.replacements is not None:
            return self.replacements.attach(path, flags | self.direct)
        while True:
            try:
                fd = os.open(path, flags)
            except FileNotFoundError:
                return None
            status = os.fstat(fd)
            if status.st_nlink:
                return fd, status
            close(fd)  # it was removed meanwhile

    def open(self, path: str, flags: int) -> int:
        """`os.open` of what is at `path` now, which is never removed or replaced while anybody may want it."""
        if self.shared is None:
            return os.open(path, flags)
        return self.shared.lookups.open(path, flags | self.direct, sure=False)

    def renamed(self, path: str) -> None:
        """`path` has another file than before, or none: make that durable if that was asked for."""
        if self.sync_name:
            self.secure(path)

    def secure(self, path: str) -> None:
        """Whatever `path` is now, it is after a power cut."""
        folder = os.path.dirname(path)
        sync_folder(folder)
        while folder not in self._lasting and len(folder) > len(self._root):
            above = os.path.dirname(folder)
            sync_folder(above)
            self._lasting.add(folder)
            folder = above
