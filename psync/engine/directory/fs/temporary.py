"""Write a new file under a temporary name, and give it its own name by a link or a rename."""

from __future__ import annotations

import os

from psync.engine.directory.fs.permissions import PRIVATE, Access
from psync.engine.directory.fs.syscalls import CHANGE, fill, let_go, link, lock, remove_quietly, with_folder
from psync.engine.encoding.framing import Parts


class Temporary:
    """A file under a random name, with `data` in it, locked as long as its writer lives: so a sweep spares it.

    `sync`: `data` is on the disk when the constructor returns.
    """

    def __init__(self, folder: str, data: bytes | Parts, *, sync: bool, access: Access = PRIVATE) -> None:
        self._access = access
        self.fd, self.path = self._new(folder)
        try:
            if access is not PRIVATE:
                os.fchmod(self.fd, access.file)
            fill(self.fd, data, sync=sync)
        except BaseException:
            self.discard()
            raise

    def _new(self, folder: str) -> tuple[int, str]:
        while True:
            path = self._choose(folder)
            fd = with_folder(path, lambda: self._create(path), self._access)  # noqa: B023
            try:
                lock(fd)
                # between the creation and the lock a sweep may have taken the file for an orphan, and removed it
                if self._is_live(path, fd):
                    return fd, path
            except BaseException:
                let_go(fd)
                raise
            let_go(fd)

    def _choose(self, folder: str) -> str:
        return f"{folder}/{os.urandom(8).hex()}"

    def _create(self, path: str) -> int:
        return os.open(path, CHANGE | os.O_CREAT | os.O_EXCL, self._access.file)

    def _is_live(self, path: str, fd: int) -> bool:
        return os.fstat(fd).st_nlink > 0

    def _is_at(self, path: str) -> bool:
        """Whether a link or rename to `path` that was reported to have failed was made all the same."""
        return False

    def replace(self, path: str) -> None:
        """Rename the file to `path`, whatever was there, and release it."""
        try:
            self.rename(path)
        except BaseException:
            self.discard()
            raise
        let_go(self.fd)

    def rename(self, path: str) -> None:
        """Rename the file to `path`, whatever was there. It stays open and locked, however that ends."""
        try:
            os.rename(self.path, path)
        except FileNotFoundError:
            if not self._is_at(path):
                raise

    def link(self, path: str) -> bool:
        """Rename the file to `path` unless there is something already, and release it. True if it was renamed."""
        try:
            return self.put(path)
        finally:
            self.discard()

    def put(self, path: str) -> bool:
        """Link the file to `path` unless there is something already. It stays open and locked, under its temporary name
        too, however that ends."""
        return with_folder(path, lambda: link(self.path, path), self._access) or self._is_at(path)

    def discard(self) -> None:
        """Remove the temporary name, then release the file: nobody else finds it unlocked."""
        remove_quietly(self.path)
        let_go(self.fd)
