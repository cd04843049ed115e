"""Cell: a file at its own name; writers exclude each other by a lock on the file itself.

A process that writes, removes or replaces a file holds `flock` on it, and has seen after locking that the file still
has a name. So:

* a value of up to a page is written in place by one `pwrite` (whole or not at all under SIGKILL; it needs no inode):
  open, flock, fstat, pwrite, close. The fact that decides is the `pwrite`.
* a larger value goes to a new file that is renamed over the old one while that is locked: the rename decides.
* a new name is a new file that is linked to it: one of several links wins.

Readers take no lock unless they must: a read that meets a half-made `pwrite` fails its checksum and is repeated, at
last under the lock. A file without a checksum is always read under the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Callable
from threading import get_ident

from psync.engine.contract.values import Cell, Update, Version
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.permissions import CHECKED, PLAIN, check_kind
from psync.engine.directory.fs.syscalls import (
    ATOMIC_WRITE_BYTES,
    CHANGE,
    LARGE_BYTES,
    MEMORY_BYTES,
    PICKLE_START,
    READ,
    await_lock,
    close,
    copy_data,
    is_no_pickle,
    let_go,
    open_locked,
    read_all,
    rename_to_free,
    with_folder,
    write_all,
)
from psync.engine.directory.layout import may_be_bucket
from psync.engine.encoding.framing import (
    CELL_HEAD,
    Parts,
    Unreadable,
    bears_frame,
    frame,
    frame_parts,
    header_of,
    unframe,
)
from psync.engine.system import clock
from psync.engine.system.reentry import holds_lock, reentrant

MAX_IN_PLACE_BYTES = ATOMIC_WRITE_BYTES - CELL_HEAD
"""Bytes of a pickle that, with its seal, is written in place: a page, which a `pwrite` writes whole or not."""
RECENT_NS = 2_000_000_000
"""After this time no writer is still in the middle of its `pwrite`, and no later change gets the same time stamp,
whatever the clock's tick."""
NO_WAIT = fcntl.LOCK_EX | fcntl.LOCK_NB
_never_again = itertools.count(1)
_first_values: set[tuple[str, int]] = set()
"""The paths whose first value is being computed by `Cells.update`, with the thread."""
MAX_OWN_PATHS = 8192
"""Paths of which a process remembers that their files are psync's."""


