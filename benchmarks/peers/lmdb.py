"""LMDB, one transaction an operation, with nothing synced: a map of bytes in shared memory; values are pickled."""

from __future__ import annotations

import pickle

import lmdb

MAP_BYTES = 4 << 30
"""How much may be stored; the file is sparse."""


class Store:
    def __init__(self, folder: str) -> None:
        self.db = lmdb.open(folder, map_size=MAP_BYTES, sync=False, metasync=False)
        self.close = self.db.close

    def set(self, key: str, value: object) -> None:
        with self.db.begin(write=True) as transaction:
            transaction.put(key.encode(), pickle.dumps(value, protocol=5))

    def get(self, key: str) -> object:
        with self.db.begin(buffers=True) as transaction:
            stored = transaction.get(key.encode())
            if stored is None:
                raise KeyError(key)
            return pickle.loads(stored)

    def incr(self, key: str) -> None:
        with self.db.begin(write=True) as transaction:
            stored = transaction.get(key.encode())
            count = pickle.loads(stored) if stored else 0
            transaction.put(key.encode(), pickle.dumps(count + 1, protocol=5))

    def keys(self) -> list[str]:
        with self.db.begin() as transaction:
            return [key.decode() for key in transaction.cursor().iternext(values=False)]

    def clear(self) -> None:
        with self.db.begin(write=True) as transaction:
            transaction.drop(self.db.open_db(), delete=False)

    def forget(self) -> None: ...


class Category:
    """A database of its own would be the same tree: the pair (category, key) as the key."""

    def __init__(self, folder: str) -> None:
        self.store = Store(folder)
        self.close = self.store.close

    def fill(self, root: str, items: dict[str, object]) -> None:
        with self.store.db.begin(write=True) as transaction:
            for key, value in items.items():
                transaction.put(f"{root}/{key}".encode(), pickle.dumps(value, protocol=5))

    def hset(self, root: str, key: str, value: object) -> None:
        self.store.set(f"{root}/{key}", value)

    def hget(self, root: str, key: str) -> object:
        return self.store.get(f"{root}/{key}")

    def hdict(self, root: str) -> dict[str, object]:
        found = {}
        with self.store.db.begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                found[bytes(key).decode().removeprefix(f"{root}/")] = pickle.loads(value)
        return found
