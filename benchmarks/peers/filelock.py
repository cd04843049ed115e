"""filelock's `FileLock` with its default settings."""

from __future__ import annotations

import os

import filelock


class Lock:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.lock = filelock.FileLock(os.path.join(self.folder, "lock"))
        self.acquire = self.lock.acquire
        self.release = self.lock.release

    def close(self) -> None: ...
