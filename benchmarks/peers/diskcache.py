"""diskcache with its default settings: one SQLite file; its `Deque` as a queue without acknowledgement;
its locks and semaphores, which stay taken when their holder is killed."""

from __future__ import annotations

import time

import diskcache


class Store:
    def __init__(self, folder: str) -> None:
        self.cache = diskcache.Cache(folder)
        self.set = self.cache.__setitem__
        self.get = self.cache.__getitem__
        self.incr = self.cache.incr
        self.clear = self.cache.clear
        self.close = self.cache.close

    def keys(self) -> list[str]:
        return list(self.cache)

    def forget(self) -> None: ...


class Category:
    """The pairs (category, key) as keys, which is how one does it there."""

    def __init__(self, folder: str) -> None:
        self.cache = diskcache.Cache(folder)
        self.close = self.cache.close

    def fill(self, root: str, items: dict[str, object]) -> None:
        with self.cache.transact():
            for key, value in items.items():
                self.cache[root, key] = value

    def hset(self, root: str, key: str, value: object) -> None:
        self.cache[root, key] = value

    def hget(self, root: str, key: str) -> object:
        return self.cache[root, key]


class Mailbox:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.cache = diskcache.Cache(self.folder)
        self.post = self.cache.add
        self.get = self.cache.__getitem__

    def fill(self, letters: dict[str, object]) -> None:
        with self.cache.transact():
            for address, letter in letters.items():
                self.cache.add(address, letter)

    def close(self) -> None:
        self.cache.close()


class Queue:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.deque = diskcache.Deque(directory=self.folder)
        self.put = self.deque.append

    def take(self) -> bytes:
        while True:
            try:
                return self.deque.popleft()  # type: ignore[no-any-return]
            except IndexError:
                time.sleep(0.0005)

    def fill(self, items: list[bytes]) -> None:
        with self.deque.transact():
            self.deque.extend(items)

    def close(self) -> None:
        self.deque.cache.close()


class Lock:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self) -> None:
        self.cache = diskcache.Cache(self.folder)
        lock = diskcache.Lock(self.cache, "lock")
        self.acquire = lock.acquire
        self.release = lock.release

    def close(self) -> None:
        self.cache.close()


class Semaphore:
    def __init__(self, folder: str, value: int) -> None:
        self.folder = folder
        self.value = value

    def open(self) -> None:
        self.cache = diskcache.Cache(self.folder)
        semaphore = diskcache.BoundedSemaphore(self.cache, "semaphore", self.value)
        self.acquire = semaphore.acquire
        self.release = semaphore.release

    def close(self) -> None:
        self.cache.close()
