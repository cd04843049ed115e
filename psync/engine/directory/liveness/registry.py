"""Owner registry: each process keeps a file of its own locked as long as it lives, so a free lock proves its death.

The file is locked before it is renamed to its name. Its owner removes it when it closes the engine or ends in order; a
sweep removes the file of a dead owner. So an owner without a file is gone. The fact that decides: whether another
process gets a shared `flock` on the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from psync.engine.contract.values import Alive
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import loading, translate_os_error
from psync.engine.directory.fs.fd_cache import with_room
from psync.engine.directory.fs.syscalls import READ, hand_over, let_go, make_folder
from psync.engine.directory.layout import Layout, number_in
from psync.engine.encoding.framing import Unreadable, frame_text, unframe_text
from psync.engine.system import clock, fork_hooks
from psync.engine.system.reentry import Section

if TYPE_CHECKING:
    from psync.engine.contract.report import Identity

MAX_SINCE_S = 253402300800.0
"""Seconds since 1970: the year 10000."""
MAX_RECORD_BYTES = 4096
"""An owner's record is read up to here."""


class OwnerRegistry:
    """The processes that work in one directory."""

    def __init__(self, layout: Layout, fs: AtomicFiles, registering: Callable[[], object]) -> None:
        """`registering` is called before this process becomes an owner."""
        self._layout = layout
        self._fs = fs
        self._registering = registering
        self.number = 0
        """This process's number here; 0 as long as it has none."""
        self._fd = -1
        self._section = Section("the registration of this process")

    def owner(self) -> int:
        """The number of this process here; the first call registers it."""
        if number := self.number:
            return number
        with loading("this process", self._layout.owners):
            self._registering()
            return self._register()

    def _register(self) -> int:
        with self._section, self._section.lock, fork_hooks.put_off:
            if self.number:
                return self.number
            import json

            from psync.engine.system.process_identity import myself

            who = frame_text(json.dumps(myself(clock.wall_ns() / 1e9)._asdict()).encode())
            make_folder(self._layout.owners, self._layout.trust.access)
            new = self._fs.temporary(who, sync=False)
            number = int.from_bytes(os.urandom(8), "little") >> 1 or 1
            try:
                new.rename(self._layout.owner(number))
            except BaseException:
                new.discard()
                raise
            self._fd, self.number = hand_over(new.fd), number  # the descriptor stays open, and with it the lock
            self._fs.presence.watch_owner(self._is_lost)
            return number

    def _is_lost(self) -> bool:
        """Whether something else has removed this process's file: then it is another owner from now on. fstat."""
        fd = self._fd
        try:
            if fd < 0 or os.fstat(fd).st_nlink:
                return False
        except OSError:  # another thread has closed it, or the server does not know it any more
            return False
        self._fd, self.number = -1, 0
        let_go(fd)
        return True

    def alive(self, owner: int) -> Alive:
        """open, flock, close."""
        try:
            return self._probe(owner)
        except OSError as error:
            raise translate_os_error(error, "an owner", self._layout.owner(owner)) from error

    def _probe(self, owner: int) -> Alive:
        if owner == self.number and owner:
            return Alive.YES
        try:
            fd = with_room(lambda: self._fs.open(self._layout.owner(owner), READ))
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
            from psync.engine.system.process_identity import examine

            identity = _read_identity(fd)
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
            return _read_identity(fd)
        finally:
            os.close(fd)

    def sweep(self) -> int:
        """Remove the files of dead owners: an owner without a file is dead too."""
        removed = 0
        with contextlib.suppress(FileNotFoundError):
            for owner in filter(None, map(number_in, self._fs.listing(self._layout.owners))):
                if owner != self.number and self._probe(owner) is Alive.NO:
                    with contextlib.suppress(OSError):
                        os.unlink(self._layout.owner(owner))
                        removed += 1
        return removed

    def close(self) -> None:
        """Give the number back: anything that this process still holds counts as a dead owner's."""
        with self._section, self._section.lock:
            if self._fd >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(self._layout.owner(self.number))
                let_go(self._fd)
            self._fd, self.number = -1, 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter is going down
            self.close()  # no engine, log or mutex is left by which this process could hold anything

    def after_fork(self) -> None:
        """In a child: it is another owner, and its copy of the descriptor must not keep the parent's lock."""
        self._section = Section("the registration of this process")
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.number = -1, 0


def _read_identity(fd: int) -> Identity | None:
    """The identity in an owner's record; None if it is damaged, or none."""
    try:
        import json

        from psync.engine.contract.report import Identity

        found = Identity(**json.loads(unframe_text(os.pread(fd, MAX_RECORD_BYTES, 0))))
    except (OSError, ValueError, TypeError, Unreadable, RecursionError):
        return None
    kinds = str, int, int, int, str, float
    if not all(type(fact) is kind for fact, kind in zip(found, kinds, strict=True)):
        return None
    return found if found.host.isprintable() and 0 <= found.since < MAX_SINCE_S else None
