"""Read-only engine: opens files for reading only, makes none, repairs none, and takes no lock that others wait for.

So it may read the middle of a change: a count may be off by what happens meanwhile. Every verb that would change
something raises `StoreFailed`. (It is the directory engine on files opened with `reading=True`.)
"""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

from psync.engine.contract.values import Durability
from psync.engine.directory.engine import DirectoryEngine, OpenDirectory, files_of, layout_of
from psync.engine.directory.fs import format_version
from psync.engine.directory.fs.capabilities import NFS_TYPES, Capabilities, file_system_type, is_network
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.permissions import PRIVATE_UMASK
from psync.errors import StoreFailed


class ReadOnlyEngine(DirectoryEngine):
    """The reading verbs on a directory that psync works in (see `layout.is_used`)."""

    def __init__(self, root: str | os.PathLike[str], *, trust_group: bool = False, unpickles: bool = True) -> None:
        layout = layout_of(root, trust_group, unpickles=unpickles)
        try:
            layout.trust.check_root()
            format_version.check(layout)
            kind = file_system_type(layout.root)
            direct = os.O_DIRECT if kind in NFS_TYPES else 0
            can = Capabilities(kind, is_network(kind), unnamed=False, fine_times=False, writable=False, direct=direct)
            layout.presence.begin(network=can.network)
        except OSError as error:
            raise translate_os_error(error, str(root), layout.root) from error
        layout.trust.unnamed = can.unnamed
        fs = files_of(layout, can, "process", reading=True)
        self._compose(
            OpenDirectory(layout, can, fs), fs, "process", ("poll", trust_group, "auto", PRIVATE_UMASK, unpickles)
        )

    def at(self, durability: Durability | None) -> ReadOnlyEngine:
        return self

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        raise StoreFailed(
            "this engine only looks", key="", errno=errno.EROFS, strerror=os.strerror(errno.EROFS), filename=self.root
        )

    write = create = delete = pop = move = update = append_all = guard = _refuse
    owner = sweep = announce = _refuse
