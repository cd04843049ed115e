"""Make, replace and remove whole files: one link, rename or unlink decides.

`AtomicFiles` does it where this host's kernel sees all changes: a lock and a link count tell everything. `NfsFiles`
does it where other hosts make changes too. `files_of` chooses one of them for a directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.fd_cache import make_room, with_room
from psync.engine.directory.fs.syscalls import close, link_unnamed, read_all, sync_folder
from psync.engine.directory.layout import Layout
from psync.engine.encoding.framing import Parts
from psync.engine.system import clock

if TYPE_CHECKING:
    from psync.engine.directory.fs.nfs_lookup import Lookups
    from psync.engine.directory.fs.temporary import Temporary


RECENT_NS = 2_000_000_000
"""A change of a folder is this old before its time stamp tells it from later ones, whatever the clock's tick."""


class AtomicFiles:
    """The files of one directory, at one level of durability.

    `sync_file`: a file is on the disk before it gets its name. `sync_name`: its name is, before the verb returns.
    `reading`: nothing is made, changed or locked, whatever the file system would allow (EROFS).
    """

    local = True
    """Whether this host's kernel sees all changes: then files may be mapped into memory, and remembered."""
    lookups: Lookups | None = None
    """How to ask the server what a name leads to; None where `local`."""

    def __init__(
        self, layout: Layout, can: Capabilities, *, sync_file: bool, sync_name: bool, reading: bool = False
    ) -> None:
        self._tmp = layout.tmp
        self.root = layout.root
        self._layout = layout
        self._unnamed = can.unnamed
        self.trust = layout.trust
        self.presence = layout.presence
        self.direct = can.direct
        self.in_place = can.in_place
        self.sync_file = sync_file
        self.sync_name = sync_name
        self.reading = reading
        self.refused = can.refused or errno.EROFS
        """The error of a change where files are only read."""
        self._lasting: dict[str, int] = {}
        """Folders whose own names are known to be on the disk, as long as the folder above was last changed at that
        time: a folder may be removed, and made again."""

    def refusal(self, path: str) -> OSError:
        """The error of a change where files are only read."""
        return OSError(self.refused, os.strerror(self.refused), path)

    # -- by name -----------------------------------------------------------------------------------------

    def make(self, path: str, data: bytes | Parts, *, replaced: bool = False) -> bool:
        """Create `path` with `data` in it unless it exists; True for the one caller who created it.

        `replaced`: files at this name are replaced now and then (see `replace`).
        """
        trust = self.trust
        if self.reading:
            raise self.refusal(path)
        if not trust.private:
            trust.check_folder(path[: path.rindex("/")])
        if self._unnamed:
            made = link_unnamed(path, data, sync=self.sync_file, access=trust.access)
        else:
            made = self._link_named(path, data, replaced)
        if made and self.sync_name:
            try:
                self.secure(path)
            except BaseException:
                os.unlink(path)  # a name that a power cut may remove was not made: the verb raises
                raise
        return made

    def _link_named(self, path: str, data: bytes | Parts, replaced: bool) -> bool:
        """`make` without O_TMPFILE."""
        return self.temporary(data, sync=self.sync_file).link(path)

    def replace(self, path: str, old: int, data: bytes | Parts, *, durable: bool = False) -> Temporary:
        """Put a new file with `data` at `path`, and return it, still locked: the caller releases or keeps it.

        `old` is the file that is there, locked by the caller; it is dead afterwards. `durable`: as in
        `HeldBucket.replace`.
        """
        new = self.temporary(data, sync=durable or self.sync_file)
        try:
            # decides: readers get the new file, and a waiter for the old one's lock finds it dead
            new.rename(path)
            self._changed_at(path, old)
        except BaseException:
            new.discard()
            raise
        return new

    def remove(self, path: str, fd: int, *, lasting: bool = False) -> None:
        """Remove the file at `path`, which is open as `fd`, and locked. A waiter for its lock finds it dead.

        `lasting`: make that durable if the level asks for it; the content is at `path` again if that fails.
        """
        os.unlink(path)
        if lasting:
            self._changed_at(path, fd)

    def _changed_at(self, path: str, old: int) -> None:
        """`renamed`; the content of the open file `old` comes back to `path` if the disk refuses to keep the change."""
        if self.sync_name:
            try:
                self.secure(path)
            except BaseException:
                with contextlib.suppress(OSError):  # the disk does not even take what it had before
                    self.temporary(read_all(old, os.fstat(old).st_size), sync=False).replace(path)
                raise

    def temporary(self, data: bytes | Parts, *, sync: bool) -> Temporary:
        """A new file under a temporary name."""
        if self.reading:
            raise self.refusal(self._tmp)
        from psync.engine.directory.fs.temporary import Temporary  # loaded by the first new file

        return Temporary(self._tmp, data, sync=sync, access=self.trust.access)

    def attach(self, path: str, flags: int) -> tuple[int, os.stat_result] | None:
        """Open what `path` holds now; the descriptor and its status, or None if there is nothing."""
        while True:
            try:
                fd = self.open(path, flags)
            except FileNotFoundError:
                return None
            except OSError as error:
                if make_room(error):
                    continue
                raise
            status = os.fstat(fd)
            if status.st_nlink:
                return fd, status
            close(fd)  # it was removed or replaced between the two calls: the name leads elsewhere now

    def open(self, path: str, flags: int) -> int:
        """Open the file at `path`, one that is never removed or replaced while anybody may want it. (A caller that
        meets a lack of descriptors calls `make_room`.)"""
        if self.reading and flags & os.O_RDWR:
            raise self.refusal(path)
        return os.open(path, flags)

    def scan(self, folder: str) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
        """`os.scandir` of what is there now."""
        return with_room(lambda: os.scandir(folder))

    def listing(self, folder: str) -> list[str]:
        """`os.listdir` of what is there now, without the ``.nfsXXXX`` files of NFS clients."""
        return with_room(lambda: os.listdir(folder))

    def finish_replacement(self, path: str) -> bool:
        """Finish a replacement at `path` whose writer was killed, and wait for one whose writer lives. True if there
        was one: the caller opens the name again."""
        return False  # one rename replaces a file here: no replacement is ever half done

    def sweep_successor(self, successor: str) -> bool:
        """Finish or undo the replacement that the file at `successor` is left of; True if there was something to do.
        Raises BlockingIOError if its writer is alive.

        Other hosts may have worked here before, when the directory was on a network file system.
        """
        from psync.engine.directory.fs.nfs_lookup import Lookups
        from psync.engine.directory.fs.nfs_replace import Replacements

        return Replacements(Lookups(self.root, coarse=False), self.trust.access).sweep(successor)

    # -- an open file ------------------------------------------------------------------------------------

    def is_live(self, path: str, fd: int) -> os.stat_result | None:
        """The status of an open file that is still at `path`; None if it was removed or replaced."""
        status = os.fstat(fd)
        return status if status.st_nlink else None

    def size(self, fd: int) -> int:
        """The size of an open file now, in bytes."""
        return os.fstat(fd).st_size

    # -- durability --------------------------------------------------------------------------------------

    def renamed(self, path: str) -> None:
        """`path` has another file than before, or none: make that durable if the level asks for it."""
        if self.sync_name:
            self.secure(path)

    def secure(self, path: str) -> None:
        """Sync the names on the way to `path`: whatever it is now, it is after a power cut."""
        folder = os.path.dirname(path)
        self._sync(folder)
        while len(folder) > len(self.root):
            above = os.path.dirname(folder)
            with contextlib.suppress(FileNotFoundError):
                changed = os.stat(above).st_mtime_ns  # before the sync, which covers what is older
                if self._lasting.get(folder) == changed:
                    return
                self._sync(above)
                if changed + RECENT_NS < clock.wall_ns():  # no later change gets the same time stamp
                    self._lasting[folder] = changed
            folder = above

    def _sync(self, folder: str) -> None:
        """Sync the names in a folder, unless it is gone with the last of them: then the one above must be synced."""
        try:
            sync_folder(folder)
        except FileNotFoundError:
            if folder == self.root:
                raise
            self._lasting.pop(folder, None)

    # -- quarantine --------------------------------------------------------------------------------------

    def keep(self, name: str, data: bytes, reason: str) -> str | None:
        """Put damaged bytes that were found at `name` into quarantine; their path there, or None if that failed."""
        refuge = self._layout.refuge(name, clock.wall_ns())
        try:
            self.make(refuge, data)
            self.say_why(refuge, name, reason)
        except OSError:
            return None
        return refuge

    def say_why(self, refuge: str, name: str, reason: str) -> None:
        """Write the name and the reason beside a file in quarantine."""
        text = f"{name}\n{' '.join(reason.split())}\n"
        self.make(f"{refuge}.why", text.encode("utf-8", "backslashreplace"))
