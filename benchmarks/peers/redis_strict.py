"""A Redis list where an item is moved aside while it is worked on (BLMOVE) and then removed (LREM): nothing is lost."""

from __future__ import annotations

import os

from benchmarks.peers import redis

clean = redis.clean


class Queue(redis.Queue):
    def open(self) -> None:
        super().open()
        self.mine = f"taken by {os.getpid()}"

    def take(self) -> bytes:
        item: bytes = self.redis.blmove("jobs", self.mine, 0, "RIGHT", "LEFT")
        self.redis.lrem(self.mine, 1, item)
        return item
