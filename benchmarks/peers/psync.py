"""psync itself, through its public names only."""

from __future__ import annotations

import time

import psync

IMPORT = "import psync"
READY = "import psync; psync.PickleShareDB"
"""What has to be run until there is something to call: names are imported when they are first used."""


def _one_more(count: int) -> int:
    return count + 1


class Store:
    def __init__(self, folder: str) -> None:
        self.db = psync.PickleShareDB(folder)
        self.set = self.db.__setitem__
        self.get = self.db.__getitem__
        self.keys = self.db.keys
        self.clear = self.db.clear
        self.forget = self.db.uncache
        self.close = self.db.close

    def incr(self, key: str) -> None:
        self.db.modify(key, _one_more, 0)


class Category:
    def __init__(self, folder: str) -> None:
        self.db = psync.PickleShareDB(folder)
        self.fill = self.db.hupdate
        self.hset = self.db.hset
        self.hget = self.db.hget
        self.hdict = self.db.hdict
        self.hcompress = self.db.hcompress
        self.close = self.db.close


class Signal:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)

    def wait(self, turn: int, timeout: float) -> float | None:
        try:
            return self.db.waitget(f"turn{turn}", timeout)  # type: ignore[no-any-return]
        except TimeoutError:
            return None

    def send(self, turn: int) -> None:
        self.db[f"turn{turn}"] = time.perf_counter()

    def send_elsewhere(self, turn: int) -> None:
        self.db[f"other{turn}"] = time.perf_counter()


class Queue:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.db = psync.PickleShareDB(self.folder)
        self.queue = psync.WorkQueue(self.db, "jobs")
        self.put = self.queue.put

    def take(self) -> bytes:
        task = self.queue.get()
        task.done()
        return task.value  # type: ignore[no-any-return]

    def fill(self, items: list[bytes]) -> None:
        self.queue.put_many(items)

    def close(self) -> None:
        self.db.close()
