"""The kernel says when a file on this host was touched: Linux inotify, through ctypes."""

from __future__ import annotations

import ctypes
import errno
import os
import select

_TOUCHED = 0x004  # IN_ATTRIB
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance: a descriptor, and the files it watches. Used by one thread at a time."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(_FLAGS)
        if self._fd < 0:
            raise _failed("inotify_init1")
        self.watches = 0
        """The number of the last watch: how many files were watched, at most."""
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def watch(self, path: str) -> None:
        """Watch `path` from now on. Watching it twice is watching it once."""
        number = _libc.inotify_add_watch(self._fd, os.fsencode(path), _TOUCHED)
        if number < 0:
            raise _failed("inotify_add_watch", path)
        self.watches = max(self.watches, int(number))

    def wait(self, seconds: float | None) -> bool:
        """True as soon as a watched file was touched; False after `seconds`."""
        return bool(self._poll.poll(None if seconds is None else max(0.0, seconds * 1000)))

    def drain(self) -> None:
        """Forget the touches so far."""
        try:
            while len(os.read(self._fd, 4096)) > 2048:
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _failed(call: str, path: str | None = None) -> OSError:
    code = ctypes.get_errno() or errno.ENOSYS
    return OSError(code, f"{call}: {os.strerror(code)}", path)
