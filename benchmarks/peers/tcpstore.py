"""torch's `TCPStore` on the same machine: its server runs in the process that forks the parties."""

from __future__ import annotations

import time
from datetime import timedelta

from torch.distributed import DistStoreError, TCPStore

PATIENCE = timedelta(seconds=60)


class Signal:
    def __init__(self, folder: str) -> None:
        self.server = TCPStore("127.0.0.1", 0, None, True, PATIENCE, wait_for_workers=False)

    def open(self) -> None:
        self.store = TCPStore("127.0.0.1", self.server.port, None, False, PATIENCE, wait_for_workers=False)

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


class Barrier:
    """Each party counts itself; the last one sets the key of the round, for which the others wait."""

    def __init__(self, folder: str, parties: int) -> None:
        self.server = TCPStore("127.0.0.1", 0, None, True, PATIENCE, wait_for_workers=False)
        self.parties = parties
        self.round = 0

    def open(self) -> None:
        self.store = TCPStore("127.0.0.1", self.server.port, None, False, PATIENCE, wait_for_workers=False)

    def wait(self) -> None:
        self.round += 1
        begin = f"begin {self.round}"
        if self.store.add("arrived", 1) == self.round * self.parties:
            self.store.set(begin, b"")
        else:
            self.store.wait([begin])

    def close(self) -> None: ...
