"""huey's SQLite storage at the level of its queue: bytes in, bytes out, no acknowledgement, no task around them."""

from __future__ import annotations

import os
import time

from huey.storage import SqliteStorage


class Queue:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        # fsync=False: as psync by default, it survives any kill but no power cut
        self.storage = SqliteStorage("jobs", os.path.join(self.folder, "huey.db"), fsync=False, timeout=60)
        self.put = self.storage.enqueue

    def take(self) -> bytes:
        while True:
            item: bytes | None = self.storage.dequeue()
            if item is not None:
                return item
            time.sleep(0.0005)

    def close(self) -> None:
        self.storage.close()
