"""Bucket: a file that is one pickled dict at every instant; an append writes a tail and replaces one byte.

The file stays open (see `BucketFile`); `flock` on it excludes other writers. An append is flock, fstat, pwrite, unlock.
The fact that decides is the write over the old STOP byte: in one `pwrite` with the tail (whole or not at all under
SIGKILL), or, if the tail crosses the end of a page, alone and after the tail.

A process remembers where a file ended and the checksum up to there, so it verifies only what others appended since.
Readers take no lock unless the end fails its check: then a writer is in the middle of a long append, or was killed
there. Under the lock no writer is at work, so such a tail is dead.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from psync.engine.contract.bucket import ForeignBucket, HeldBucket, Position, Tail
from psync.engine.directory.buckets.file import BucketFile, Foreign, OpenBucket
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.syscalls import is_no_pickle, read_all, remove_empty, write_all
from psync.engine.encoding import pickle_scan
from psync.engine.encoding.framing import (
    BUCKET_HEAD,
    End,
    Unreadable,
    committed,
    extension,
    is_bucket,
    unframe,
    whole_bucket,
)
from psync.engine.system.reentry import catch_up, postponed, reentrant

PAGE = 4096
Prepared = tuple[int, int, int]
"""Where a bucket ended, its checksum up to there, and the byte that commits what was written behind."""


class DirectoryBucket(BucketFile):
    """One bucket of a directory. Threads may share it; a forked child must not (the engine sees to that)."""

    # -- reading -------------------------------------------------------------------------------------

    def tail(self, since: Position | None = None) -> Tail | None:
        """fstat when nothing is new; else fstat, pread. The first call also opens the file."""
        section = self._section
        if section.is_mine():  # `with section`, written out: this is a hot path
            raise reentrant(section.what)
        try:
            with section.lock:
                attached = self._attach()
                if attached is None:
                    return None
                file, status = attached
                try:
                    return self._tail(file, status.st_size, since)
                except (Unreadable, OSError) as error:
                    # NFS says ESTALE if another host removed the file between two of these requests
                    if isinstance(error, OSError) and error.errno != errno.ESTALE:
                        raise
                    return self._tail_locked(since)
        except IsADirectoryError:
            return None
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error
        except Unreadable as error:
            raise self._damaged(self._name, error) from error
        finally:
            if postponed:
                catch_up()

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
        """One complete pickle that no append wrote (`Tail.foreign`); it is read anew each time."""
        payload = unframe(data)
        if payload is None:
            pickle_scan.check_whole(data)
            payload = data
        return Tail(payload, Position(identity, 0, 0), True, 0, foreign=True)

    def _settled_tail(self, file: OpenBucket, size: int, since: Position | None) -> Tail:
        """While locked: commit a tail that an intent record decided, and cut off one whose writer was killed before."""
        try:
            return self._tail(file, size, since)
        except Unreadable:
            if is_no_pickle(file.fd, size):
                raise
            data = read_all(file.fd, size)
            if not is_bucket(data):
                raise
            end = committed(data)
            commit_byte = self._commit_byte_for(self._name, data, end)
            if commit_byte is None or file.refusal is not None:
                size = end.end
                if file.refusal is None:
                    os.ftruncate(file.fd, size)
            else:
                os.pwrite(file.fd, commit_byte, end.end - 1)
            return self._tail(file, size, since if since is not None and since.end <= end.end else None)

    def is_foreign(self) -> bool:
        """fstat, pread; the first call also opens the file. A bucket whose head is damaged counts as foreign."""
        try:
            with self._section, self._section.lock:
                attached = self._attach()
                return attached is not None and not is_bucket(os.pread(attached[0].fd, BUCKET_HEAD, 0))
        except IsADirectoryError:
            return False
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error

    # -- changing ------------------------------------------------------------------------------------

    def append(self, ops: bytes) -> int:
        section = self._section
        if section.is_mine():  # `with section`, written out: this is a hot path
            raise reentrant(section.what)
        try:
            with section.lock:
                done = self._append(ops)
        except OSError as error:
            if not remove_empty(self._path):
                raise translate_os_error(error, self._name, self._path) from error
            return self.append(ops)
        except Unreadable as error:
            raise self._damaged(self._name, error) from error
        finally:
            if postponed:
                catch_up()
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
            known = self._settled_end(file, size)
            if known is None:
                return False
        tail, end = extension(ops, known)
        at = known.end - 1
        try:
            if at % PAGE + len(tail) <= PAGE and not self._fs.sync_file:
                if os.pwrite(file.fd, tail, at) != len(tail):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                # the tail first, and on the disk: no reader takes it for the bucket's before the STOP byte is replaced
                self._write_tail(file, tail, known)
                os.pwrite(file.fd, tail[:1], at)  # decides
                if self._fs.sync_name:
                    self._sync(file)
        except BaseException:
            self._undo(file, known)
            raise
        file.known = end
        return True

    def _settled_end(self, file: OpenBucket, size: int) -> End | None:
        """While locked: where the bucket ends; None if the file is not a bucket."""
        tail = self._settled_tail(file, size, file.known and Position(file.identity, *file.known))
        return None if tail.foreign else file.known

    def _write_tail(self, file: OpenBucket, tail: bytes, known: End) -> None:
        """Write a tail without the byte that commits it."""
        write_all(file.fd, tail[1:], known.end)
        if self._fs.sync_file:
            self._sync(file)

    def _drop(self, file: OpenBucket) -> None:
        """While locked: remove the file."""
        self._fs.remove(self._path, file.fd)

    def _sync(self, file: OpenBucket) -> None:
        try:
            os.fdatasync(file.fd)
        except OSError:
            file.failed = True
            raise

    def secure(self) -> None:
        self._fs.secure(self._path)

    def _undo(self, file: OpenBucket, known: End) -> None:
        """After a failed write: restore the STOP byte, then cut the tail off. A kill in between leaves a dead tail."""
        file.known = None
        os.pwrite(file.fd, b".", known.end - 1)
        os.ftruncate(file.fd, known.end)

    # -- in a transaction (see `MultiAppend`) --------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out for `prepare`, `commit` and `abandon`; creates the bucket if there is none."""
        with self._section, self._section.lock:
            while (attached := self._attach_locked()) is None:
                self._make(b"")
            try:
                yield
            finally:
                self._unlock(attached[0])
        self._changed()

    def prepare(self, ops: bytes) -> Prepared:
        """Append `ops`, but do not write the byte that commits them."""
        file = self._open
        assert file is not None
        if file.refusal is not None:
            raise file.refusal
        known = self._settled_end(file, os.fstat(file.fd).st_size)
        if known is None:
            raise ForeignBucket(self._name)
        tail, _ = extension(ops, known)
        try:
            self._write_tail(file, tail, known)
        except BaseException:
            self._undo(file, known)
            raise
        return known.end, known.check, tail[0]

    def commit(self, prepared: Prepared) -> None:
        """Write that byte: readers see the append from now on."""
        file = self._open
        assert file is not None
        os.pwrite(file.fd, bytes((prepared[2],)), prepared[0] - 1)
        if self._fs.sync_file:
            self._sync(file)

    def abandon(self) -> None:
        """Cut off what was prepared."""
        file = self._open
        if file is not None and file.known is not None:
            self._undo(file, file.known)

    # -- held ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldBucket | None]:
        try:
            with self._section, self._section.lock:
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
        except Unreadable as error:
            if isinstance(error, HeldUnreadable) and error.bucket is not self:
                raise  # it is another held bucket's error, which its own block reports after this one is released
            raise self._damaged(self._name, error) from error
        if held.changed:
            self._changed()


