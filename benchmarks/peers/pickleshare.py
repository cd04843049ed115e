"""PickleShare 0.7.5: a file per value, polling to wait."""

from __future__ import annotations

import os
import pickle
import time

import pickleshare

IMPORT = READY = "import pickleshare, filelock, psutil"


class Store:
    def __init__(self, folder: str) -> None:
        self.db = pickleshare.PickleShareDB(folder)
        self.set = self.db.__setitem__
        self.get = self.db.__getitem__
        self.keys = self.db.keys
        self.clear = self.db.clear
        self.forget = self.db.uncache

    def incr(self, key: str) -> None:
        self.db[key] = self.db.get(key, 0) + 1  # nothing better is to be had there

    def close(self) -> None: ...


class Category:
    def __init__(self, folder: str) -> None:
        self.db = pickleshare.PickleShareDB(folder)
        self.hset = self.db.hset
        self.hget = self.db.hget
        self.hdict = self.db.hdict
        self.hcompress = self.db.hcompress

    def fill(self, root: str, items: dict[str, object]) -> None:
        """The bucket files that `hset` of all `items` would leave, which by itself takes minutes."""
        buckets: dict[str, dict[str, object]] = {}
        for key, value in items.items():
            buckets.setdefault(pickleshare.gethashfile(key), {})[key] = value
        os.makedirs(self.db.root / root)
        for name, bucket in buckets.items():
            (self.db.root / root / name).write_bytes(pickle.dumps(bucket, protocol=2))

    def close(self) -> None: ...


class Signal:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.db = pickleshare.PickleShareDB(self.folder)

    def wait(self, turn: int, timeout: float) -> float | None:
        try:
            return self.db.waitget(f"turn{turn}", timeout)  # type: ignore[no-any-return]
        except KeyError:
            return None

    def send(self, turn: int) -> None:
        self.db[f"turn{turn}"] = time.perf_counter()

    def send_elsewhere(self, turn: int) -> None:
        self.db[f"other{turn}"] = time.perf_counter()
