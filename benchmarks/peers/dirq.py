"""dirq's simple queue: a file per item, locked by a hard link, removed when done."""

from __future__ import annotations

import os
import time

from dirq.QueueSimple import QueueSimple


class Queue:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.queue = QueueSimple(os.path.join(self.folder, "jobs"))
        self.put = self.queue.add
        self.name = ""

    def take(self) -> bytes:
        while True:
            self.name = (self.queue.next() if self.name else "") or self.queue.first()
            if self.name and self.queue.lock(self.name):
                item: bytes = self.queue.get(self.name)
                self.queue.remove(self.name)
                return item
            if not self.name:
                time.sleep(0.0005)

    def close(self) -> None: ...
