"""Find, open, lock, read and replace the file of a bucket.

A file is dead once it has no name left (`st_nlink` 0): a process that has it open opens the name again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

from psync.engine.contract.bucket import Bucket
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.fs.syscalls import CHANGE, READ, hand_over, is_no_pickle, let_go, read_all
from psync.engine.directory.layout import Layout
from psync.engine.encoding.framing import BUCKET_HEAD, End, Unreadable, committed, flags_of, follow, is_bucket, start
from psync.engine.system.clock import monotonic
from psync.engine.system.reentry import FileSection
from psync.errors import CorruptValue

CommitByteFor = Callable[[str, bytes, End], bytes | None]
"""See `MultiAppend.commit_byte_for`."""
_opened = itertools.count(1)


class Foreign(Exception):
    """The file is not a growing bucket but something complete: `data`."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class OpenBucket:
    """A bucket file kept open: its descriptor, its identity, and the end of the content that was verified."""

    __slots__ = ("failed", "fd", "flags", "identity", "known", "refusal")

    def __init__(self, fd: int, refusal: OSError | None = None) -> None:
        self.fd = fd
        self.identity = (next(_opened),)  # unlike an inode number, never used again
        self.refusal = refusal  # why it is open for reading only
        self.failed = False  # a sync failed: the kernel has given up what it could not write
        self.known: End | None = None  # None until the head was seen to be a bucket's
        self.flags = 0

    def read_from(self, since: End | None, size: int) -> tuple[bytes, End]:
        """The items behind `since` (None: all) and where they end. Raises `Unreadable`, or `Foreign`."""
        if since is not None:
            return follow(read_all(self.fd, size - since.end + 1, since.end - 1), since)
        if is_no_pickle(self.fd, size):
            raise Unreadable("not a pickle", foreign=True)
        data = read_all(self.fd, size)
        if not is_bucket(data):
            raise Foreign(data)
        self.flags = flags_of(data)
        return follow(data, start(data), BUCKET_HEAD)


class BucketFile(Bucket):
    """The file of one bucket."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        fs: AtomicFiles,
        *,
        changed: Callable[[], None],
        damaged: Callable[[str, Unreadable], CorruptValue],
        commit_byte_for: CommitByteFor,
        descriptors: DescriptorCache,
    ) -> None:
        self._name = name
        self._path = layout.path(name)
        self._damaged = damaged
        self._fs = fs
        self._presence = fs.presence
        self._changed = changed
        self._commit_byte_for = commit_byte_for
        self._descriptors = descriptors
        self._open: OpenBucket | None = None
        self._section = FileSection(self._path)  # flock does not tell threads apart that share a descriptor
        self._used = False

    def descriptors(self) -> int:
        return int(self._open is not None)

    def was_used(self) -> bool:
        used, self._used = self._used, False
        return used

    def close_if_idle(self) -> bool:
        if not self._section.try_enter():
            return False
        try:
            self._close()
        finally:
            self._section.leave()
        return True

    def _close(self) -> None:
        file, self._open = self._open, None  # before it is closed, so that nobody closes another file of this number
        if file is not None:
            os.close(file.fd)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is going down
            self._close()

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._section = FileSection(self._path)
        self._close()

    # -- opening -------------------------------------------------------------------------------------

    def _attach(self) -> tuple[OpenBucket, os.stat_result] | None:
        """The file at the path now, kept open; None if there is none."""
        if monotonic() > self._presence.due:
            self._presence.look()
        file = self._open
        if file is not None:
            self._used = True
            status = self._fs.is_live(self._path, file.fd)
            # an empty file was emptied, because it is being replaced (see `nfs_replace`)
            if status is not None and status.st_size and (file.refusal is None or not self._may_change()):
                return file, status
            self._close()
        refusal = None
        try:
            attached = self._fs.attach(self._path, CHANGE)
        except NotADirectoryError:
            return None
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            try:
                attached = self._fs.attach(self._path, READ)  # enough to read
            except OSError:
                raise error from None
            refusal = error
        if attached is None:
            return None
        fd, status = attached
        self._open = file = OpenBucket(self._fs.trust.checked(fd, self._path, status), refusal)
        self._descriptors.opened(self)
        return file, status

    def _may_change(self) -> bool:
        """Whether the file may be opened for writing by now."""
        if self._fs.reading:
            return False
        try:
            os.close(os.open(self._path, CHANGE))
        except OSError:
            return False
        return True

    def _attach_locked(self) -> tuple[OpenBucket, os.stat_result] | None:
        """`_attach`, and lock: nobody else can change or remove the file until `_unlock`.

        A read-only engine locks nothing: it takes the end of the last whole append for the end.
        """
        if self._fs.reading:
            return self._attach()
        if monotonic() > self._presence.due:
            self._presence.look()
        while True:
            file = self._open
            if file is None or file.refusal is not None:
                attached = self._attach()
                if attached is None:
                    return None
                file = attached[0]
            fd = file.fd
            self._used = True
            try:
                try:  # within another try: a signal's handler may raise once it is locked
                    flock(fd, LOCK_EX | LOCK_NB)
                except BlockingIOError:
                    self._section.wait_for(fd, LOCK_EX)
                status = self._fs.is_live(self._path, fd)
                # emptied, or with another link: a replacement may be under way, whose last steps are made now
                if status is not None and (
                    (status.st_size and status.st_nlink == 1) or not self._fs.finish_replacement(self._path)
                ):
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
            if status is None:
                self._fs.finish_replacement(self._path)

    def _unlock(self, file: OpenBucket) -> None:
        try:
            flock(file.fd, LOCK_UN)
        except OSError:
            self._close()  # which unlocks it too
        except BaseException:  # a signal's handler ran in an audit hook, before the system call
            flock(file.fd, LOCK_UN)
            raise

    # -- replacing ---------------------------------------------------------------------------------------

    def _renewed(self, file: OpenBucket, size: int) -> OpenBucket:
        """While locked: replace a file whose sync failed by a new one with the same content. A second sync of the old
        one would report success, because the kernel has given up what it could not write."""
        data = read_all(file.fd, size)
        return self._replace(file, data[: committed(data).end], durable=True) if is_bucket(data) else file

    def _replace(self, file: OpenBucket, data: bytes, durable: bool) -> OpenBucket:
        """While locked: put a new, locked file at the name; a waiter for the old one's lock finds that one dead."""
        new = self._fs.replace(self._path, file.fd, data, durable=durable)
        # before the old one is closed, because a signal's handler may raise there
        self._open = opened = OpenBucket(hand_over(new.fd))
        let_go(file.fd)
        return opened
