"""Replacing a file on a network file system: two renames, so that a kill between any two requests loses nothing.

An NFS client that renames over a file which a process of its host has open needs two requests: it first renames that
file to ``.nfsXXXX``, which goes with its last close, and then the new file to the name. Killed in between, the name is
gone for good; and until the second request every other host finds nothing at the name. So the new file stands beside
the name until the name leads to it. While the old file is locked:

1. ``.psync-new-<name>`` is made: the whole new content, on the server's disk, locked by its writer. Nothing has changed
so far; killed here, it is an orphan. 2. The old file is emptied. This decides: from now on the name means the content
of ``.psync-new-<name>``, and a process that has the old file open, or waits for its lock, finds it dead. 3.
``.psync-new-<name>`` is renamed to ``.psync-now-<name>``. Only while there is such a file may the name lead to nothing;
it holds the content of the name, whatever the name leads to. 4. ``.psync-now-<name>`` is renamed to the name, and
nothing is left to do.

A reader that finds an emptied file at the name reads the successor: the file of step 1, or that of step 3. One that
finds no such name reads the file of step 3. Whoever wants to change something waits for the successor's lock (its
writer may be alive) and makes the last steps, as does a sweep. A file with several links (somebody's snapshot) is not
emptied; there step 3 decides, and a process that locks such a file looks for a successor first.

A new file is linked to its name, and looked at again while it is locked: if it came to a name that was missing only
between steps 3 and 4, it gives way. Until that look it has a second link, so that others know to look, too.

Cost, beside the new file and the emptying: a RENAME more than one that does not survive a kill. The first looks for a
name that is not there take a second GETATTR, a new name a GETATTR and two LOOKUPs. Not promised: that a host which
stands still between two of these steps for longer than the server's lease, and so loses both locks, does no harm when
it goes on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

from psync.engine.directory.fs.nfs_lookup import SETTLED_S, Lookups, check_lock, status_now
from psync.engine.directory.fs.nfs_temporary import NfsTemporary
from psync.engine.directory.fs.permissions import Access
from psync.engine.directory.fs.syscalls import CHANGE, READ, close, let_go, lock
from psync.engine.directory.fs.temporary import Temporary
from psync.engine.directory.layout import (
    NAME_AT_END,
    decided_path,
    has_long_name,
    name_at_end,
    prepared_path,
    replaced_name,
)
from psync.engine.encoding.framing import Parts
from psync.engine.system import clock

MAX_CACHED_PATHS = 1000
"""Folders and paths."""


class Replacements:
    """Files that come to names, or in the place of others, on a network file system."""

    def __init__(self, lookups: Lookups, access: Access) -> None:
        self._lookups = lookups
        self._change = CHANGE | lookups.direct
        self._access = access
        self._stamps: dict[str, tuple[tuple[int, int], float]] = {}
        """The time stamps of folders, and since when they are known (seconds of this host's monotonic clock)."""
        self._absent: dict[str, tuple[int, int]] = {}
        """Paths at which there was neither a file nor a successor, with the settled stamps of their folders then."""

    # -- reading -------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, *, sure: bool = True) -> int:
        """`Lookups.open` of what `path` holds: of its successor, if there is one and nothing at the name."""
        while True:
            try:
                return self._lookups.open(path, flags, sure=sure)
            except FileNotFoundError:
                folder = os.path.dirname(path)
                if not os.path.lexists(folder):
                    raise
                stamp = self._settled_stamp(folder)
                if stamp is not None and self._absent.get(path) == stamp:
                    raise  # nothing was renamed in the folder since both names were looked for
                # the name may have been missing between two steps: so both are looked for at one moment
                if not self._lookups.ask(folder):
                    raise
                successor = decided_path(path)
                if os.path.lexists(successor):
                    try:
                        return os.open(successor, flags)
                    except OSError as error:
                        if error.errno not in (errno.ENOENT, errno.ESTALE):
                            raise  # else it has come to its name meanwhile
                elif not os.path.lexists(path):
                    if stamp is not None and stamp == self._settled_stamp(folder):
                        if len(self._absent) >= MAX_CACHED_PATHS:
                            self._absent.clear()
                        self._absent[path] = stamp
                    raise

    def _settled_stamp(self, folder: str) -> tuple[int, int] | None:
        """The time stamps of a folder, if they are known to be so old that the next change brings others."""
        try:
            status = os.stat(folder)  # as the server said a moment ago
        except OSError:
            return None
        stamp, now = (status.st_mtime_ns, status.st_ctime_ns), clock.monotonic()
        known, since = self._stamps.get(folder, (None, now))
        if known != stamp:
            if len(self._stamps) >= MAX_CACHED_PATHS:
                self._stamps.clear()
            self._stamps[folder] = stamp, now
            return None
        return stamp if now - since > SETTLED_S else None

    def open_successor(self, path: str, emptied: int, flags: int) -> int | None:
        """The successor of the file that is open as `emptied`, and empty; None if that is not at `path` any more."""
        try:
            status = os.fstat(emptied)
            if not self._lookups.leads_to(path, status, sure=True):
                return None
            for successor in (prepared_path(path), decided_path(path)):  # in this order it is renamed
                with contextlib.suppress(FileNotFoundError):
                    fd = os.open(successor, flags)
                    # as long as the old file is there, no later replacement has begun
                    if self._lookups.leads_to(path, status, sure=True):
                        return fd
                    close(fd)
                    return None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return None

    def attach(self, path: str, flags: int) -> tuple[int, os.stat_result] | None:
        """What `path` holds now, open, and its status; None if there is nothing. A successor counts, although the name
        does not lead to it yet."""
        while True:
            try:
                fd = self.open(path, flags, sure=False)
            except FileNotFoundError:
                return None
            try:
                status = self._lookups.is_live(path, fd)
                if status is None:
                    if self._lookups.leads_to(decided_path(path), os.fstat(fd), sure=True):
                        return fd, status_now(fd)
                    close(fd)
                elif status.st_size or (successor := self.open_successor(path, fd, flags)) is None:
                    return fd, status
                else:
                    close(fd)
                    fd = successor
                    return fd, status_now(fd)
            except BaseException as error:
                close(fd)
                if not isinstance(error, OSError) or error.errno != errno.ESTALE:
                    raise  # else it was replaced on another host meanwhile
            if not self._lookups.renew(path):
                return None

    # -- changing ------------------------------------------------------------------------------------

    def make(self, path: str, new: Temporary) -> bool:
        """`path` leads to `new` from now on, unless there is something already; True if it does."""
        try:
            if not new.put(path):
                return False
            if self.is_alone(path, new.fd):
                return True
            self.finish(path)
            return False
        finally:
            new.discard()

    def is_alone(self, path: str, fd: int) -> bool:
        """Whether the name leads to this file, which was just linked to it and is locked, and will go on doing so."""
        return self._lookups.leads_to(path, os.fstat(fd), sure=True) and not os.path.lexists(decided_path(path))

    def replace(self, path: str, old: int, data: bytes | Parts) -> Temporary:
        """`path` holds `data` from now on, in a new file, which is still locked. `old` is there, locked by the caller,
        and dead afterwards."""
        alone = check_lock(old)
        new = self._prepare(path, data)
        try:
            if alone:
                # decides: readers and writers go on to the successor
                os.ftruncate(old, 0)
            self._complete(new.fd, path)
        except BaseException as error:
            # a signal's handler may have raised after any of these steps, and a request may have been refused
            if not self._is_decided(path, old, alone):
                new.discard()
                raise
            try:
                self._complete(new.fd, path)
            except BaseException:
                let_go(new.fd)
                raise error from None
            if not isinstance(error, OSError):
                let_go(new.fd)
                raise
        return new

    def _prepare(self, path: str, data: bytes | Parts) -> Temporary:
        successor = prepared_path(path)
        if has_long_name(path):  # behind a value nothing counts, and a bucket's name is short
            data = (data if isinstance(data, bytes) else b"".join(data), name_at_end(path))
        while True:
            try:
                return NfsTemporary("", data, self._lookups, sync=True, access=self._access, at=successor)
            except FileExistsError:
                # an orphan: the name leads to a file that is not empty, and nobody else has its lock
                with contextlib.suppress(FileNotFoundError):
                    self._settle(path, successor, fcntl.LOCK_EX, orphan=True)

    def _is_decided(self, path: str, old: int, alone: bool) -> bool:
        try:
            return (alone and not status_now(old).st_size) or not os.path.lexists(prepared_path(path))
        except OSError:
            return True  # unknown: a sweep will see

    def _complete(self, fd: int, path: str) -> None:
        """Steps 3 and 4 with the successor that is open as `fd`, and locked, as far as they are not done."""
        with contextlib.suppress(FileNotFoundError):  # done before, or the reply to the first request was lost
            os.rename(prepared_path(path), decided_path(path))
        self._bring_in(fd, path)

    def _bring_in(self, fd: int, path: str) -> None:
        try:
            os.rename(decided_path(path), path)
        except FileNotFoundError:
            if not self._lookups.leads_to(path, os.fstat(fd), sure=True):
                raise

    # -- after a kill ----------------------------------------------------------------------------------

    def finish(self, path: str) -> bool:
        """Make the last steps of a replacement whose writer is dead, and wait for one that lives. True if there was
        any: look at the name again. An OPEN and a LOOKUP, or two, if there was none."""
        if not self._lookups.ask(os.path.dirname(path)):
            return False
        for successor in (prepared_path(path), decided_path(path)):
            with contextlib.suppress(FileNotFoundError):
                if self._settle(path, successor, fcntl.LOCK_EX):
                    return True
        return False

    def sweep(self, successor: str) -> bool:
        """Finish the replacement that the file at `successor` belongs to, or remove that file, if it is an orphan; True
        if either was done. Raises BlockingIOError if its writer is alive."""
        with contextlib.suppress(FileNotFoundError):
            path = f"{os.path.dirname(successor)}/{replaced_name(successor, read_end)}"
            return self._settle(path, successor, fcntl.LOCK_EX | fcntl.LOCK_NB, orphan=True)
        return False

    def _settle(self, path: str, successor: str, how: int, *, orphan: bool = False) -> bool:
        fd = self._lookups.open(successor, self._change, sure=False)
        try:
            lock(fd, how)  # its writer keeps it to the last step
            if self._lookups.is_live(successor, fd) is None:
                return True  # somebody was quicker
            if successor == decided_path(path):
                self._bring_in(fd, path)
            elif self._is_emptied(path):
                self._complete(fd, path)
            elif orphan:
                os.unlink(successor)
            else:
                return False
            return True
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return True
        finally:
            let_go(fd)

    def _is_emptied(self, path: str) -> bool:
        """Whether the file at `path` was emptied, and is still there."""
        try:
            fd = self._lookups.open(path, READ)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
                return False
            raise
        try:
            status = status_now(fd)
            return not status.st_size and self._lookups.leads_to(path, status, sure=True)
        finally:
            close(fd)


def read_end(path: str) -> bytes:
    """The last bytes of a file, where a successor holds a long name."""
    fd = os.open(path, READ)
    try:
        return os.pread(fd, NAME_AT_END, max(0, os.fstat(fd).st_size - NAME_AT_END))
    finally:
        close(fd)
