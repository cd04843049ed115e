"""Look names up on the server, past the NFS client's caches (close-to-open consistency is not enough).

An NFS client caches attributes for 3 to 60 s, and with them which names exist and which do not. Measured between two
clients with default options (Linux 6.1, `tests/nfs`), NFS 4.2 and 3:

* a file replaced by a rename: `open` alone led to the old one in 399 of 400 tries on v4 (it opens by handle, and
  the server keeps what was lately open); after the folder's attributes were asked for, in none;
* a name that was missed and then made: seen by `open` alone after 20 to 30 s; after asking for the folder's, at once;
* on v3 neither helps when the folder changed twice within one tick of the server's clock (its time stamp is all that a
  v3 client compares): 7 of 10 names were then never seen. Dropping the cached listing and reading it anew showed all.

So a lookup asks for the folder's attributes first: one GETATTR (`statx` with AT_STATX_FORCE_SYNC). On v3 a folder whose
time stamp is new, and may still be the same after the next change, is listed too: READDIRPLUS corrects the cached
names. For what a file *holds* see `invalidate_replaced`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable, Iterator

from psync.engine.directory.layout import is_leftover
from psync.engine.system import clock

_AT_CWD, _FORCE_SYNC, _EMPTY_PATH = -100, 0x2000, 0x1000
_BASIC = 0x7FF
_libc = ctypes.CDLL(None, use_errno=True)
SETTLED_S = 0.2
"""Seconds after which another change of a folder has another time stamp: servers count in ticks of 4 or 10 ms,
and a busy one may be late."""
_ABSENT_ERRORS = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)


class Lookups:
    """The lookups in one directory of a network file system."""

    def __init__(self, root: str, *, coarse: bool, direct: int = 0) -> None:
        self._root = root
        self.direct = direct
        """See `Capabilities.direct`."""
        self._coarse = coarse
        """Whether only time stamps tell this host's kernel that a folder has changed: NFS version 3."""
        self._stamps: dict[str, tuple[int, float, bool]] = {}
        """By folder, on a coarse server: its time stamp, since when that is known, and whether names were read when a
        later change could no longer have the same stamp."""

    def ask(self, folder: str, *, sure: bool = True) -> bool:
        """Revalidate what this host has cached of the names in `folder`; False if there is no such folder.

        On v3 with `sure` False only if the folder's time stamp shows the change. GETATTR; on v3 perhaps READDIRPLUS.
        """
        for again in (False, True):
            try:
                _revalidate_attributes(folder)
                break
            except OSError as error:
                if error.errno not in _ABSENT_ERRORS:
                    raise
            # the client may remember that there was no such folder: the folder above tells it better
            if again or len(folder) <= len(self._root) or not self.ask(os.path.dirname(folder), sure=sure):
                return False
        if sure and self._coarse:
            self._settle(folder)
        return True

    def _settle(self, folder: str) -> None:
        stamp, now = os.stat(folder).st_mtime_ns, clock.monotonic()
        known, since, settled = self._stamps.get(folder, (0, now, False))
        if known != stamp:
            since, settled = now, False
        if not settled:
            self.listing(folder)
            if len(self._stamps) > 1000:
                self._stamps.clear()
            self._stamps[folder] = stamp, since, now - since > SETTLED_S

    def renew(self, path: str) -> bool:
        """Whether `path` exists, whatever is cached: for a caller that the name led to a dead file.

        On v3 READDIRPLUS, which corrects what is remembered of the names that are there; but a name that was removed,
        and is remembered, goes on leading to the dead file as long as somebody has that open.
        """
        folder, name = os.path.split(path)
        if not self.ask(folder, sure=False):
            return False
        return not self._coarse or name in self.listing(folder)

    def open(self, path: str, flags: int, *, sure: bool = True) -> int:
        """`os.open` of what is at `path` now. Raises FileNotFoundError if nothing is, ESTALE if that
        was another each time.

        With `sure` False it may be what was there before, if that was replaced or removed since: for who checks it
        (`leads_to`), or would see that it is emptied.
        """
        if sure and not self.ask(os.path.dirname(path), sure=False):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno == errno.EINVAL and os.path.isdir(path):  # what NFS says of O_DIRECT on a folder
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) from error
            if error.errno not in _ABSENT_ERRORS or (sure and not self._coarse and error.errno == errno.ENOENT):
                raise
        if not self.ask(os.path.dirname(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        for _ in range(10):
            try:
                return os.open(path, flags)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                self.ask(os.path.dirname(path))  # it was replaced in the middle of this
        code = errno.ESTALE if self.renew(path) else errno.ENOENT
        raise OSError(code, os.strerror(code), path)

    def leads_to(self, path: str, status: os.stat_result, *, sure: bool = False) -> bool:
        """Whether the file with this `status` is what is at `path`."""
        if not self.ask(os.path.dirname(path), sure=sure):
            return False
        try:
            return os.lstat(path).st_ino == status.st_ino
        except OSError as error:
            if error.errno in _ABSENT_ERRORS:
                return False
            raise

    def status(self, path: str, asked: dict[str, bool]) -> tuple[int, ...] | None:
        """Return the attributes that tell one version of a file from another; None if there is no file.

        `asked`: the answers about folders that are still current. GETATTR unless the folder is among them, and another
        one if a file is there.
        """
        folder = os.path.dirname(path)
        try:
            if folder not in asked:
                asked[folder] = self.ask(folder)
            if not asked[folder] or not os.path.lexists(path):
                return None
            _revalidate_attributes(path)
            status = os.lstat(path)
        except OSError as error:
            if error.errno in _ABSENT_ERRORS:
                return None
            raise
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def is_live(self, path: str, fd: int) -> os.stat_result | None:
        """Return the status of an open file that is still at `path`; None if it was removed or replaced.

        The link count does not tell: an NFS client renames a file that is removed while it is open there. A file that
        was replaced is empty (`invalidate_replaced`).
        """
        try:
            status = status_now(fd)
        except OSError as error:
            if error.errno == errno.ESTALE:
                return None
            raise
        if not status.st_size and not self.renew(path):
            return None
        return status if status.st_nlink and self.leads_to(path, status) else None

    def listing(self, folder: str) -> list[str]:
        """`os.listdir` of what is there now, without what NFS clients keep of removed files; [] if there is no such
        folder."""
        try:
            with self.scan(folder) as entries:
                return [entry.name for entry in entries if not is_leftover(entry.name)]
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def scan(self, folder: str) -> Iterator[Iterable[os.DirEntry[str]]]:
        """`os.scandir` of what is there now. Raises FileNotFoundError if there is no such folder."""
        fd = self.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, sure=False)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            with os.scandir(fd) as entries:
                yield entries
        finally:
            os.close(fd)


def status_now(fd: int) -> os.stat_result:
    """`os.fstat` as the server knows it now."""
    _revalidate_attributes("", fd)
    return os.fstat(fd)


def check_lock(fd: int) -> bool:
    """Raise OSError if the lock on `fd`, whose name is about to go, was lost. True if `invalidate_replaced` has to
    follow once the name is gone: under another name (a snapshot of somebody's) the file stays what it is."""
    os.pread(fd, 1, 0)  # fails on version 4 if this host was cut off for longer than the server's lease
    return os.fstat(fd).st_nlink <= 1


def invalidate_replaced(fd: int) -> None:
    """Empty a file that was removed or replaced, while it is still locked.

    A process that has it open, waits for its lock, or was led to it by its host's cache, sees that it is dead without a
    lookup: on v3 an `open` led to a replaced file that somebody had open in 137 of 200 tries, whatever was
    asked before. No file that psync uses is ever empty.
    """
    with contextlib.suppress(OSError):  # the change is decided already; the link count is the other sign
        os.ftruncate(fd, 0)


def _revalidate_attributes(path: str, fd: int = _AT_CWD) -> None:
    buffer = ctypes.create_string_buffer(256)
    flags = _FORCE_SYNC if path else _FORCE_SYNC | _EMPTY_PATH
    if _libc.statx(fd, os.fsencode(path), flags, _BASIC, buffer):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
