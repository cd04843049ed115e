"""persist-queue's SQLite queue with acknowledgement."""

from __future__ import annotations

import persistqueue


class Queue:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.queue = persistqueue.SQLiteAckQueue(self.folder, auto_commit=True, multithreading=True)
        self.put = self.queue.put

    def take(self) -> bytes:
        item: bytes = self.queue.get()
        self.queue.ack(item)
        return item

    def close(self) -> None:
        self.queue.close()