class Cells:
    """The files of one directory. Paths, not names; errors are `OSError`, `Unreadable`, or none."""

    def __init__(self, can: Capabilities, fs: AtomicFiles) -> None:
        self._can = can
        self._fs = fs
        self._trust = fs.trust
        self._me = fs.trust.me
        self._in_place = not fs.sync_file
        self._recent = False
        """Whether the last file that was read was younger than RECENT_NS: a guess about the next. Threads share it."""
        self._own: dict[str, int] = {}
        """The inode numbers of files that psync has written, by path; 0 for one that was just made."""

    # -- reading -------------------------------------------------------------------------------------

    def read(self, path: str, known: Cell | None) -> Cell | None:
        """stat when `known` is current; else open, fstat, pread, close; for a file that changed just now flock, flock,
        too.

        A file of LARGE_BYTES or more takes another pread. The first new file after old ones takes another fstat.
        """
        try:
            if known is not None:
                status = os.lstat(path)
                if (status.st_ctime_ns, status.st_size, status.st_ino) == known.version:
                    return known
            for _ in range(4):
                cell = self._load(os.open(path, READ), path)
                if cell is not None:
                    return cell
            return self._read_locked(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    @holds_lock
    def _load(self, fd: int, path: str) -> Cell | None:
        """The cell in an open file, which is closed; None if it has to be read under the lock, or once more.

        The kernel gives a file its new time stamp before it copies the new bytes. So of a file that was changed just
        now the stamp may be that of bytes which are not there yet: it counts only if no writer was at work.
        """
        locked = False
        try:
            tried = self._recent and self._can.fine_times
            if tried:
                locked = _lock_shared(fd)
            status = os.fstat(fd)
            if status.st_mode & CHECKED != PLAIN or status.st_uid != self._me:
                self._trust.check_file(path, status)
            recent = self._recent = status.st_ctime_ns + RECENT_NS > clock.wall_ns()
            if recent and not tried and self._can.fine_times:
                locked = _lock_shared(fd)
                status = os.fstat(fd)
            known = locked or not recent
            payload = _sealed(fd, status.st_size)
        finally:
            if locked:
                let_go(fd)
            else:
                close(fd)
        return None if payload is None else Cell(payload, self._version(status, known))

    def _version(self, status: os.stat_result, known: bool) -> Version:
        if known:
            return status.st_ctime_ns, status.st_size, status.st_ino
        return (-next(_never_again),)  # a version that no file has: read it again next time

    def _read_locked(self, path: str) -> Cell | None:
        """No writer is at work under the lock: a value that fails its checksum now is damaged."""
        found = self._held_value(path, READ)
        if found is None:
            return None
        fd, status = found
        try:
            self._trust.check_file(path, status)
            data = _content(fd, status.st_size)
            return examine(data, self._version_now(data, status))
        finally:
            let_go(fd)

    def _version_now(self, data: bytes, status: os.stat_result) -> Version:
        """The version of what was read under the lock."""
        return self._version(status, self._can.fine_times or status.st_ctime_ns + RECENT_NS < clock.wall_ns())

    # -- changing ------------------------------------------------------------------------------------

    @holds_lock
    def write(self, path: str, payload: bytes, spare_bucket: bool = False) -> None:
        """open, flock, fstat, pwrite, close in place; a page more or a new name costs an inode."""
        if self._in_place and len(payload) <= MAX_IN_PLACE_BYTES and path[-3:-2] != "/":  # `may_be_bucket` written out
            if not self._trust.private:
                self._trust.check_folder(path[: path.rindex("/")])
            data = frame(payload)
            try:
                fd = os.open(path, CHANGE)
            except FileNotFoundError:
                self._refuse_first_value(path)
                if self._make(path, data):
                    return
            else:
                try:  # `open_locked` written out: this is the hot path
                    try:
                        fcntl.flock(fd, NO_WAIT)
                    except BlockingIOError:
                        await_lock(fd)
                    status = os.fstat(fd)
                    if status.st_nlink == 1:
                        if self._own.get(path) != status.st_ino:
                            self._check_own(path, fd, status)
                        self._put(fd, data, status, path)
                        return
                finally:
                    try:  # `let_go` written out, for a descriptor that nobody was told of
                        fcntl.flock(fd, fcntl.LOCK_UN)
                    except BaseException as error:
                        let_go(fd)
                        if not isinstance(error, OSError):
                            raise
                    else:
                        try:
                            os.close(fd)
                        except OSError:
                            pass
                del fd  # `await_lock` takes it for a file that is locked here
        self._write_locked(path, payload, spare_bucket)

    def _put(self, fd: int, data: bytes, status: os.stat_result, path: str) -> None:
        """In place: a reader gets the old value or the new one, as one `pwrite` is whole or not at all."""
        if status.st_mode & CHECKED != PLAIN or status.st_uid != self._me:
            self._trust.check_file(path, status)
        size = len(data)
        if os.pwrite(fd, data, 0) != size:
            write_all(fd, data, 0)
        if status.st_size > size:
            try:
                os.ftruncate(fd, size)
            except OSError:
                pass  # the value says how long it is; bytes behind it mean nothing

    def _write_locked(self, path: str, payload: bytes, spare_bucket: bool) -> None:
        """Write whatever was at the name, and however long the value is."""
        if not self._trust.private:
            self._trust.check_folder(path[: path.rindex("/")])
        data = _framed(payload)
        while True:
            found = self._held(path)
            if found is None:
                self._refuse_first_value(path)
                if spare_bucket:
                    self._check_no_category(path)
                if self._make(path, data):
                    return
                continue  # another process made one between the two calls
            fd, status = found
            try:
                if self._own.get(path) != status.st_ino:
                    self._check_own(path, fd, status)
                if spare_bucket:  # under the lock that each append takes: no bucket comes between look and write
                    _check_no_bucket(path, os.pread(fd, CELL_HEAD, 0))
                self._put_or_replace(fd, data, status, path)
                return
            finally:
                let_go(fd)

    def _make(self, path: str, data: bytes | Parts) -> bool:
        made = self._fs.make(path, data, replaced=True)
        if made:
            self._remember(path, 0)
        return made

    def _check_own(self, path: str, fd: int, status: os.stat_result) -> None:
        """Raise `Unreadable` if the locked file, which is about to be overwritten, is foreign: its bytes are to be
        kept. A pread, once for each file that this process has not made."""
        if status.st_size and self._own.get(path) != 0 and not bears_frame(os.pread(fd, CELL_HEAD, 0)):
            examine(_content(fd, status.st_size), ())
        self._remember(path, status.st_ino)

    def _remember(self, path: str, inode: int) -> None:
        if len(self._own) >= MAX_OWN_PATHS:
            self._own.clear()
        self._own[path] = inode

    def _put_or_replace(self, fd: int, data: bytes | Parts, status: os.stat_result, path: str) -> None:
        """While `fd`, which is at `path`, is locked."""
        # a file with another link (a snapshot of somebody's) must not change under that
        if isinstance(data, bytes) and self._in_place and status.st_nlink == 1 and not may_be_bucket(path):
            self._put(fd, data, status, path)
        else:
            let_go(self._fs.replace(path, fd, data).fd)

    def _held(self, path: str, flags: int = CHANGE) -> tuple[int, os.stat_result] | None:
        """See `open_locked`."""
        return open_locked(path, flags)

    def _held_value(self, path: str, flags: int = CHANGE) -> tuple[int, os.stat_result] | None:
        """`_held`, but None for a folder, which is no value."""
        try:
            return self._held(path, flags)
        except (NotADirectoryError, IsADirectoryError):
            return None

    def create(self, path: str, payload: bytes, spare_bucket: bool = False) -> bool:
        """lstat when there is such a name; else what a new file takes."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            self._refuse_first_value(path)
            if spare_bucket:
                self._check_no_category(path)
            return self._fs.make(path, frame(payload), replaced=True)
        check_kind(path, status)
        return False

    def delete(self, path: str, spare_foreign: bool = False) -> bool:
        """open, flock, fstat, unlink, close. With `spare_foreign` also pread: `Unreadable` for a foreign file."""
        return self._remove(path, None, spare_foreign) is not None

    def pop(self, path: str, before: Callable[[Cell], object]) -> Cell | None:
        return self._remove(path, before)

    def _remove(self, path: str, before: Callable[[Cell], object] | None, spare_foreign: bool = False) -> Cell | None:
        """Under the lock, so that `before` sees the last write, and no later write is lost."""
        found = self._held_value(path)
        if found is None:
            return None
        fd, status = found
        try:
            cell = Cell(b"", ())
            if spare_foreign and not bears_frame(os.pread(fd, CELL_HEAD, 0)):
                examine(_content(fd, status.st_size), ())
            if before is not None:
                self._trust.check_file(path, status)
                cell = examine(_content(fd, status.st_size), ())
                before(cell)
            self._fs.remove(path, fd, lasting=True)
        finally:
            let_go(fd)
        return cell

    def update(self, path: str, function: Update, spare_bucket: Callable[[], bool] | None = None) -> bytes | None:
        """open, flock, fstat, pread, pwrite, close."""
        if not self._trust.private:
            self._trust.check_folder(path[: path.rindex("/")])
        while True:
            found = self._held(path)
            if found is None:
                self._refuse_first_value(path)
                name = path, get_ident()
                _first_values.add(name)
                try:
                    new = function(None)
                finally:
                    _first_values.discard(name)
                if spare_bucket is not None and spare_bucket():
                    self._check_no_category(path)
                if new is None or self._fs.make(path, frame(new), replaced=True):
                    return new
                continue  # another process made one while the function ran: call it again with that value
            fd, status = found
            try:
                self._trust.check_file(path, status)
                content = _content(fd, status.st_size)
                old = examine(content, ()).payload
                new = function(old)
                if new is None or new is old:
                    return old
                if spare_bucket is not None and spare_bucket():
                    _check_no_bucket(path, content)
                self._put_or_replace(fd, _framed(new), status, path)
                return new
            finally:
                let_go(fd)

    def _refuse_first_value(self, path: str) -> None:
        """Raise `ReentrantCall` if this thread is computing the first value of `path`, which has no file to lock."""
        if _first_values and (path, get_ident()) in _first_values:
            raise reentrant(path)

    def _check_no_category(self, path: str) -> None:
        from psync.engine.directory.buckets.folder import check_no_category  # seldom needed

        check_no_category(self._fs, self._fs.root, path)

    def move(self, path: str, new: str) -> bool:
        found = self._held_value(path)
        if found is None:
            return False
        fd, status = found
        try:
            self._trust.check_file(path, status)
            self._rename(path, new, fd, status)
        finally:
            let_go(fd)
        self._fs.renamed(path)
        return True

    def _rename(self, path: str, new: str, fd: int, status: os.stat_result) -> None:
        """While `fd`, which is at `path`, is locked. A copy replaces the moved file: a waiter for the old file's lock
        must find it dead, not at its new name."""
        # synced at every level, because the original is lost
        copy = self._fs.temporary(read_all(fd, status.st_size), sync=True)
        try:
            # decides: the value is at its new name. Killed before the copy replaces it there, it is the same value
            with_folder(new, lambda: rename_to_free(path, new), self._trust.access)
        except BaseException:
            copy.discard()
            raise
        copy.replace(new)
        self._fs.renamed(new)

    def set_aside(self, path: str, refuge: str, seen: Version | None, foreign: bool = False) -> bool:
        """Keep a damaged file's bytes at `refuge` and remove it, unless it reads well now or isn't what was `seen`. One
        that psync did not write stays, unless `foreign`."""
        found = self._held_value(path)
        if found is None:
            return False
        fd, status = found
        try:
            data = _content(fd, status.st_size)
            if seen is None:
                with contextlib.suppress(Unreadable):
                    examine(data, ())
                    return False
            elif seen and seen[0] > 0 and self._version_now(data, status) != seen:
                return False
            if not foreign and not bears_frame(data):
                return False
            # a copy, because a waiter for the lock of this file must find it dead
            copy = self._fs.temporary(b"", sync=False)
            try:
                copy_data(fd, copy.fd, status.st_size)
                os.fsync(copy.fd)
            except BaseException:
                copy.discard()
                raise
            copy.link(refuge)
            self._fs.secure(refuge)  # before the removal: a power cut in between leaves both, never none
            self._fs.remove(path, fd)
            return True
        finally:
            let_go(fd)


def _framed(payload: bytes) -> bytes | Parts:
    """A short value as one piece, which a `pwrite` writes; a long one as its parts, which need no copy."""
    return frame(payload) if len(payload) <= MAX_IN_PLACE_BYTES else frame_parts(payload)


def _sealed(fd: int, size: int) -> bytes | None:
    """The payload in an open file; None if no seal fits what was read."""
    if size >= LARGE_BYTES:  # the payload is read apart from the head: to cut the head off later is to copy the payload
        head = os.pread(fd, CELL_HEAD, 0)
        found = header_of(head)
        if found is not None and found.length <= size - CELL_HEAD:
            payload = read_all(fd, found.length, CELL_HEAD)
            return payload if found.fits(payload) else None
        if head[:1] != PICKLE_START:
            return None
        if size > MEMORY_BYTES:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    data = os.pread(fd, size, 0)
    if len(data) < size:
        data = read_all(fd, size)
    try:
        return unframe(data)
    except Unreadable:
        return None


def _content(fd: int, size: int) -> bytes:
    """All of an open file; of a large one that holds no pickle, not even a damaged one, only the beginning."""
    return read_all(fd, LARGE_BYTES if is_no_pickle(fd, size) else size)


def _check_no_bucket(path: str, head: bytes) -> None:
    from psync.engine.directory.buckets.folder import check_bucket_head  # seldom needed

    check_bucket_head(path, head)


def _lock_shared(fd: int) -> bool:
    """Keep writers out until `let_go`. False if one is at work: readers don't wait."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def examine(data: bytes, version: Version) -> Cell:
    """The cell in `data`, which was read while no writer was at work. Raises `Unreadable`."""
    payload = unframe(data)
    if payload is not None:
        return Cell(payload, version)
    from psync.engine.encoding import pickle_scan  # psync's own values need no scan

    pickle_scan.check_whole(data)
    return Cell(data, version, sealed=False)
