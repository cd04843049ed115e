"""A bucket is one file that is, at every instant, one pickled dict; an append is a tail and one flipped byte.

The file is kept open; `flock` on it decides among those who change it, and a file without a name left
(`st_nlink` 0) is dead: whoever holds it open opens the name anew. An append is flock, fstat, pwrite,
unlock. The fact that decides is the write of the old STOP byte: alone, after the tail, when the
tail runs over the end of a page; in one `pwrite` with it otherwise (whole or not under SIGKILL).

What a writer knows of a file it has seen is where it ended and the checksum up to there, so it verifies only
what others appended since. Readers take no lock unless the end does not fit: then somebody is in the
middle of a long append, or was killed there; under the lock such a tail is known to be dead.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, LOCK_UN, flock

from psync.engine import foreign
from psync.engine.contract import Bucket, HeldBucket, Position, Tail
from psync.engine.directory.files import (
    CHANGE,
    READ,
    let_go,
    read_all,
    refused,
    remove_empty,
    write_all,
)
from psync.engine.directory.kept import Kept
from psync.engine.directory.names import Layout
from psync.engine.directory.together import Together
from psync.engine.directory.whole import Whole
from psync.engine.seal import (
    BUCKET_HEAD,
    End,
    Unreadable,
    committed,
    extension,
    flags_of,
    follow,
    is_bucket,
    start,
    unseal,
    whole_bucket,
)
from psync.errors import CorruptValue

PAGE = 4096
MUCH, PICKLE = 1 << 16, b"\x80"
"""A file of so many bytes is looked at first: does it begin as a pickle?"""
_opened = itertools.count(1)


class _Open:
    """A bucket file kept open: its descriptor, what identifies it, and how far its content is known to be good."""

    __slots__ = ("failed", "fd", "flags", "identity", "known", "refusal")

    def __init__(self, fd: int, refusal: OSError | None = None) -> None:
        self.fd = fd
        self.identity = (next(_opened),)  # inode numbers are used again; this is not
        self.refusal = refusal  # why it is open for reading only
        self.failed = False  # what was written could not be had on the disk
        self.known: End | None = None  # None until the head was seen to be a bucket's
        self.flags = 0

    def read_from(self, since: End | None, size: int) -> tuple[bytes, End]:
        """The items behind `since` (None: all) and where they end. Raises `Unreadable`, or `_Foreign`."""
        if since is not None:
            return follow(read_all(self.fd, size - since.end + 1, since.end - 1), since)
        if size >= MUCH and os.pread(self.fd, 1, 0) != PICKLE:
            raise Unreadable("not a pickle")
        data = read_all(self.fd, size)
        if not is_bucket(data):
            raise _Foreign(data)
        self.flags = flags_of(data)
        return follow(data, start(data), BUCKET_HEAD)


def _identity_of_foreign(file: _Open) -> tuple[int, ...]:
    """What others write in place shows in the file's times."""
    status = os.fstat(file.fd)
    return *file.identity, status.st_ctime_ns, status.st_size


