"""NFS cells: the same files and locks as local cells, but a read or lookup asks the server, past the client's cache.

All that `cells.local` says holds here too, and besides:

* Content is read and written with O_DIRECT (NFS), or read after opening (other network file systems). The server is
  asked what a name leads to (`Lookups`). A value that was read before is current if the file holds the same bytes: time
  stamps are the server's, and coarse.
* A process that has locked a file asks the server *after that* whether the name still leads to it. A file that is
  removed or replaced is emptied while it is locked (`invalidate_replaced`).
* Before a name is removed or replaced the lock is checked by a read. A host that was cut off for longer than the
  server's lease (90 s) has lost it; its kernel knows, and fails each access through that descriptor (EIO).

read: GETATTR, OPEN, READ, CLOSE. write in place: OPEN, LOCK, GETATTR, GETATTR, WRITE, LOCKU, CLOSE; update: a READ
more. On v4 each LOCKU brings a FREE_STATEID, for which nobody waits; on v3 there is no OPEN and no CLOSE, but a
GETATTR for each opening, and locks are a protocol of their own. A new name is 18 requests on v4, 22 on v3 (a file
made, locked, written, looked up, linked, read, removed where it was made, released); to remove one is 14 and 9,
to replace a file 27 and 21 (see `nfs_replace`). `tests/nfs/test_costs.py` counts them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from zlib import crc32

from psync.engine.contract.values import Cell, Version
from psync.engine.directory.cells.local import Cells
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.nfs_files import NfsFiles
from psync.engine.directory.fs.nfs_lookup import check_lock, status_now
from psync.engine.directory.fs.permissions import check_kind
from psync.engine.directory.fs.syscalls import (
    CHANGE,
    READ,
    close,
    is_regular,
    let_go,
    link,
    lock,
    read_all,
    with_folder,
)
from psync.engine.directory.layout import decided_path
from psync.engine.encoding.framing import CELL_HEAD, Unreadable, frame, header_of, unframe

FIRST_READ_BYTES = 8192
"""Bytes of the first read of a file, before its length is known."""
MAX_DEAD_OPENS = 100
"""Openings in a row that may lead to the same dead file before that is an error."""


class NetworkCells(Cells):
    def __init__(self, can: Capabilities, fs: NfsFiles) -> None:
        super().__init__(can, fs)
        self._replacements = fs.replacements
        self._lookups = fs.lookups
        self._direct = fs.direct

    # -- reading -------------------------------------------------------------------------------------

    def read(self, path: str, known: Cell | None) -> Cell | None:
        """GETATTR, OPEN, READ, CLOSE; a longer value takes more READs."""
        try:
            for _ in range(4):
                data = self._content(self._replacements.open(path, READ | self._direct), path)
                if data is None:
                    continue
                try:
                    payload = unframe(data)
                except Unreadable:
                    continue  # the read met the middle of a write
                if payload is None:
                    break
                if known is not None and known.payload == payload:
                    return known
                return Cell(payload, _version(data))
            return self._read_locked(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def _content(self, fd: int, path: str) -> bytes | None:
        """The content of an open file, which is closed, or of its successor; None: open the name again."""
        try:
            data = self._bytes(fd, path)
            successor = None if data else self._replacements.open_successor(path, fd, READ | self._direct)
        finally:
            close(fd)
        if successor is not None:
            try:
                data = self._bytes(successor, path)
            finally:
                close(successor)
        if not data:
            self._lookups.renew(path)
            return None
        return data

    def _bytes(self, fd: int, path: str) -> bytes:
        try:
            self._trust.check_file(path, os.fstat(fd))
            data = os.pread(fd, FIRST_READ_BYTES, 0)
            head = header_of(data)
            if len(data) == FIRST_READ_BYTES:
                size = status_now(fd).st_size
                wanted = size if head is None else min(size, CELL_HEAD + head.length)
                data += read_all(fd, max(wanted - FIRST_READ_BYTES, 0), FIRST_READ_BYTES)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return b""
        return data

    # -- changing ------------------------------------------------------------------------------------

    def _held(self, path: str, flags: int = CHANGE) -> tuple[int, os.stat_result] | None:
        """See `open_locked`. Repeated while the name leads to another file each time: then others make progress."""
        led_to = again = 0
        while again < MAX_DEAD_OPENS:
            try:
                fd = self._replacements.open(path, flags | self._direct, sure=False)
            except FileNotFoundError:
                return None
            before = led_to
            try:
                led_to = os.fstat(fd).st_ino
                lock(fd, fcntl.LOCK_SH if flags == READ else fcntl.LOCK_EX)
                status = self._lookups.is_live(path, fd)
                if status is not None:
                    if not is_regular(status):
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                    # emptied, or with another link: a replacement may be under way, which has to be finished first
                    if (status.st_size and status.st_nlink == 1) or not self._replacements.finish(path):
                        return fd, status
            except OSError as error:
                let_go(fd)
                if error.errno != errno.ESTALE:
                    raise
            except BaseException:
                let_go(fd)
                raise
            else:
                let_go(fd)
            if not self._replacements.finish(path) and not self._lookups.renew(path):
                return None
            again = again + 1 if led_to == before else 0
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    def write(self, path: str, payload: bytes) -> None:
        """OPEN, LOCK, GETATTR, GETATTR, WRITE, LOCKU, CLOSE in place."""
        self._write_locked(path, payload)

    def create(self, path: str, payload: bytes) -> bool:
        """GETATTR, LOOKUP when there is such a name; else what a new file takes."""
        data: bytes | None = None
        while True:
            self._lookups.ask(os.path.dirname(path))
            try:
                status = os.lstat(path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                    raise
            else:
                check_kind(path, status)
                return False
            if os.path.lexists(decided_path(path)) and self._replacements.finish(path):
                return False
            self._refuse_first_value(path)
            data = data or frame(payload)
            if self._fs.make(path, data, replaced=True):
                return True

    def _rename(self, path: str, new: str, fd: int, status: os.stat_result) -> None:
        """Link and unlink: NFS knows no rename that never replaces. Killed in between, both names have the value."""
        data = read_all(fd, status.st_size)
        with_folder(new, lambda: self._link_to_free(path, new, fd), self._trust.access)
        os.unlink(path)
        let_go(self._fs.replace(new, fd, data).fd)

    def _link_to_free(self, path: str, new: str, old: int) -> None:
        check_lock(old)
        # EEXIST because of its own first request, whose reply was lost, is no failure
        if not link(path, new) and (path == new or not self._lookups.leads_to(new, os.fstat(old), sure=True)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
        if not self._replacements.is_alone(new, old):
            self._replacements.finish(new)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)

    def _version_now(self, data: bytes, status: os.stat_result) -> Version:
        return _version(data)


def _version(data: bytes) -> Version:
    """A version that tells contents apart: checksum and length."""
    head = header_of(data)
    return (head.crc, head.length, 0) if head is not None else (crc32(data), len(data), 1)
