"""Guard long and rare work (a compaction) by a file lock that ends with its holder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.syscalls import let_go, lock, open_made
from psync.engine.directory.layout import Layout
from psync.engine.system.reentry import guard_section

LOCAL_POLL_S, NFS_POLL_S = 0.005, 0.05
"""Seconds between two tries to get the lock."""
_NOTHING = b"\x80\x05N."  # a pickled None: every pickle reader can read the files that stay in a directory


@contextlib.contextmanager
def guard(layout: Layout, name: str, poll_s: float) -> Iterator[None]:
    """See `Engine.guard`. The file is never removed: a waiter that had it open would lock a file without a name."""
    import filelock  # its import takes 50 ms, which only a compaction pays for

    path = layout.guard(name)
    section = guard_section(path)
    with section, section.lock:
        try:
            fd = open_made(path, layout.trust.access)
            try:
                filelock.lock_descriptor(fd, poll_interval=poll_s)
                lock(fd)  # it is locked already; from here on a forked child gives its copy up
                if not os.fstat(fd).st_size:
                    os.pwrite(fd, _NOTHING, 0)
            except BaseException:
                let_go(fd)
                raise
        except OSError as error:
            raise translate_os_error(error, name, path) from error
        try:
            yield
        finally:
            let_go(fd)
