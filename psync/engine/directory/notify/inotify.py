"""The kernel says when a file on this host was touched: Linux inotify, through ctypes."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct

_TOUCHED = 0x004  # IN_ATTRIB
_MOVED = 0x400 | 0x800  # IN_DELETE_SELF, IN_MOVE_SELF
_IGNORED = 0x8000  # IN_IGNORED: the file is gone, and the watch with it
_EVENT = struct.Struct("iIII")
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance: a descriptor, and the files it watches. Used by one thread at a time."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(_FLAGS)
        if self._fd < 0:
            raise _failed("inotify_init1")
        self.watched: set[object] = set()
        """The files that are watched, each with the directory that it was in."""
        self.moved = False
        """A directory that is watched was removed or moved away. To be reset by the one who looks which."""
        self.heard = False
        """Something was heard, and has not been forgotten by `drain` yet."""
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def watch(self, path: str, where: object, *, directory: bool = False) -> None:
        """Watch the file `path` from now on, which is in the directory `where`, or the `directory` itself: whether it
        is removed or moved away. Watching it twice is watching it once, and the second time costs nothing."""
        if (path, where) not in self.watched:
            if _libc.inotify_add_watch(self._fd, os.fsencode(path), _MOVED if directory else _TOUCHED) < 0:
                raise _failed("inotify_add_watch", path)
            self.watched.add((path, where))

    def wait(self, seconds: float) -> bool:
        """True as soon as a watched file was touched; False after `seconds`. poll."""
        if self._poll.poll(seconds * 1000 if seconds > 0 else 0):
            self.heard = True
        return self.heard

    def drain(self) -> bool:
        """Forget what was heard so far. False if a watched file was removed: nothing is watched then."""
        self.heard = False
        kept = True
        while True:
            try:
                events = os.read(self._fd, 4096)
            except BlockingIOError:
                return kept
            for event in _EVENT.iter_unpack(events):  # of a file they have no name, so all have one size
                if event[1] & _MOVED:
                    self.moved = True
                if event[1] & _IGNORED:
                    self.watched.clear()
                    kept = False
            if len(events) < 2048:
                return kept

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _failed(call: str, path: str | None = None) -> OSError:
    code = ctypes.get_errno() or errno.ENOSYS
    return OSError(code, f"{call}: {os.strerror(code)}", path)
