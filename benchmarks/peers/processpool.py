"""The standard library's `ProcessPoolExecutor`; a worker that is killed breaks it, with all calls that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


class Pool:
    def __init__(self, folder: str, workers: int) -> None:
        self.executor = ProcessPoolExecutor(workers)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self.executor.map(function, items))

    def submit_all(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [future.result() for future in [self.executor.submit(function, item) for item in items]]

    def close(self) -> None:
        self.executor.shutdown()
