"""System calls: open, lock, link, rename, read and write files, each with what makes it atomic."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from threading import get_ident
from typing import TypeVar

from psync.engine.directory.fs.fd_cache import make_room, with_room
from psync.engine.directory.fs.permissions import PRIVATE, Access
from psync.engine.directory.fs.presence import must_exist
from psync.engine.encoding.framing import Parts
from psync.engine.system import fork_hooks, reentry

T = TypeVar("T")


READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Links are not followed and a FIFO does not hang us; a regular file ignores O_NONBLOCK."""
CHANGE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
UNNAMED = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
ATOMIC_WRITE_BYTES = 4096
"""One `pwrite` of at most a page, within a page, is whole or not at all under SIGKILL."""
MAX_FOLDERS_MADE = 1000
"""How often a folder is made again for one file, while others remove it each time; after that something else is
missing."""
LARGE_BYTES = 1 << 16
"""Of a file this large the beginning is read first, and the rest only if that makes sense of it."""
PICKLE_START = b"\x80"
"""Every pickle that psync reads begins with it (PROTO)."""


def is_regular(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def may_be_folder(path: str) -> bool:
    """Whether a folder is at `path`, as far as this user is let know."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def make_folder(path: str, access: Access = PRIVATE) -> None:
    """Create the folder and its parents unless they exist. `access` holds whatever the umask is.

    Raises `DirectoryGone` for a directory that is open already.
    """
    must_exist(path)
    try:
        os.mkdir(path, access.folder)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):  # it was removed again: `with_folder` makes it once more
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    except FileNotFoundError:
        make_folder(os.path.dirname(path), access)
        make_folder(path, access)
    else:
        if access is not PRIVATE:
            with contextlib.suppress(FileNotFoundError):
                inherited = os.stat(path).st_mode & stat.S_ISGID  # from the folder above
                os.chmod(path, access.folder | inherited)


def with_folder(path: str, make: Callable[[], T], access: Access = PRIVATE) -> T:
    """``make()``, with the folder of `path` created, or idle files closed, if that is what is missing.

    Who deletes the last name of a folder removes the folder (`remove_folders`), at any moment before `make` has made
    one in it. The fact that decides: a folder with a name in it can't be removed.
    """
    for _ in range(MAX_FOLDERS_MADE):
        try:
            return make()
        except FileNotFoundError:
            make_folder(os.path.dirname(path), access)
        except OSError as error:
            if not make_room(error):
                raise
    return make()


def open_made(path: str, access: Access, flags: int = CHANGE) -> int:
    """Open a file for changes; it and its folder are created if they are missing."""

    def made() -> int:
        fd = os.open(path, flags | os.O_CREAT, access.file)
        if access is not PRIVATE and os.fstat(fd).st_uid == os.geteuid():
            os.fchmod(fd, access.file)
        return fd

    return with_folder(path, made, access)


class _Locked:
    """The descriptors by which this process holds locks now: a forked child that kept copies would keep the locks."""

    def __init__(self) -> None:
        self.fds: dict[int, int] = {}
        """Each with the thread that locked it."""
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        while self.fds:
            os.close(self.fds.popitem()[0])  # closing a copy unlocks nothing


_locked = _Locked()


def lock(fd: int, how: int = fcntl.LOCK_EX) -> None:
    """Lock `fd`, until `let_go` or the end of this process, whatever it forks meanwhile."""
    _locked.fds[fd] = get_ident()
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        await_lock(fd, how)


def await_lock(fd: int, how: int = fcntl.LOCK_EX) -> None:
    """Lock `fd`, whose lock another one has. Raises `ReentrantCall` if a call that this one interrupts has it: it would
    wait for itself."""
    file, me = os.fstat(fd), get_ident()
    mine = [other for other, thread in list(_locked.fds.items()) if thread == me and other != fd]
    mine += [frame["fd"] for frame in reentry.marked_frames() if frame.get("fd", fd) != fd]
    for other in mine:
        try:
            same = os.path.samestat(os.fstat(other), file)
        except OSError:
            continue  # closed by now
        if same:
            raise reentry.reentrant(os.readlink(f"/proc/self/fd/{fd}"))
    fcntl.flock(fd, how)


def hand_over(fd: int) -> int:
    """`fd` stays locked; its new holder releases it, and gives it up in a forked child."""
    _locked.fds.pop(fd, None)
    return fd


def open_locked(path: str, flags: int = CHANGE) -> tuple[int, os.stat_result] | None:
    """Open and lock the file at `path`: with others to READ it, alone to CHANGE it. None if there is none.

    Every process that removes or replaces a file holds its lock. So the file stays at `path` while it is locked.
    """
    while True:
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            if make_room(error):
                continue
            raise
        try:
            lock(fd, fcntl.LOCK_SH if flags == READ else fcntl.LOCK_EX)
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
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        pass  # the change is made; closing unlocks the file too
    except BaseException:  # a signal's handler ran in an audit hook, before the system call
        fcntl.flock(fd, fcntl.LOCK_UN)
        raise
    finally:
        try:  # after the unlock, for `await_lock`; before the close, because a closed number is used again
            _locked.fds.pop(fd, None)
        finally:
            try:  # `close`, written out
                os.close(fd)
            except OSError:
                pass


def close(fd: int) -> None:
    """Close a descriptor whose writes are known to have succeeded, or do not matter.

    Only a network file system reports at a close that it could not write; `NfsFiles` syncs before.
    """
    try:
        os.close(fd)
    except OSError:
        pass  # Linux has freed the descriptor all the same


MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
"""This machine's memory: a larger file (mostly holes, perhaps) is not read."""


def read_all(fd: int, size: int, offset: int = 0) -> bytes:
    """`size` bytes from `offset`, fewer only at the end of the file. OSError for more than there is memory."""
    if size > MEMORY_BYTES:
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


def is_no_pickle(fd: int, size: int) -> bool:
    """True for a large file that does not begin as a pickle, not even a damaged one: it is not read whole."""
    return size >= LARGE_BYTES and os.pread(fd, 1, 0) != PICKLE_START


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
    fd = with_room(lambda: os.open(path, READ))
    try:
        if not is_regular(os.fstat(fd)):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.pread(fd, limit, 0)
    finally:
        close(fd)


def copy_data(source: int, target: int, size: int) -> None:
    """Copy the first `size` bytes of a file to another one; holes stay holes."""
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
    """Write the content of a new file."""
    if not isinstance(data, bytes):
        if os.pwritev(fd, data, 0) != sum(map(len, data)):
            write_all(fd, b"".join(data), 0)
    else:
        write_all(fd, data, 0)
    if sync:
        os.fsync(fd)


def sync_folder(path: str) -> None:
    fd = with_room(lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_quietly(path: str) -> bool:
    """Remove a file; True if that worked. If not, a sweep removes it later."""
    with contextlib.suppress(OSError):
        os.unlink(path)
        return True
    return False


def rename_to_free(path: str, new: str) -> None:
    """Rename, but raise FileExistsError if `new` exists. Atomic where the file system knows renameat2."""
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
    """Create `path` with `data` in it unless it exists; True if it was created. A kill leaves no file behind.

    open, pwrite, link, close.
    """
    folder = path[: path.rindex("/")] or "/"
    try:
        fd = os.open(folder, UNNAMED, access.file)
    except OSError:
        fd = with_folder(path, lambda: os.open(folder, UNNAMED, access.file), access)
    try:
        if access is not PRIVATE:
            os.fchmod(fd, access.file)
        fill(fd, data, sync=sync)
        try:
            _link_fd(fd, path)
        except FileNotFoundError:  # the folder was removed meanwhile, with the last name in it
            with_folder(path, lambda: _link_fd(fd, path), access)
    except FileExistsError:
        return False
    finally:
        close(fd)
    return True


def _link_fd(fd: int, path: str) -> None:
    # the directory descriptor makes os.link follow the link in /proc; the path is absolute, so it is not used
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


def remove_folders(path: str, root: str) -> None:
    """Remove the folder of a name that is gone, and each one above it, as far as they are empty, short of `root`.

    rmdir, which fails where anything else is in the folder. A creator that finds its folder gone makes it again.
    """
    folder = path[: path.rindex("/")]
    with contextlib.suppress(OSError):
        while len(folder) > len(root):
            os.rmdir(folder)
            folder = folder[: folder.rindex("/")]


def remove_empty_folders(root: str, besides: str) -> int:
    """Remove all empty folders below `root`, but those in its folder `besides`; returns how many."""
    without_files = []
    for folder, folders, files in os.walk(root):
        if folder == root:
            folders[:] = [name for name in folders if name != besides]
        elif not files:
            without_files.append(folder)
    removed = 0
    for folder in reversed(without_files):  # those within it first
        with contextlib.suppress(OSError):
            os.rmdir(folder)
            removed += 1
    return removed


def remove_empty(path: str) -> bool:
    """Remove a folder without files in it, which would keep a value from its name. True if it was removed."""
    if not os.path.isdir(path):
        return False
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return not os.path.isdir(path)
    return True
