"""Redis on the same machine, through a unix socket, with nothing kept on disk; values are pickled by protocol 5."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

fork = multiprocessing.get_context("fork")

SOCKET = "PSYNC_BENCH_REDIS"
"""The environment variable that tells the measuring processes where the run's server listens."""


@contextmanager
def server() -> Iterator[str]:
    """A Redis server of the run's own, ended with it; what the URLs of psync's stores there begin with."""
    with tempfile.TemporaryDirectory(prefix="psync-bench-") as home:
        socket = os.path.join(home, "redis")
        nothing_on_disk = ["--save", "", "--appendonly", "no", "--dir", home]
        command = ["redis-server", "--port", "0", "--unixsocket", socket, *nothing_on_disk]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.environ[SOCKET] = socket
        try:
            _wait_until_it_answers()
            yield f"unix://{socket}?db=0&prefix="
        finally:
            del os.environ[SOCKET]
            process.terminate()
            process.wait()


def _wait_until_it_answers(patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            _connect().ping()
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _connect() -> redis.Redis:
    return redis.Redis(unix_socket_path=os.environ[SOCKET], socket_timeout=None)


def clean() -> None:
    _connect().flushall()


class Store:
    def __init__(self, folder: str) -> None:
        self.redis = _connect()
        self.incr = self.redis.incr
        self.clear = self.redis.flushdb
        self.close = self.redis.close

    def set(self, key: str, value: object) -> None:
        self.redis.set(key, pickle.dumps(value, protocol=5))

    def get(self, key: str) -> object:
        stored = self.redis.get(key)
        if stored is None:
            raise KeyError(key)
        return int(stored) if stored.isdigit() else pickle.loads(stored)  # what INCR made is digits

    def keys(self) -> list[str]:
        return [key.decode() for key in self.redis.scan_iter(count=1000)]

    def forget(self) -> None: ...


class Category:
    def __init__(self, folder: str) -> None:
        self.redis = _connect()
        self.close = self.redis.close

    def fill(self, root: str, items: dict[str, object]) -> None:
        self.redis.hset(root, mapping={key: pickle.dumps(value, protocol=5) for key, value in items.items()})

    def hset(self, root: str, key: str, value: object) -> None:
        self.redis.hset(root, key, pickle.dumps(value, protocol=5))

    def hget(self, root: str, key: str) -> object:
        return pickle.loads(self.redis.hget(root, key))

    def hdict(self, root: str) -> dict[str, object]:
        return {key.decode(): pickle.loads(value) for key, value in self.redis.hgetall(root).items()}


class Signal:
    def __init__(self, folder: str) -> None: ...

    def open(self) -> None:
        self.redis = _connect()

    def wait(self, turn: int, timeout: float) -> float | None:
        answer = self.redis.blpop([f"turn{turn}"], timeout=timeout)
        return None if answer is None else float(answer[1])

    def send(self, turn: int) -> None:
        self.redis.rpush(f"turn{turn}", repr(time.perf_counter()))

    def send_elsewhere(self, turn: int) -> None:
        self.redis.rpush(f"other{turn}", repr(time.perf_counter()))


class Queue:
    """LPUSH and BRPOP: whoever dies with an item in hand has lost it."""

    def __init__(self, folder: str) -> None: ...

    def open(self) -> None:
        self.redis = _connect()

    def put(self, item: bytes) -> None:
        self.redis.lpush("jobs", item)

    def take(self) -> bytes:
        item: bytes = self.redis.brpop(["jobs"])[1]
        return item

    def fill(self, items: list[bytes]) -> None:
        self.redis.lpush("jobs", *items)

    def close(self) -> None:
        self.redis.close()


class Barrier:
    """Each party counts itself; the last one pushes a word for each of the others, who wait for one."""

    def __init__(self, folder: str, parties: int) -> None:
        self.parties = parties
        self.round = 0

    def open(self) -> None:
        self.redis = _connect()

    def wait(self) -> None:
        self.round += 1
        begin = f"begin {self.parties} {self.round}"
        if self.redis.incr(f"arrived {self.parties}") == self.round * self.parties:
            self.redis.rpush(begin, *[b"go"] * (self.parties - 1))
        else:
            self.redis.blpop([begin])

    def close(self) -> None:
        self.redis.close()


class Lock:
    """redis-py's lock, without a time limit: who is killed while it holds it leaves it taken."""

    def __init__(self, folder: str) -> None: ...

    def open(self) -> None:
        self.redis = _connect()
        lock = self.redis.lock("lock")
        self.acquire = lock.acquire
        self.release = lock.release

    def close(self) -> None:
        self.redis.close()


class Semaphore:
    """A list of permits: who takes one pops it, who is killed with one has lost it."""

    def __init__(self, folder: str, value: int) -> None:
        self.value = value

    def open(self) -> None:
        self.redis = _connect()
        self.redis.rpush("permits", *[b"permit"] * self.value)

    def acquire(self) -> None:
        self.redis.blpop(["permits"])

    def release(self) -> None:
        self.redis.rpush("permits", b"permit")

    def close(self) -> None:
        self.redis.close()
