"""Translate an OSError of the file system: the error names key, path, cause and remedy."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import TypeGuard

from psync.engine.directory.fs.permissions import PermissionProblem, Permissions, not_a_file
from psync.engine.directory.fs.presence import GONE_ERRORS, explain
from psync.errors import InvalidKey, PsyncError, StoreFailed, StoreFull

_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.EMLINK, errno.ENOMEM}
_REMEDIES = {
    errno.ENOSPC: "free space or inodes on its file system",
    errno.EDQUOT: "free some of the user's disk quota",
    errno.EMFILE: "close files or raise `ulimit -n`",
    errno.ENFILE: "the whole system is out of descriptors: end processes or raise fs.file-max",
    errno.EACCES: "check owner, mode and attributes of the file and its folders",
    errno.EPERM: "check owner, mode and attributes of the file and its folders",
    errno.EROFS: "the file system is mounted read-only: remount it or choose another directory",
    errno.EIO: "the disk or its server reported an error: see the kernel's log, then try again",
    errno.ESTALE: "the server replaced the file: try again",
}


class BucketMet(Exception):
    """A value can't come to a name: the bucket at `path` stands there, or beside it. Internal: becomes `InvalidKey`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def translate_os_error(error: OSError, name: str, path: str) -> PsyncError:
    """The error to raise for an `OSError` of the file system. A PsyncError is returned as it is."""
    if isinstance(error, PsyncError):
        return error  # translated before
    code = error.errno or 0
    if code in (errno.ELOOP, errno.ENXIO) and (found := _not_a_regular_file(path)) is not None:
        return found
    if code == errno.ENOTDIR and (gone := explain(path)) is not None:
        return gone
    if code in (errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP, errno.ENXIO):
        return not_a_value(name, path)
    if code in (errno.ENAMETOOLONG, errno.EILSEQ):
        return InvalidKey(
            f"{name!r} is no possible file name here ({error.strerror}): use a shorter, plainer key", key=name
        )
    if code in GONE_ERRORS and (gone := explain(path)) is not None:
        return gone
    kind = StoreFull if code in _FULL_ERRORS else StoreFailed
    remedy = _REMEDIES.get(code, "see the cause and try again")
    if code in (errno.EACCES, errno.EPERM):
        remedy = _who_refuses(error.filename if _is_absolute(error.filename) else path) or remedy
    text = f"{name!r} was left as it was: {error.strerror} [{errno.errorcode.get(code, code)}] at {path}; {remedy}"
    return kind(text, key=name, errno=code, strerror=error.strerror, filename=path)


def _is_absolute(path: object) -> TypeGuard[str]:
    return isinstance(path, str) and path.startswith("/")


def _who_refuses(path: str) -> str:
    """The file or folder that keeps this user from `path`, and a remedy; "" if that can't be told."""
    try:
        from psync.engine.directory.fs.refusals import refusal_of
    except (OSError, ImportError):  # no descriptor is free, or the user that this process became can't read psync
        return ""
    refusal = refusal_of(path)
    return "" if refusal is None else f"{refusal}. Remedy: {refusal.remedy()}"


def advise(permissions: Permissions, problem: PermissionProblem) -> str:
    """The remedies of a problem, in words."""
    try:
        from psync.engine.directory.fs.remedies import remedies_of
    except (OSError, ImportError):
        return "use a directory of your own"
    return remedies_of(permissions, problem)


@contextlib.contextmanager
def loading(name: str, path: str) -> Iterator[None]:
    """Translate the error of an import in the body: a process without free descriptors can't load a module.

    The import system raises OSError for a file of Python code, and ImportError for a shared library that is there.
    """
    try:
        yield
    except OSError as error:
        raise translate_os_error(error, name, path) from error
    except ImportError as error:
        if error.path is None:
            raise  # there is no such module
        full = OSError(errno.EMFILE, os.strerror(errno.EMFILE), error.path)
        raise translate_os_error(full, name, path) from error


def _not_a_regular_file(path: str) -> PsyncError | None:
    """The error for a link, a FIFO or a device at a path where a plain file should be; None if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return None if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else not_a_file(path, status).error()


def not_a_value(name: str, path: str) -> InvalidKey:
    """The error for a value where a folder stands, or below another value."""
    root, parts = path[: len(path) - len(name)], name.split("/")
    above = ("/".join(parts[:count]) for count in range(1, len(parts)))
    value = next((each for each in above if not os.path.isdir(root + each) and os.path.lexists(root + each)), None)
    why = f"{path} is a folder of values" if value is None else f"it lies below {value!r}, which is a value"
    return InvalidKey(
        f"{name!r} can't hold a value: {why} (one key can't be both a value and a folder); use another key", key=name
    )