class _Foreign(Exception):
    """The file is not a growing bucket but something complete: `data`."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class DirectoryBucket(Bucket):
    """One bucket of a directory. Threads may share it; a forked child must not (the engine sees to that)."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        whole: Whole,
        *,
        changed: Callable[[], None],
        damaged: Callable[[str, str], CorruptValue],
        together: Together,
        kept: Kept,
    ) -> None:
        self._name = name
        self._path = layout.path(name)
        self._damaged = damaged
        self._whole = whole
        self._changed = changed
        self._together = together
        self._kept = kept
        self._open: _Open | None = None
        self._threads = threading.Lock()  # flock does not tell threads apart that share a descriptor

    def close_if_idle(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        try:
            self._close()
        finally:
            self._threads.release()
        return True

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open.fd)
            self._open = None

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._threads = threading.Lock()
        self._close()

    # -- opening -------------------------------------------------------------------------------------

    def _attach(self) -> tuple[_Open, os.stat_result] | None:
        """The file at the path now, kept open; None if there is none."""
        file = self._open
        if file is not None:
            status = self._status(file.fd)
            if status is not None and (file.refusal is None or not self._may_change()):
                return file, status
            self._close()
        refusal = None
        try:
            fd = self._whole.open(self._path, CHANGE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            try:
                fd = self._whole.open(self._path, READ)  # enough for who only reads
            except OSError:
                raise error from None
            refusal = error
        status = self._status(fd)
        if status is None:  # it was removed meanwhile
            os.close(fd)
            shared = self._whole.shared
            return self._attach() if shared is None or shared.lookups.renew(self._path) else None
        try:
            self._whole.trust.check_kept(self._path, status)
        except BaseException:
            os.close(fd)
            raise
        self._open = file = _Open(fd, refusal)
        self._kept.opened(self)
        return file, status

    def _status(self, fd: int) -> os.stat_result | None:
        """The status of an open file; None if it is not the bucket any more. fstat; on a network file system GETATTR
        of the file and of its folder."""
        shared = self._whole.shared
        if shared is not None:
            return shared.lookups.is_live(self._path, fd)
        status = os.fstat(fd)
        return status if status.st_nlink else None

    def _may_change(self) -> bool:
        """Whether what was refused before is allowed by now."""
        try:
            os.close(os.open(self._path, CHANGE))
        except OSError:
            return False
        return True

    def _attach_locked(self) -> tuple[_Open, os.stat_result] | None:
        """The same, locked: nobody can change or remove it until `_unlock`."""
        while True:
            file = self._open
            if file is None or file.refusal is not None:
                attached = self._attach()
                if attached is None:
                    return None
                file = attached[0]
            fd = file.fd
            try:
                flock(fd, LOCK_EX)  # in here, because a signal's handler may raise when it is locked
                status = self._status(fd)
                if status is not None:
                    if file.failed:
                        file = self._renewed(file, status.st_size)
                        status = os.fstat(file.fd)
                    return file, status
            except BaseException as error:
                if isinstance(error, OSError) and error.errno == errno.ESTALE:
                    self._close()
                    continue
                self._unlock(file)
                raise
            self._unlock(file)
            self._close()

    def _unlock(self, file: _Open) -> None:
        try:
            flock(file.fd, LOCK_UN)
        except OSError:
            self._close()  # which unlocks it too
        except BaseException:  # a signal's handler came by an audit hook, before the kernel was asked
            flock(file.fd, LOCK_UN)
            raise

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
            raise refused(error, self._name, self._path) from error
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

    def _tail(self, file: _Open, size: int, since: Position | None) -> Tail:
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
        except _Foreign as found:
            return self._foreign_tail(found.data, identity)
        file.known = end
        return Tail(ops, Position(file.identity, end.end, end.check), begin is None, file.flags)

    def _foreign_tail(self, data: bytes, identity: tuple[int, ...]) -> Tail:
        """One complete pickle, written by something else than an append; read anew each time."""
        payload = unseal(data)
        if payload is None:
            foreign.check(data)
            payload = data
        return Tail(payload, Position(identity, 0, 0), True, 0, foreign=True)

    def _settled_tail(self, file: _Open, size: int, since: Position | None) -> Tail:
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
                raise refused(error, self._name, self._path) from error
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
        return self._whole.make(self._path, whole_bucket(ops, 0)[0])

    def _extend(self, file: _Open, size: int, ops: bytes) -> bool:
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
            if at % PAGE + len(tail) <= PAGE and not self._whole.sync_file:
                if os.pwrite(file.fd, tail, at) != len(tail):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                write_all(file.fd, tail[1:], known.end)
                if self._whole.sync_file:
                    self._sync(file)
                os.pwrite(file.fd, tail[:1], at)
                if self._whole.sync_name:
                    self._sync(file)
        except BaseException:
            self._undo(file, known)
            raise
        file.known = end
        return True

    def _sync(self, file: _Open) -> None:
        try:
            os.fdatasync(file.fd)
        except OSError:
            file.failed = True
            raise

    def _renewed(self, file: _Open, size: int) -> _Open:
        """While locked: a new file with the same in it, in place of one whose disk failed. Asked again, the kernel
        would say that all is well, for it has given up what it could not write."""
        data = read_all(file.fd, size)
        return self._replace(file, data[: committed(data).end], durable=True) if is_bucket(data) else file

    def secure(self) -> None:
        self._whole.secure(self._path)

    def _replace(self, file: _Open, data: bytes, durable: bool) -> _Open:
        """While locked: the name goes to a new file, which is locked too; who waited for the old one finds it dead."""
        alone = self._whole.prove(file.fd)
        new = self._whole.replace(self._path, data, durable=durable)
        # first, because a signal's handler may raise when the old one is closed
        self._open = opened = _Open(new.keep())
        if alone:
            self._whole.bury(file.fd)
        let_go(file.fd)
        return opened

    def _undo(self, file: _Open, known: End) -> None:
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
            if self._whole.sync_file:
                self._sync(file)
        except BaseException:
            self._undo(file, known)
            raise
        return known.end, known.check, tail[0]

    def commit(self, prepared: tuple[int, int, int]) -> None:
        file = self._open
        assert file is not None
        os.pwrite(file.fd, bytes((prepared[2],)), prepared[0] - 1)
        if self._whole.sync_file:
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
                held = _Held(self, *attached)
                try:
                    yield held
                finally:
                    if self._open is not None:
                        self._unlock(self._open)
        except OSError as error:
            raise refused(error, self._name, self._path) from error
        except _HeldUnreadable as error:
            if error.bucket is not self:
                raise  # another bucket that is held too: let go of this one, its own block reports it
            raise self._damaged(self._name, str(error)) from error
        except Unreadable as error:
            raise self._damaged(self._name, str(error)) from error
        if held.changed:
            self._changed()


class _HeldUnreadable(Exception):
    """A held bucket fails its check; reported when it is let go, because setting it aside takes its lock."""

    def __init__(self, bucket: DirectoryBucket, reason: str) -> None:
        super().__init__(reason)
        self.bucket = bucket


class _Held(HeldBucket):
    def __init__(self, bucket: DirectoryBucket, file: _Open, status: os.stat_result) -> None:
        self._bucket = bucket
        self.file = file
        self._size: int | None = status.st_size
        """Of the file, while that is certain: nobody else changes it."""
        self.changed = False

    def _known_size(self) -> int:
        size, self._size = self._size, None
        return os.fstat(self.file.fd).st_size if size is None else size

    def tail(self, since: Position | None = None) -> Tail:
        size = self._known_size()
        try:
            tail = self._bucket._settled_tail(self.file, size, since)
        except Unreadable as error:
            raise _HeldUnreadable(self._bucket, str(error)) from error
        if not tail.foreign and tail.position.end == size:
            self._size = size
        return tail

    def append(self, ops: bytes) -> Position:
        try:
            extended = self._bucket._extend(self.file, self._known_size(), ops)
        except Unreadable as error:
            raise _HeldUnreadable(self._bucket, str(error)) from error
        if not extended:
            raise ValueError("a foreign pickle can't be extended: replace it")
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
        whole = self._bucket._whole
        if whole.remove(self._bucket._path, self.file.fd):
            whole.bury(self.file.fd)
        self.changed = True
