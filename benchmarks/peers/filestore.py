"""torch's `FileStore`: one file to which all is appended, and which who waits reads again and again."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from torch.distributed import DistStoreError, FileStore


class Signal:
    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "store")

    def open(self) -> None:
        self.store = FileStore(self.path, 2)

    def wait(self, turn: int, timeout: float) -> float | None:
        try:
            self.store.wait([f"turn{turn}"], timedelta(seconds=timeout))
        except DistStoreError:
            return None
        return float(self.store.get(f"turn{turn}"))

    def send(self, turn: int) -> None:
        self.store.set(f"turn{turn}", repr(time.perf_counter()))

    def send_elsewhere(self, turn: int) -> None:
        self.store.set(f"other{turn}", repr(time.perf_counter()))
