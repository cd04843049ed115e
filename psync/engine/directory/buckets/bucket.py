"""A bucket is one file that is, at every instant, one pickled dict; an append is a tail and one flipped byte.

The file is kept open (see `bucket_file`); `flock` on it decides among those who change it. An append is flock, fstat,
pwrite, unlock. The fact that decides is the write of the old STOP byte: alone, after the tail, when the
tail runs over the end of a page; in one `pwrite` with it otherwise (whole or not under SIGKILL).

What a writer knows of a file it has seen is where it ended and the checksum up to there, so it verifies only
what others appended since. Readers take no lock unless the end does not fit: then somebody is in the
middle of a long append, or was killed there; under the lock such a tail is known to be dead.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from psync.engine.contract.bucket import HeldBucket, Position, Tail
from psync.engine.directory.buckets.file import MUCH, PICKLE, BucketFile, Foreign, OpenBucket
from psync.engine.directory.buckets.held import Held, HeldUnreadable
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.syscalls import read_all, remove_empty, write_all
from psync.engine.encoding import pickle_scan
from psync.engine.encoding.framing import End, Unreadable, committed, extension, is_bucket, unframe, whole_bucket

PAGE = 4096


class DirectoryBucket(BucketFile):
    """One bucket of a directory. Threads may share it; a forked child must not (the engine sees to that)."""

    # -- reading -------------------------------------------------------------------------------------

    def tail(self, since: Position | None = None) -> Tail | None:
        """fstat when nothing is new; else fstat, pread. A first look also opens the file."""
        try:
            with self._threads:
                attached = self._attach()
                if attached is None:
                    return None
                file, status = attached
                try:
                    return self._tail(file, status.st_size, since)
                except Unreadable:
                    return self._tail_locked(since)
                except OSError as error:
                    if error.errno != errno.ESTALE:
                        raise
                    return self._tail_locked(since)  # NFS: it was removed on another host in the middle of this
        except IsADirectoryError:
            return None
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error
        except Unreadable as error:
            raise self._damaged(self._name, str(error)) from error

    def _tail_locked(self, since: Position | None) -> Tail | None:
        attached = self._attach_locked()
        if attached is None:
            return None
        file, status = attached
        try:
            return self._settled_tail(file, status.st_size, since)
        finally:
            self._unlock(file)

    def _tail(self, file: OpenBucket, size: int, since: Position | None) -> Tail:
        begin = None
        if since is not None and len(since.identity) > 1 and since.identity == _identity_of_foreign(file):
            return Tail(b"", since, False, 0, foreign=True)
        if since is not None and since.identity == file.identity and since.end <= size:
            begin = End(since.end, since.check)
            if since.end == size:
                return Tail(b"", since, False, file.flags)
        identity = () if file.known is not None else _identity_of_foreign(file)  # before it is read
        try:
            ops, end = file.read_from(begin, size)
        except Foreign as found:
            return self._foreign_tail(found.data, identity)
        file.known = end
        return Tail(ops, Position(file.identity, end.end, end.check), begin is None, file.flags)

    def _foreign_tail(self, data: bytes, identity: tuple[int, ...]) -> Tail:
        """One complete pickle, written by something else than an append; read anew each time."""
        payload = unframe(data)
        if payload is None:
            pickle_scan.check(data)
            payload = data
        return Tail(payload, Position(identity, 0, 0), True, 0, foreign=True)

    def _settled_tail(self, file: OpenBucket, size: int, since: Position | None) -> Tail:
        """While locked: a tail whose writer was killed before the flip is cut off."""
        try:
            return self._tail(file, size, since)
        except Unreadable:
            if size >= MUCH and os.pread(file.fd, 1, 0) != PICKLE:
                raise
            data = read_all(file.fd, size)
            if not is_bucket(data):
                raise
            end = committed(data)
            flip = self._together.flip_for(self._name, data, end)
            if flip is None or file.refusal is not None:
                size = end.end
                if file.refusal is None:
                    os.ftruncate(file.fd, size)
            else:
                os.pwrite(file.fd, flip, end.end - 1)
            return self._tail(file, size, since if since is not None and since.end <= end.end else None)

    # -- changing ------------------------------------------------------------------------------------

    def append(self, ops: bytes) -> int:
        try:
            with self._threads:
                done = self._append(ops)
        except OSError as error:
            if not remove_empty(self._path):
                raise translate_os_error(error, self._name, self._path) from error
            return self.append(ops)
        except Unreadable as error:
            raise self._damaged(self._name, str(error)) from error
        if done:
            self._changed()
        return done

    def _append(self, ops: bytes) -> int:
        while True:
            attached = self._attach_locked()
            if attached is None:
                if self._make(ops):
                    return len(ops) + 1
                continue
            file, status = attached
            try:
                return status.st_size + len(ops) if self._extend(file, status.st_size, ops) else 0
            finally:
                self._unlock(file)

    def _make(self, ops: bytes) -> bool:
        return self._fs.make(self._path, whole_bucket(ops, 0)[0], replaced=True)

    def _extend(self, file: OpenBucket, size: int, ops: bytes) -> bool:
        """While locked: the dict grows by `ops`. False if the file is not a bucket."""
        if file.refusal is not None:
            raise file.refusal
        known = file.known
        if known is None or known.end != size:
            if self._settled_tail(file, size, known and Position(file.identity, *known)).foreign:
                return False
            known = file.known
            assert known is not None
        tail, end = extension(ops, known)
        at = known.end - 1
        try:
            if at % PAGE + len(tail) <= PAGE and not self._fs.sync_file:
                if os.pwrite(file.fd, tail, at) != len(tail):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                write_all(file.fd, tail[1:], known.end)
                if self._fs.sync_file:
                    self._sync(file)
                os.pwrite(file.fd, tail[:1], at)
                if self._fs.sync_name:
                    self._sync(file)
        except BaseException:
            self._undo(file, known)
            raise
        file.known = end
        return True

    def _sync(self, file: OpenBucket) -> None:
        try:
            os.fdatasync(file.fd)
        except OSError:
            file.failed = True
            raise

    def secure(self) -> None:
        self._fs.secure(self._path)

    def _undo(self, file: OpenBucket, known: End) -> None:
        """After a failed write: the old end is the end again."""
        file.known = None
        os.pwrite(file.fd, b".", known.end - 1)
        os.ftruncate(file.fd, known.end)

    # -- growing together with others (see `together`) -------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """For `prepare`, `commit` and `abandon`; makes the bucket if there is none."""
        with self._threads:
            while (attached := self._attach_locked()) is None:
                self._make(b"")
            try:
                yield
            finally:
                self._unlock(attached[0])
        self._changed()

    def prepare(self, ops: bytes) -> tuple[int, int, int]:
        """Write the tail but not the byte that commits it; returns where the bucket ends, its checksum, that byte."""
        file = self._open
        assert file is not None
        if file.refusal is not None:
            raise file.refusal
        size = os.fstat(file.fd).st_size
        if self._settled_tail(file, size, file.known and Position(file.identity, *file.known)).foreign:
            raise ValueError(f"{self._name!r} is a foreign pickle, which can't be extended: replace it")
        known = file.known
        assert known is not None
        tail, _ = extension(ops, known)
        try:
            write_all(file.fd, tail[1:], known.end)
            if self._fs.sync_file:
                self._sync(file)
        except BaseException:
            self._undo(file, known)
            raise
        return known.end, known.check, tail[0]

    def commit(self, prepared: tuple[int, int, int]) -> None:
        file = self._open
        assert file is not None
        os.pwrite(file.fd, bytes((prepared[2],)), prepared[0] - 1)
        if self._fs.sync_file:
            self._sync(file)

    def abandon(self) -> None:
        file = self._open
        if file is not None and file.known is not None:
            self._undo(file, file.known)

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        try:
            with self._threads:
                attached = self._attach_locked()
                if attached is None:
                    yield None
                    return
                held = Held(self, *attached)
                try:
                    yield held
                finally:
                    if self._open is not None:
                        self._unlock(self._open)
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error
        except HeldUnreadable as error:
            if error.bucket is not self:
                raise  # another bucket that is held too: let go of this one, its own block reports it
            raise self._damaged(self._name, str(error)) from error
        except Unreadable as error:
            raise self._damaged(self._name, str(error)) from error
        if held.changed:
            self._changed()


def _identity_of_foreign(file: OpenBucket) -> tuple[int, ...]:
    """What others write in place shows in the file's times."""
    status = os.fstat(file.fd)
    return *file.identity, status.st_ctime_ns, status.st_size
