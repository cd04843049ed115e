"""One file a process, locked by it as long as it lives: who can lock it knows that its owner is dead.

The file comes into being locked (it is linked to its name afterwards), and is removed by its owner when
that ends in order, or by a sweep that has locked it. So a name that is not there is an owner that is gone.
The fact that decides: whether the file's `flock` can be had.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading

from psync.engine.contract.values import Alive, Identity
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import READ, let_go, make_folder
from psync.engine.directory.layout import Layout, number_in
from psync.engine.encoding.framing import Unreadable, frame_text, unframe_text
from psync.engine.system import clock, fork_hooks
from psync.engine.system.process_identity import examine, myself

LATEST = 253402300800.0
"""Seconds since 1970: the year 10000."""
LONGEST = 4096
"""Bytes of an owner's record."""


class Owners:
    """The processes that work in one directory."""

    def __init__(self, layout: Layout, fs: AtomicFiles) -> None:
        self._layout = layout
        self._fs = fs
        self.number = 0
        """This process's number here; 0 as long as it has none."""
        self._fd = -1
        self._lock = threading.Lock()

    def mine(self) -> int:
        """The number of this process here; the first call registers it."""
        return self.number or self._register()

    def _register(self) -> int:
        with self._lock, fork_hooks.put_off:
            if self.number:
                return self.number
            who = frame_text(json.dumps(myself(clock.wall_ns() / 1e9)._asdict()).encode())
            make_folder(self._layout.owners, self._layout.trust.access)
            new = self._fs.temporary(who, sync=False)
            number = int.from_bytes(os.urandom(8), "little") >> 1 or 1
            try:
                new.rename(self._layout.owner(number))
            except BaseException:
                new.discard()
                raise
            self._fd, self.number = new.keep(), number  # the descriptor stays open, and with it the lock
            return number

    def alive(self, owner: int) -> Alive:
        """open, flock, close."""
        if owner == self.number and owner:
            return Alive.YES
        try:
            fd = self._fs.open(self._layout.owner(owner), READ)
        except FileNotFoundError:
            return Alive.NO
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Alive.YES
        except OSError as error:
            if error.errno == errno.ESTALE:
                return Alive.NO  # removed on another host, a moment ago
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            identity = _identity(fd)
            return Alive.UNKNOWN if identity is None else examine(identity)
        else:
            return Alive.NO
        finally:
            let_go(fd)

    def describe(self, owner: int) -> str:
        identity = self.identity(owner)
        return f"a process that is gone ({owner:016x})" if identity is None else str(identity)

    def identity(self, owner: int) -> Identity | None:
        """None if there is no such owner here (any more), or its record is damaged. open, fstat, pread, close."""
        try:
            fd = os.open(self._layout.owner(owner), READ)
        except OSError:
            return None
        try:
            return _identity(fd)
        finally:
            os.close(fd)

    def sweep(self) -> int:
        """Remove the files of dead owners; what they claimed counts as a dead owner's all the same."""
        removed = 0
        with contextlib.suppress(FileNotFoundError):
            for owner in filter(None, map(number_in, self._fs.listing(self._layout.owners))):
                if owner != self.number and self.alive(owner) is Alive.NO:
                    with contextlib.suppress(OSError):
                        os.unlink(self._layout.owner(owner))
                        removed += 1
        return removed

    def close(self) -> None:
        """This process is nobody here any more: what it still holds goes back as if it had died."""
        with self._lock:
            if self._fd >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(self._layout.owner(self.number))
                let_go(self._fd)
            self._fd, self.number = -1, 0

    def after_fork(self) -> None:
        """A child is another owner, and must not keep its parent alive."""
        self._lock = threading.Lock()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.number = -1, 0


def _identity(fd: int) -> Identity | None:
    """What an owner's record says; None if it is damaged, or something else."""
    try:
        found = Identity(**json.loads(unframe_text(os.pread(fd, LONGEST, 0))))
    except (OSError, ValueError, TypeError, Unreadable, RecursionError):
        return None
    kinds = str, int, int, int, str, float
    if not all(type(fact) is kind for fact, kind in zip(found, kinds, strict=True)):
        return None
    return found if found.host.isprintable() and 0 <= found.since < LATEST else None
