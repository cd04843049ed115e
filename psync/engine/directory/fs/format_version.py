"""Format version: checked when a directory is opened, written when psync first works there.

It stands in ``.psync/format``, a frame like that of a value, so that a flipped bit is no other version. It is read once
at each opening. The fact that decides: the link that brings the file to its name, whole.

A directory may have no such file: psync 0.1.0 wrote none, and one that is full, or only read, gets none. Then the files
whose format was changed before version 1 (registers and logs) tell by their sizes whether they are of it. So the file
may be written late, or never, and two processes may write it at once. Values and buckets were never changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import warnings
from collections.abc import Iterator

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import read_small
from psync.engine.directory.layout import FORMAT, FORMAT_VERSION, OWN, OWN_FOLDERS, Layout
from psync.engine.encoding.framing import Unreadable, as_pickle, frame, unframe
from psync.errors import FormatMismatch

_MARK = b"psync format "
MAX_BYTES = 256
"""Bytes of the file that are read."""
POSITION_BLOCK_BYTES = 184
"""Size of a log's ``tail``, and of its ``front``, in version 1; they were shorter before."""
_REGISTER_HEAD = struct.Struct("<8sQII")
INLINE_OFFSET, MAX_INLINE_BYTES = 28, 2020
"""Where a value begins that stands in a register's first page, and its length at most; before version 1 one might fill
the page, in which the slots are now."""
_NO_ROOM = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}


def encoded(version: int) -> bytes:
    """The bytes of the file."""
    return frame(as_pickle(b"%b%d\n" % (_MARK, version)))


_CURRENT = encoded(FORMAT_VERSION)


def decoded(data: bytes) -> int:
    """The version that the file states. Raises `Unreadable`."""
    payload = unframe(data) or b""
    text = payload[7:-2]
    if payload != as_pickle(b"%b\n" % text) or not text.startswith(_MARK) or not text[len(_MARK) :].isdigit():
        raise Unreadable("it states no version")
    return int(text[len(_MARK) :])


def check(layout: Layout) -> bool:
    """Whether the directory states this version; it may state none. open, fstat, pread, close.

    Raises `FormatMismatch` if it states another one, OSError if that can't be read.
    """
    try:
        data = read_small(layout.format, MAX_BYTES)
        found = FORMAT_VERSION if data == _CURRENT else decoded(data)
    except (FileNotFoundError, PermissionError, Unreadable):
        return False
    if found != FORMAT_VERSION:
        raise _mismatch(layout, found)
    return True


def begin(layout: Layout, fs: AtomicFiles) -> None:
    """Write the version into a directory that has none. A damaged file goes to quarantine, with a RuntimeWarning.

    Raises `FormatMismatch` if something in the directory is of another version, OSError.
    """
    older = next(_older_files(layout, fs), None)
    if older is not None:
        raise _mismatch(layout, 0, older)
    try:
        if fs.make(layout.format, _CURRENT):
            if fs.sync_file:
                fs.secure(layout.format)
        elif not check(layout):  # else somebody else was quicker
            _replace_damaged(layout, fs)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise  # without room for it, the next opening of the directory writes it


def _replace_damaged(layout: Layout, fs: AtomicFiles) -> None:
    """Anew, because all other files have checks of their own: whatever is damaged, the rest goes on."""
    data = read_small(layout.format, MAX_BYTES)
    if any(data):  # a power cut leaves an empty file, or zeros
        refuge = fs.keep(f"{OWN}/format", data, "it states no version")
        text = f"{layout.format} was damaged, and states version {FORMAT_VERSION} again; its bytes are kept at {refuge}"
        warnings.warn(text, RuntimeWarning, stacklevel=6)
    fs.temporary(_CURRENT, sync=True).replace(layout.format)  # decides; two who do this at once write the same


def _older_files(layout: Layout, fs: AtomicFiles) -> Iterator[str]:
    """The registers and logs that have another format than version 1. Lists all of psync's own folders; in a directory
    without registers and logs only the first, and loads nothing for that."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if set(fs.listing(layout.own)) <= {FORMAT, *OWN_FOLDERS}:
            return
    from psync.engine.contract.report import Shape
    from psync.engine.directory.scan import walk

    for shape, name in walk(layout, fs, OWN):
        try:
            if shape is Shape.LOG:
                if os.stat(layout.log(name, "tail")).st_size not in (0, POSITION_BLOCK_BYTES):
                    yield name
            elif shape is Shape.REGISTER and _fills_its_page(layout.path(name)):
                yield name
        except FileNotFoundError:
            continue  # it was removed meanwhile


def _fills_its_page(path: str) -> bool:
    """Whether a register's value lies where the slots are now. open, fstat, pread, close."""
    head = read_small(path, _REGISTER_HEAD.size)
    if len(head) < _REGISTER_HEAD.size:
        return False
    _, _, offset, size = _REGISTER_HEAD.unpack(head)
    return bool(offset == INLINE_OFFSET and size > MAX_INLINE_BYTES)


def _mismatch(layout: Layout, found: int, older: str | None = None) -> FormatMismatch:
    if found > FORMAT_VERSION:
        what = f"has format {found}, and this psync works with format {FORMAT_VERSION}"
        remedy = "upgrade psync; or take a fresh directory, to which that newer psync can copy it (psync copy)"
    else:
        which = f" ({older!r} is of it)" if older is not None else ""
        what = f"has format {found}{which}, and this psync works with format {FORMAT_VERSION}"
        remedy = (
            "take a fresh directory. To keep only values and categories: while no process works there, "
            f"rm -r '{layout.own}'/*/ removes the state of queues and other primitives"
        )
    return FormatMismatch(
        f"{layout.root} {what}. Nothing was changed. Remedy: {remedy}",
        path=layout.root,
        found=found,
        supported=FORMAT_VERSION,
    )