def _identity_of_foreign(file: OpenBucket) -> tuple[int, ...]:
    """Identify a foreign file by its times and size too: other programs may write it in place."""
    status = os.fstat(file.fd)
    return *file.identity, status.st_ctime_ns, status.st_size


class HeldUnreadable(Unreadable):
    """A held bucket fails its check. It is reported when the bucket is released: quarantining it takes its lock."""

    def __init__(self, bucket: DirectoryBucket, error: Unreadable) -> None:
        super().__init__(str(error), foreign=error.foreign)
        self.bucket = bucket


class Held(HeldBucket):
    """A locked bucket: nobody else can change it, so its size is known without a system call."""

    def __init__(self, bucket: DirectoryBucket, file: OpenBucket, status: os.stat_result) -> None:
        self._bucket = bucket
        self.file = file
        self._size: int | None = status.st_size
        """The size of the file while it is certain; None after a change whose outcome is unknown."""
        self.changed = False

    def _known_size(self) -> int:
        size, self._size = self._size, None
        return os.fstat(self.file.fd).st_size if size is None else size

    def tail(self, since: Position | None = None) -> Tail:
        size = self._known_size()
        try:
            tail = self._bucket._settled_tail(self.file, size, since)
        except Unreadable as error:
            raise HeldUnreadable(self._bucket, error) from error
        if not tail.foreign and tail.position.end == size:
            self._size = size
        return tail

    def append(self, ops: bytes) -> Position:
        try:
            extended = self._bucket._extend(self.file, self._known_size(), ops)
        except Unreadable as error:
            raise HeldUnreadable(self._bucket, error) from error
        if not extended:
            raise ForeignBucket("a held bucket")
        self.changed = True
        known = self.file.known
        assert known is not None
        self._size = known.end
        return Position(self.file.identity, known.end, known.check)

    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        self._size = None
        self.file = self._bucket._replace(self.file, whole_bucket(ops, flags)[0], durable)
        self.changed = True

    def secure(self) -> None:
        self._bucket.secure()

    def drop(self) -> None:
        self._bucket._drop(self.file)
        self.changed = True
