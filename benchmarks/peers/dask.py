"""dask's distributed scheduler with worker processes of one thread on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from distributed import Client, LocalCluster


class Pool:
    def __init__(self, folder: str, workers: int) -> None:
        self.cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=os.path.join(folder, "dask"),
            silence_logs=50,
        )
        self.client = Client(self.cluster)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        futures = self.client.map(function, list(items), pure=False)
        found: list[Any] = self.client.gather(futures)
        return found

    def submit_all(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        found: list[Any] = self.client.gather([self.client.submit(function, item, pure=False) for item in items])
        return found

    def close(self) -> None:
        self.client.close()
        self.cluster.close()
