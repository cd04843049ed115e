"""Opening, replacing and linking files: the few calls that decide who wins."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from psync.engine.directory.fs.permissions import PRIVATE, Access
from psync.engine.encoding.framing import Parts
from psync.engine.system import fork_hooks

if TYPE_CHECKING:
    from psync.engine.directory.fs.nfs_lookup import Lookups

T = TypeVar("T")


class Shared(NamedTuple):
    """What is needed where other hosts change files, too."""

    lookups: Lookups
    direct: int
    """See `probe.Capabilities`."""


READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Links are not followed and a FIFO does not hang us; a regular file ignores O_NONBLOCK."""
CHANGE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
UNNAMED = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
IN_PLACE = 4096
"""One `pwrite` of at most a page, within a page, is whole or not at all under SIGKILL."""


def is_regular(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def make_folder(path: str, access: Access = PRIVATE) -> None:
    """The folder is there; its parents too. Who gets access to what is made does so whatever the umask is."""
    try:
        os.mkdir(path, access.folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    except FileNotFoundError:
        make_folder(os.path.dirname(path), access)
        make_folder(path, access)
    else:
        if access is not PRIVATE:
            os.chmod(path, access.folder)


def with_folder(path: str, make: Callable[[], T], access: Access = PRIVATE) -> T:
    """``make()``, with the folder of `path` created if that is what is missing."""
    while True:
        try:
            return make()
        except FileNotFoundError:
            make_folder(os.path.dirname(path), access)


def open_made(path: str, access: Access, flags: int = CHANGE) -> int:
    """A file to change, made if there is none, and its folder too."""

    def made() -> int:
        fd = os.open(path, flags | os.O_CREAT, access.file)
        if access is not PRIVATE and os.fstat(fd).st_uid == os.geteuid():
            os.fchmod(fd, access.file)
        return fd

    return with_folder(path, made, access)


class _Locked:
    """The descriptors by which this process holds locks just now: a child that kept copies would keep the locks."""

    def __init__(self) -> None:
        self.fds: set[int] = set()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        while self.fds:
            os.close(self.fds.pop())  # closing a copy unlocks nothing


_locked = _Locked()


def lock(fd: int, how: int = fcntl.LOCK_EX) -> None:
    """Lock `fd`, until `let_go` or the end of this process, whatever it forks meanwhile."""
    _locked.fds.add(fd)
    fcntl.flock(fd, how)


def open_locked(path: str) -> tuple[int, os.stat_result] | None:
    """The file at `path`, open and exclusively locked, and certainly still at `path`; None if there is none.

    Whoever removes or replaces a file of ours holds its lock, so while we hold it the name is ours.
    """
    while True:
        try:
            fd = os.open(path, CHANGE)
        except FileNotFoundError:
            return None
        try:
            lock(fd)
            status = os.fstat(fd)
            if status.st_nlink:
                if not is_regular(status):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                return fd, status
        except BaseException:
            let_go(fd)
            raise
        let_go(fd)


def let_go(fd: int) -> None:
    """Unlock, then close: a child forked meanwhile has a copy of the descriptor; closing ours alone frees nothing."""
    _locked.fds.discard(fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        pass  # what was done is done; closing unlocks it too
    except BaseException:  # a signal's handler came by an audit hook, before the kernel was asked
        fcntl.flock(fd, fcntl.LOCK_UN)
        raise
    finally:
        close(fd)


def close(fd: int) -> None:
    """Close a descriptor after what mattered: whether that went well was known before.

    Only a network file system says at a close that it could not write; there, `AtomicFiles` asks before.
    """
    try:
        os.close(fd)
    except OSError:
        pass  # Linux has freed the descriptor all the same


MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
"""Bytes that this machine has: a larger file (mostly holes, perhaps) is not read."""


def read_all(fd: int, size: int, offset: int = 0) -> bytes:
    """`size` bytes from `offset`, fewer only at the end of the file. OSError for more than there is memory."""
    if size > MEMORY:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    data = os.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    have = len(data)
    while have < size and (data := os.pread(fd, size - have, offset + have)):
        parts.append(data)
        have += len(data)
    return b"".join(parts)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """All of `data` at `offset`. The kernel may write less at a time when the disk fills up or a signal comes."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        step = os.pwrite(fd, memoryview(data)[done:], offset + done)
        if not step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += step


def read_small(path: str, limit: int) -> bytes:
    """The first `limit` bytes of a regular file. Raises OSError, also for what is none: a FIFO does not hang us."""
    fd = os.open(path, READ)
    try:
        if not is_regular(os.fstat(fd)):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.pread(fd, limit, 0)
    finally:
        close(fd)


def copy_data(source: int, target: int, size: int) -> None:
    """The first `size` bytes of a file become those of another one; holes stay holes."""
    at = 0
    os.ftruncate(target, size)
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only holes are left
                return
            raise
        end = min(size, os.lseek(source, at, os.SEEK_HOLE))
        while at < end:
            data = os.pread(source, min(end - at, 1 << 20), at)
            if not data:
                return
            write_all(target, data, at)
            at += len(data)


def fill(fd: int, data: bytes | Parts, *, sync: bool) -> None:
    """A new file gets its content."""
    if not isinstance(data, bytes):
        if os.pwritev(fd, data, 0) != sum(map(len, data)):
            write_all(fd, b"".join(data), 0)
    else:
        write_all(fd, data, 0)
    if sync:
        os.fsync(fd)


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_quietly(path: str) -> bool:
    """True if it is removed; if it can't be, a sweep will find it."""
    with contextlib.suppress(OSError):
        os.unlink(path)
        return True
    return False


class Temporary:
    """A file under a name nobody else uses, with `data` in it, locked as long as its writer lives: so a sweep knows.

    `shared` (lookups of a network file system, and the flag to open files with there): a rename or a link may be done
    though it is reported to have failed, because the server's reply was lost and the client asked again.
    `at`: a name to use instead, which others may use, too: FileExistsError if somebody does.
    """

    def __init__(
        self,
        folder: str,
        data: bytes | Parts,
        *,
        sync: bool,
        access: Access = PRIVATE,
        shared: Shared | None = None,
        at: str | None = None,
    ) -> None:
        self._access = access
        self._shared = shared
        self._at = at
        self.fd, self.path = self._new(folder)
        try:
            if access is not PRIVATE:
                os.fchmod(self.fd, access.file)
            fill(self.fd, data, sync=sync)
        except BaseException:
            self.discard()
            raise

    def _new(self, folder: str) -> tuple[int, str]:
        access, shared = self._access, self._shared
        while True:
            path = self._at or f"{folder}/{os.urandom(8).hex()}"
            fd = with_folder(path, lambda: self._make(path), access)  # noqa: B023
            try:
                lock(fd)
                # a sweep may have come before the lock
                if os.fstat(fd).st_nlink if shared is None else shared.lookups.is_live(path, fd):
                    return fd, path
            except BaseException:
                let_go(fd)
                raise
            let_go(fd)

    def _make(self, path: str) -> int:
        flags = CHANGE | (0 if self._shared is None else self._shared.direct)
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, self._access.file)
        except FileExistsError:
            if self._shared is None or self._at is not None:
                raise
            # NFS: the first reply was lost, and what is in the way of the second request is what the first one made
            return os.open(path, flags)

    def replace(self, path: str) -> None:
        """`path` is this file from now on, whatever it was."""
        try:
            self.rename(path)
        except BaseException:
            self.discard()
            raise
        let_go(self.fd)

    def rename(self, path: str) -> None:
        """The same, but it stays open and locked, however that ends."""
        try:
            os.rename(self.path, path)
        except FileNotFoundError:
            # NFS: the first reply was lost, and for the second request there was nothing left to rename
            if self._shared is None or not self._is_at(path):
                raise

    def link(self, path: str) -> bool:
        """`path` is this file from now on, unless there is one already."""
        try:
            return self.put(path)
        finally:
            self.discard()

    def put(self, path: str) -> bool:
        """The same, but it stays open and locked under its own name, too, however that ends."""
        if with_folder(path, lambda: link(self.path, path), self._access):
            return True
        # NFS: the first reply was lost, and what the second request found in its way was the file itself
        return self._shared is not None and self._is_at(path)

    def _is_at(self, path: str) -> bool:
        assert self._shared is not None
        return self._shared.lookups.leads_to(path, os.fstat(self.fd), sure=True)

    def keep(self) -> int:
        """The descriptor, which goes on being locked; whoever gets it answers for it."""
        _locked.fds.discard(self.fd)
        return self.fd

    def discard(self) -> None:
        if self._shared is not None:
            let_go(self.fd)  # first: what an NFS client removes while it is open, it renames, and removes afterwards
            remove_quietly(self.path)
            return
        remove_quietly(self.path)
        let_go(self.fd)


def rename_to_free(path: str, new: str) -> None:
    """Rename, but never over something: `FileExistsError` then. Atomic where the file system can."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, noreplace = -100, 1
    if libc.renameat2(at_cwd, os.fsencode(path), at_cwd, os.fsencode(new), noreplace) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), path)
    os.link(path, new, follow_symlinks=False)
    os.unlink(path)


def link(source: str, path: str) -> bool:
    try:
        os.link(source, path, follow_symlinks=False)
    except FileExistsError:
        return False
    return True


def link_unnamed(path: str, data: bytes | Parts, *, sync: bool, access: Access = PRIVATE) -> bool:
    """`path` comes into being with `data` in it, unless there is one. Leaves nothing behind when killed.

    open, pwrite, link, close.
    """
    folder = path[: path.rindex("/")] or "/"
    try:
        fd = os.open(folder, UNNAMED, access.file)
    except FileNotFoundError:
        fd = with_folder(path, lambda: os.open(folder, UNNAMED, access.file), access)
    try:
        if access is not PRIVATE:
            os.fchmod(fd, access.file)
        fill(fd, data, sync=sync)
        # the directory descriptor makes os.link follow the link in /proc; the path is absolute, so it is not used
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        return False
    finally:
        close(fd)
    return True


def remove_empty(path: str) -> bool:
    """Remove a folder that holds nothing any more: it must not stand in the way of a value. True if it was removed."""
    if not os.path.isdir(path):
        return False
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return not os.path.isdir(path)
    return True
