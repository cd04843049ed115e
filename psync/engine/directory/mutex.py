"""A mutex is `flock` on a file of its own, kept open; it ends with the last process that holds it.

The fact that decides: who has the `flock`. The file is never removed while anybody may want it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from psync.engine import clock
from psync.engine.contract import Mutex, Watch
from psync.engine.directory.files import CHANGE, with_folder
from psync.engine.directory.names import MODE


class DirectoryMutex(Mutex):
    """One mutex of a directory, for threads and processes."""

    def __init__(
        self, path: str, watch: Callable[[], AbstractContextManager[Watch]], changed: Callable[[], None]
    ) -> None:
        self._path = path
        self._watch = watch
        self._changed = changed
        self._threads = threading.Lock()
        self._fd = -1

    def acquire(self, timeout: float | None = None) -> bool:
        """flock when it is free."""
        deadline = None if timeout is None else clock.monotonic() + timeout
        if not self._threads.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            return False
        try:
            if self._fd < 0:
                self._fd = with_folder(self._path, lambda: os.open(self._path, CHANGE | os.O_CREAT, MODE))
            if deadline is None:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                return True
            if self._try() or self._wait(deadline):
                return True
        except BaseException:
            self._threads.release()
            raise
        self._threads.release()
        return False

    def _wait(self, deadline: float) -> bool:
        with self._watch() as watch:
            while not self._try():
                left = deadline - clock.monotonic()
                if left <= 0:
                    return False
                watch.pause(min(left, 0.02))  # the kernel frees a dead holder's lock and tells nobody
        return True

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if not self._threads.locked() or self._fd < 0:
            raise RuntimeError("a mutex that is not held can't be released")
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._threads.release()
        self._changed()

    def close_if_idle(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._threads.release()
        return True

    def after_fork(self) -> None:
        self._threads = threading.Lock()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
