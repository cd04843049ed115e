"""torch's `TCPStore` on the same machine: its server runs in the process that forks the parties."""

from __future__ import annotations

from datetime import timedelta

from torch.distributed import TCPStore

PATIENCE = timedelta(seconds=60)


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
