"""A register is a cell whose file is kept open: changed under its lock by one `pwrite`, read without any lock.

It is a cell like others (see `cells`): whoever changes its file holds that one's `flock` and has seen that it still has
a name. What is larger than a page, and every change where nothing is written in place, goes to a new file; the old
one has no name then, and who kept it open opens the new one.

read: fstat, pread. update: flock, fstat, pread, pwrite, flock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_UN, flock

from psync.engine.contract import Cell, Register, Update
from psync.engine.directory.cells import SMALL, examine
from psync.engine.directory.files import CHANGE, let_go, read_all, refused
from psync.engine.directory.kept import Kept
from psync.engine.directory.whole import Whole
from psync.engine.seal import Unreadable, seal, seal_parts, unseal
from psync.errors import CorruptValue


class DirectoryRegister(Register):
    """One register of a directory. Threads may share it; a forked child opens the file anew."""

    def __init__(
        self,
        name: str,
        path: str,
        whole: Whole,
        *,
        in_place: bool,
        read_cell: Callable[[str], Cell | None],
        changed: Callable[[], None],
        damaged: Callable[[str, str], CorruptValue],
        kept: Kept,
    ) -> None:
        self._name = name
        self._path = path
        self._whole = whole
        self._in_place = in_place
        self._read_cell = read_cell
        self._changed = changed
        self._damaged = damaged
        self._kept = kept
        self._threads = threading.Lock()
        self._fd = -1

    def read(self) -> bytes | None:
        try:
            with self._threads:
                for _ in range(4):
                    fd = self._fd if self._fd >= 0 else self._open()
                    status = os.fstat(fd)
                    if not status.st_nlink:
                        self._close()
                        continue
                    try:
                        payload = unseal(read_all(fd, status.st_size))
                    except Unreadable:
                        continue  # a writer was in the middle of it
                    if payload is not None:
                        return payload
                    break
        except FileNotFoundError:
            return None
        except OSError:
            pass  # read-only for us, perhaps
        cell = self._read_cell(self._name)
        return None if cell is None else cell.payload

    def update(self, function: Update) -> bytes | None:
        try:
            with self._threads:
                old, new = self._update(function)
        except OSError as error:
            raise refused(error, self._name, self._path) from error
        except Unreadable as error:
            raise self._damaged(self._name, str(error)) from error
        if new is not old and new is not None:
            self._changed()
        return new

    def _update(self, function: Update) -> tuple[bytes | None, bytes | None]:
        while True:
            try:
                fd = self._fd if self._fd >= 0 else self._open()
            except FileNotFoundError:
                new = function(None)
                if new is None or self._whole.make(self._path, seal(new)):
                    return None, new
                continue
            flock(fd, LOCK_EX)
            try:
                status = os.fstat(fd)
                if status.st_nlink:
                    return self._change(fd, status.st_size, function)
            finally:
                self._unlock(fd)
            self._close()

    def _change(self, fd: int, size: int, function: Update) -> tuple[bytes, bytes]:
        """While locked."""
        old = examine(read_all(fd, size), ()).payload
        new = function(old)
        if new is None or new is old:
            return old, old
        if self._in_place and len(new) <= SMALL:
            os.pwrite(fd, seal(new), 0)  # what is left of a longer one behind it means nothing
        else:
            let_go(self._whole.replace(self._path, seal_parts(new)).fd)
        return old, new

    def _open(self) -> int:
        self._fd = os.open(self._path, CHANGE)
        self._kept.opened(self)
        return self._fd

    def _unlock(self, fd: int) -> None:
        try:
            flock(fd, LOCK_UN)
        except OSError:
            self._close()  # which unlocks it too

    def close_if_idle(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        self._close()
        self._threads.release()
        return True

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._threads = threading.Lock()
        self._close()
