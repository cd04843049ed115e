"""joblib's `Parallel` with its default workers (loky), which batches calls as it sees fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import joblib


class Pool:
    def __init__(self, folder: str, workers: int) -> None:
        self.workers = workers

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        calls = (joblib.delayed(function)(item) for item in items)
        found: list[Any] = joblib.Parallel(n_jobs=self.workers)(calls)
        return found

    def close(self) -> None: ...
