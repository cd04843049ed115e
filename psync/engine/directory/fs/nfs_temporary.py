"""Write a new file on a network file system, where a request may be done though it is reported to have failed.

A reply gets lost, the client sends the request again, and the server answers the second one: the file exists already,
or there is nothing left to rename. So each such failure is checked against what the name leads to now.
"""

from __future__ import annotations

import os

from psync.engine.directory.fs.nfs_lookup import Lookups
from psync.engine.directory.fs.permissions import Access
from psync.engine.directory.fs.syscalls import CHANGE, let_go, remove_quietly
from psync.engine.directory.fs.temporary import Temporary
from psync.engine.encoding.framing import Parts


class NfsTemporary(Temporary):
    """`at`: the name to use instead of a random one. Others may use it too: FileExistsError if somebody does."""

    def __init__(
        self, folder: str, data: bytes | Parts, lookups: Lookups, *, sync: bool, access: Access, at: str | None = None
    ) -> None:
        self._lookups = lookups
        self._at = at
        super().__init__(folder, data, sync=sync, access=access)

    def _choose(self, folder: str) -> str:
        return self._at or super()._choose(folder)

    def _create(self, path: str) -> int:
        flags = CHANGE | self._lookups.direct
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, self._access.file)
        except FileExistsError:
            if self._at is not None:
                raise
            # nobody else uses a random name: the reply to the first request was lost, and that one made the file
            return os.open(path, flags)

    def _is_live(self, path: str, fd: int) -> bool:
        return self._lookups.is_live(path, fd) is not None

    def _is_at(self, path: str) -> bool:
        return self._lookups.leads_to(path, os.fstat(self.fd), sure=True)

    def discard(self) -> None:
        """Release the file, then remove its name: a file that is removed while it is open goes to another name first
        (``.nfsXXXX``), which costs two requests more and stays behind if this host dies."""
        let_go(self.fd)
        remove_quietly(self.path)
