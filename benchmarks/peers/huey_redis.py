"""huey on Redis, with its consumer's worker processes, which look for the next task at least every 10 ms."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import redis
from huey import RedisHuey

from benchmarks.peers.redis import SOCKET, fork


class Pool:
    def __init__(self, folder: str, workers: int) -> None:
        self.huey, self.call = _huey()
        self.consumer = fork.Process(target=_consume, args=(workers,))
        self.consumer.start()

    def submit_all(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        results = [self.call(function, item) for item in items]
        while self.huey.storage.result_store_size() < len(results):
            time.sleep(0.002)
        return [result.get(blocking=True) for result in results]

    map = submit_all

    def close(self) -> None:
        self.consumer.terminate()
        self.consumer.join()


def _huey() -> tuple[RedisHuey, Any]:
    pool = redis.ConnectionPool(connection_class=redis.UnixDomainSocketConnection, path=os.environ[SOCKET])
    huey = RedisHuey("jobs", connection_pool=pool)

    @huey.task()
    def call(function: Callable[[Any], Any], item: Any) -> Any:
        return function(item)

    return huey, call


def _consume(workers: int) -> None:
    logging.getLogger("huey").setLevel(logging.ERROR)
    huey, _ = _huey()
    huey.create_consumer(
        workers=workers, worker_type="process", periodic=False, initial_delay=0.001, backoff=1.1, max_delay=0.01
    ).run()
