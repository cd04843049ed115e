"""rq with workers that run calls in their own process (`SimpleWorker`): its own default forks for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import rq

from benchmarks.peers.redis import _connect, fork


class Pool:
    def __init__(self, folder: str, workers: int) -> None:
        self.redis = _connect()
        self.queue = rq.Queue("jobs", connection=self.redis)
        self.workers = [fork.Process(target=_work) for _ in range(workers)]
        for worker in self.workers:
            worker.start()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        jobs = [self.queue.prepare_data(function, (item,), result_ttl=500) for item in items]
        return self._answers(self.queue.enqueue_many(jobs))

    def submit_all(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return self._answers([self.queue.enqueue(function, item) for item in items])

    def _answers(self, jobs: list[Any]) -> list[Any]:
        while not jobs[-1].is_finished or self.queue.count or self.queue.started_job_registry.count:
            time.sleep(0.002)
        return [job.return_value() for job in jobs]

    def close(self) -> None:
        for worker in self.workers:
            worker.terminate()
            worker.join()
        self.redis.close()


def _work() -> None:
    connection = _connect()
    rq.SimpleWorker([rq.Queue("jobs", connection=connection)], connection=connection).work(logging_level="ERROR")
