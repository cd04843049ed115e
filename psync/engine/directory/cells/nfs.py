"""Cells on a network file system: the same files and the same locks, but nothing that this host remembers is believed.

What `cells` says holds here, too; beside it:

* A file's content is read and written with O_DIRECT (NFS), or read after opening (elsewhere); what a name leads to is
  asked of the server (`lookups`). A value read before is current if what is there now is the same, byte for byte: time
  stamps are the server's, and coarse.
* Who has a file's lock has seen *after* locking that the name still leads to it, by asking. A file that is removed or
  replaced is emptied while it is locked (`lookups.bury`).
* Before a name is given away the lock is tried: a host that was cut off for longer than the server's lease (90 s) has
  lost it, its kernel knows, and fails each access through that descriptor (EIO).

read: GETATTR, OPEN, READ, CLOSE. write in place: OPEN, LOCK, GETATTR, GETATTR, WRITE, LOCKU, CLOSE; update: a READ
more. On v4 each LOCKU brings a FREE_STATEID, for which nobody waits; on v3 there is no OPEN and no CLOSE, but a
GETATTR for each opening, and locks are a protocol of their own. A new name is NEW4 requests on v4, NEW3 on v3 (a file
made, locked, written, asked for, linked, looked at, removed where it was made, let go of); to remove one is 14 and 9,
to replace a file LARGE4 and LARGE3 (see `nfs_replace`). `tests/nfs/test_costs.py` counts them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from zlib import crc32

from psync.engine.contract.values import Cell, Version
from psync.engine.directory.cells.local import SMALL, Cells, examine
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.capabilities import Capabilities
from psync.engine.directory.fs.nfs_lookup import status_now
from psync.engine.directory.fs.permissions import no_file
from psync.engine.directory.fs.syscalls import (
    CHANGE,
    READ,
    Shared,
    close,
    is_regular,
    let_go,
    link,
    lock,
    read_all,
    with_folder,
)
from psync.engine.directory.layout import decided_path, may_be_bucket
from psync.engine.encoding.framing import CELL_HEAD, Unreadable, frame, frame_parts, header_of, unframe

FIRST = 8192
"""Bytes that are read of a file before it is known how long it is."""
TRIES = 100
"""How often in a row a name may lead to the same file that is dead, whatever the server was asked."""


class NetworkCells(Cells):
    def __init__(self, can: Capabilities, fs: AtomicFiles, shared: Shared) -> None:
        super().__init__(can, fs)
        assert fs.replacements is not None
        self._replacements = fs.replacements
        self._lookups, direct = shared
        self._read, self._change = READ | direct, CHANGE | direct

    # -- reading -------------------------------------------------------------------------------------

    def read(self, path: str, known: Cell | None) -> Cell | None:
        """GETATTR, OPEN, READ, CLOSE; what is longer takes more READs."""
        try:
            for _ in range(4):
                data = self._content(self._replacements.open(path, self._read), path)
                if data is None:
                    continue
                try:
                    payload = unframe(data)
                except Unreadable:
                    continue  # a writer was in the middle of it
                if payload is None:
                    break
                if known is not None and known.payload == payload:
                    return known
                return Cell(payload, _version(data))
            return self._read_locked(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def _content(self, fd: int, path: str) -> bytes | None:
        """What is in an open file, which is closed, or in the one that replaces it; None: look for it again."""
        try:
            data = self._bytes(fd, path)
            successor = None if data else self._replacements.open_successor(path, fd, self._read)
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
            data = os.pread(fd, FIRST, 0)
            head = header_of(data)
            if len(data) == FIRST:
                size = status_now(fd).st_size
                wanted = size if head is None else min(size, CELL_HEAD + head.length)
                data += read_all(fd, max(wanted - FIRST, 0), FIRST)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return b""
        return data

    def _read_locked(self, path: str) -> Cell | None:
        found = self._held_value(path, self._read)
        if found is None:
            return None
        fd, status = found
        try:
            self._trust.check_file(path, status)
            data = read_all(fd, status.st_size)
            return examine(data, _version(data))
        finally:
            let_go(fd)

    # -- changing ------------------------------------------------------------------------------------

    def _held(self, path: str, flags: int = 0) -> tuple[int, os.stat_result] | None:
        """Tried for as long as the name leads to another file each time: then it is others who get on."""
        led_to = again = 0
        while again < TRIES:
            try:
                fd = self._replacements.open(path, flags or self._change, sure=False)
            except FileNotFoundError:
                return None
            before = led_to
            try:
                led_to = os.fstat(fd).st_ino
                lock(fd, fcntl.LOCK_SH if flags == self._read else fcntl.LOCK_EX)
                status = self._lookups.is_live(path, fd)
                if status is not None:
                    if not is_regular(status):
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                    # emptied, or with another link: perhaps it is being replaced, or gives way to who replaced it
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

    def _held_value(self, path: str, flags: int = 0) -> tuple[int, os.stat_result] | None:
        try:
            return self._held(path, flags)
        except (NotADirectoryError, IsADirectoryError):
            return None

    def write(self, path: str, payload: bytes) -> None:
        """OPEN, LOCK, GETATTR, GETATTR, WRITE, LOCKU, CLOSE in place."""
        if not self._in_place or len(payload) > SMALL or may_be_bucket(path):
            self._write_whole(path, frame_parts(payload))
            return
        if not self._trust.closed:
            self._trust.check_folder(os.path.dirname(path))
        data = frame(payload)
        while True:
            found = self._held(path)
            if found is None:
                if self._fs.make(path, data, replaced=True):
                    return
                continue
            fd, status = found
            try:
                if status.st_nlink == 1:
                    self._put(fd, data, status, path)
                else:  # under its other names it stays as it is
                    self._replace(path, frame_parts(payload), fd)
                return
            finally:
                let_go(fd)

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
                if stat.S_ISDIR(status.st_mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                if not is_regular(status):
                    raise no_file(path, status).error()
                return False
            if os.path.lexists(decided_path(path)) and self._replacements.finish(path):
                return False
            data = data or frame(payload)
            if self._fs.make(path, data, replaced=True):
                return True

    def move(self, path: str, new: str) -> bool:
        """Link and unlink: NFS knows no rename that never replaces. Killed in between, both names have the value."""
        found = self._held_value(path)
        if found is None:
            return False
        fd, status = found
        try:
            self._trust.check_file(path, status)
            data = read_all(fd, status.st_size)
            with_folder(new, lambda: self._link_to_free(path, new, fd), self._trust.access)
            os.unlink(path)
            # who waits for the lock of the old file must find it dead, not at its new name
            let_go(self._fs.replace(new, fd, data).fd)
        finally:
            let_go(fd)
        self._fs.renamed(path)
        return True

    def _link_to_free(self, path: str, new: str, old: int) -> None:
        self._fs.prove(old)
        # a link that is in the way of itself: the reply to the first request was lost
        if not link(path, new) and (path == new or not self._lookups.leads_to(new, os.fstat(old), sure=True)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
        if not self._replacements.is_alone(new, old):
            self._replacements.finish(new)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)

    def _may_be(self, seen: Version, fd: int, status: os.stat_result) -> bool:
        return _version(read_all(fd, status.st_size)) == seen


def _version(data: bytes) -> Version:
    """What a file holds, in short."""
    head = header_of(data)
    return (head.crc, head.length, 0) if head is not None else (crc32(data), len(data), 1)
