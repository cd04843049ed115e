"""Presence: notice that the directory is not at its path any more, or that a file of psync's was taken from it.

Files stay open, so a process could go on for ever in a directory that was removed, moved away or replaced, and nobody
would see what it does. So each verb looks at the path before it changes anything: one `stat`, for which the fact that
decides is the inode that the path leads to. A verb on an open file looks at the path of that file, which tells both.
Waiters watch the directory itself as well.

Verbs that follow each other quickly share the looks, which costs them no system call: a process makes LOOKS_AT_ONCE of
them at once, and then one every LOOK_INTERVAL_S, which is the window within which a loop of verbs goes on unawares.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable

from psync.engine.system.clock import monotonic
from psync.errors import DirectoryGone

LOOKS_AT_ONCE = 128
"""So many verbs in a row look each for themselves."""
LOOK_INTERVAL_S = 0.004
"""Seconds after which there is one look more."""
THOROUGH_INTERVAL_S = 1.0
"""Seconds between two looks at the files of psync's that a verb does not name: its owner, the last segments of logs."""
NETWORK_LOOK_INTERVAL_S = 1.0
"""Seconds between two looks on a network file system, where one may take a request."""
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
        self.due = 0.0
        """When a verb looks again, on the monotonic clock."""
        self.thorough = False
        """Whether the look that was made last is one of those that go further."""
        self._interval, self._ahead = LOOK_INTERVAL_S, LOOK_INTERVAL_S * LOOKS_AT_ONCE
        self._paid_until = self._thorough_due = 0.0
        self._owner: Callable[[], bool] | None = None
        self.inode: Inode | None = None
        """Which directory it is; None until the directory is open: then nothing is checked."""

    def begin(self, *, network: bool) -> None:
        """The directory is open now, and at its path. Raises OSError."""
        self.inode = inode_of(os.stat(self.root))
        if network:
            self._interval, self._ahead = NETWORK_LOOK_INTERVAL_S, 0.0
            self._paid_until = self.due = monotonic() + self._interval
        self._thorough_due = monotonic() + THOROUGH_INTERVAL_S
        _open[self.root] = self

    def look(self) -> None:
        """Raise `DirectoryGone` unless the directory is at its path. stat."""
        self.check()
        self._looked()

    def look_at(self, path: str, inode: Inode | None) -> None:
        """The same, and raise it unless `inode` is what is at `path`, a file that psync never removes or replaces."""
        if inode is None:
            return self.look()
        try:
            there = inode_of(os.lstat(path)) == inode
        except OSError as error:
            if error.errno not in GONE_ERRORS:
                return None  # the verb itself will meet it
            there = False
        if not there:
            self.check()
            raise self.file_gone(path)
        return self._looked()

    def _looked(self) -> None:
        now = monotonic()
        paid = min(max(now, self._paid_until), now + self._ahead) + self._interval
        self._paid_until = paid
        self.due = paid - self._ahead
        self.thorough = now > self._thorough_due
        if self.thorough:
            self._thorough_due = now + THOROUGH_INTERVAL_S
            self._look_at_owner()

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
        if path == presence.root or path.startswith(presence.root + "/"):
            try:
                presence.check()
            except DirectoryGone as gone:
                return gone
    return None
