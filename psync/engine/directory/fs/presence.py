"""Presence: notice that the directory is not at its path any more, or that a file of psync's was taken from it.

Files stay open, so a process could go on for ever in a directory that was removed, moved away or replaced, and nobody
would see what it does. A verb looks at the path again if that was not done for LOOK_INTERVAL_S: the fact that decides
is which inode the path leads to. A verb on an open file looks at the path of that file, which tells both. So verbs that
follow each other quickly share one `stat`, and others cost one more. Waiters watch the directory itself as well.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable

from psync.engine.system.clock import monotonic
from psync.errors import DirectoryGone

LOOK_INTERVAL_S = 0.002
"""Seconds for which what was seen of the path counts, on this host's own file systems."""
NETWORK_LOOK_INTERVAL_S = 1.0
"""The same on a network file system, where a look may take a request."""
GONE_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN}
"""What the kernel says of a path that leads nowhere: for the last, the server of a FUSE file system has ended."""
Inode = tuple[int, int]
"""A device and an inode: which file it is."""


def inode_of(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


class Presence:
    """One directory at its path."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.due = self.file_due = 0.0
        """When a verb should look at the directory again, and when at its own file, on the monotonic clock."""
        self.interval = LOOK_INTERVAL_S
        """Seconds for which what was seen counts."""
        self._owner: Callable[[], bool] | None = None
        self.inode: Inode | None = None
        """Which directory it is; None until the directory is open: then nothing is checked."""

    def begin(self, *, network: bool) -> None:
        """The directory is open now, and at its path. Raises OSError."""
        self.inode = inode_of(os.stat(self.root))
        self.interval = NETWORK_LOOK_INTERVAL_S if network else LOOK_INTERVAL_S
        self.due = self.file_due = monotonic() + self.interval
        _open[self.root] = self

    def look(self) -> None:
        """Raise `DirectoryGone` unless the directory is at its path, and this process counts as alive there. stat, and
        fstat if it has an owner."""
        self.check()
        self._look_at_owner()
        self.due = monotonic() + self.interval

    def look_at(self, path: str, inode: Inode | None) -> None:
        """The same, and raise it unless `inode` is what is at `path`, a file that psync never removes or replaces."""
        if inode is None:
            self.look()
            self.file_due = self.due
            return None
        try:
            there = inode_of(os.lstat(path)) == inode
        except OSError as error:
            if error.errno not in GONE_ERRORS:
                return None  # the verb itself will meet it
            there = False
        if not there:
            self.check()
            raise self.file_gone(path)
        self._look_at_owner()
        self.due = self.file_due = monotonic() + self.interval
        return None

    def check(self) -> None:
        """Raise `DirectoryGone` unless the directory is at its path."""
        if self.inode is None:
            return
        try:
            if inode_of(os.stat(self.root)) == self.inode:
                return
        except OSError as error:
            if error.errno in GONE_ERRORS:
                raise self._gone("was removed, moved away or unmounted", "make it again, or put it back") from error
            return  # it can't be told: the verb itself will meet the same
        raise self._gone(
            "is another one now than that which was opened: it was replaced, or a link or a mount on the way to it "
            "leads elsewhere",
            "look which one is meant",
        )

    def is_gone(self) -> bool:
        try:
            self.check()
        except DirectoryGone:
            return True
        return False

    def vouch(self) -> None:
        """Note that a watch has looked at the directory up to now."""
        self.due = self.file_due = monotonic() + self.interval

    def watch_owner(self, lost: Callable[[], bool]) -> None:
        """`lost` tells, once, that the file is gone which shows that this process lives."""
        self._owner = lost

    def _look_at_owner(self) -> None:
        if self._owner is not None and self._owner():
            raise self.file_gone(
                f"{self.root}/.psync/owners", "without it others take this process for dead, and what it held for free"
            )

    def _gone(self, what: str, remedy: str) -> DirectoryGone:
        return DirectoryGone(
            f"the directory {self.root} {what}. This process still has the files of the one before open, where nobody "
            f"else sees what it does, so it stops. Remedy: {remedy}, then open the store anew",
            key=None,
            errno=errno.ENOENT,
            strerror=os.strerror(errno.ENOENT),
            filename=self.root,
            directory=self.root,
        )

    def file_gone(self, path: str, lost: str = "what it held is lost") -> DirectoryGone:
        """The error for a file of psync's that something else has removed or replaced."""
        return DirectoryGone(
            f"a file of psync's in the directory {self.root} was removed or replaced by something else: {path}; {lost}"
            ". Remedy: keep whatever removes old files away from .psync, and begin anew",
            key=None,
            errno=errno.ENOENT,
            strerror=os.strerror(errno.ENOENT),
            filename=path,
            directory=self.root,
        )


_open: weakref.WeakValueDictionary[str, Presence] = weakref.WeakValueDictionary()
"""The directories that this process has open, by their path: they are made when they are opened, and never later."""


def must_exist(path: str) -> None:
    """Raise `DirectoryGone` if `path`, which is about to be made, is a directory that is open already."""
    presence = _open.get(path)
    if presence is not None:
        presence.check()


def begin_anew(path: str) -> None:
    """The directory is about to be opened: it may be made."""
    _open.pop(path, None)


def explain(path: str) -> DirectoryGone | None:
    """The error to raise for one at `path` that may come of it that its directory is gone; None if it is there."""
    for presence in list(_open.values()):
        if path.startswith(presence.root):
            try:
                presence.check()
            except DirectoryGone as gone:
                return gone
    return None
