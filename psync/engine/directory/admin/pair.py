"""Two-host check: do locks exclude, how soon does a host see the other's change, how far apart are the clocks?

The first process creates ``.psync/pair/first`` and leads; the second finds it, and answers. A message is a cell of
their own, written once, which the other waits for. The locks under trial are the file system's.
"""

from __future__ import annotations

import fcntl
import os
import statistics
from collections.abc import Callable, Iterator

from psync.engine.contract.report import NOTE, OK, WRONG, Finding
from psync.engine.contract.values import Alive
from psync.engine.directory.engine import DirectoryEngine
from psync.engine.directory.fs.syscalls import CHANGE, let_go, open_made
from psync.engine.encoding.framing import as_pickle
from psync.engine.system import clock

FOLDER = ".psync/pair"
ROUNDS = 10
MAX_DELAY_S = 1.0
"""Seconds within which each host should see the other's change."""


def pair_hosts(root: str, patience: float) -> Iterator[Finding]:
    """Run the check with another host; `patience`: seconds to wait for it. Both hosts get the same findings.

    Raises TimeoutError if no other host comes, or answers.
    """
    engine = DirectoryEngine(root, sharing="network")
    try:
        where, leads = _find_partner(engine, patience)
        pair = _Pair(engine, where, leads, patience)
        pair.send("here")
        pair.receive("here")
        yield from (pair.lead() if leads else pair.follow())
    finally:
        engine.close()


def _find_partner(engine: DirectoryEngine, patience: float) -> tuple[str, bool]:
    """The folder of this pair's cells, and whether this process leads."""
    first, mine = f"{FOLDER}/first", f"{engine.owner()}"
    deadline = clock.monotonic() + patience
    while clock.monotonic() < deadline:
        if engine.create(first, _packed(mine)):
            return f"{FOLDER}/{mine}", True
        cell = engine.read(first)
        if cell is None:
            continue
        leader = _unpacked(cell.payload)
        if engine.alive(int(leader)) is Alive.NO:
            engine.delete(first)  # it was killed
        elif engine.create(f"{FOLDER}/{leader}/second", _packed(mine)):
            return f"{FOLDER}/{leader}", False
        else:
            clock.sleep(0.05)  # two other hosts are a pair already
    raise TimeoutError(f"no other host was there within {patience:g} seconds")


class _Pair:
    def __init__(self, engine: DirectoryEngine, where: str, leads: bool, patience: float) -> None:
        self._engine = engine
        self._where = where
        self._mine, self._other = ("1", "2") if leads else ("2", "1")
        self._patience = patience
        self._path = engine.layout.path(f"{where}/lock")

    def send(self, what: str, text: str = "") -> None:
        self._engine.write(f"{self._where}/{what}-{self._mine}", _packed(text))

    def receive(self, what: str) -> str:
        name = f"{self._where}/{what}-{self._other}"
        deadline = clock.monotonic() + self._patience
        with self._engine.watch([name]) as watch:
            while (cell := self._engine.read(name)) is None:
                if clock.monotonic() > deadline:
                    raise TimeoutError(f"no other host was there within {self._patience:g} seconds")
                watch.pause(deadline - clock.monotonic())
        return _unpacked(cell.payload)

    def lead(self) -> Iterator[Finding]:
        for how in ("flock", "fcntl"):
            yield self._lock(how)
        there, ahead = [], []
        for number in range(ROUNDS):
            begun, wall = clock.monotonic(), clock.wall_ns()
            self.send(f"question{number}")
            answered = int(self.receive(f"answer{number}"))
            took = clock.monotonic() - begun
            there.append(took / 2)
            ahead.append((took, (answered - wall) / 1e9 - took / 2))
        found = [_visibility(there), _clocks(min(ahead))]
        self.send("report", "\n".join("\t".join(finding) for finding in found))
        yield from found
        self.receive("bye")
        for name in [f"{FOLDER}/first", *self._engine.list(self._where)]:
            self._engine.delete(name)

    def follow(self) -> Iterator[Finding]:
        for how in ("flock", "fcntl"):
            self.receive(f"{how}-held")
            kept_out = not self._try(how)
            self.send(f"{how}-tried", str(int(kept_out)))
            yield _excluded(how, kept_out)
        for number in range(ROUNDS):
            self.receive(f"question{number}")
            self.send(f"answer{number}", str(clock.wall_ns()))
        for line in self.receive("report").split("\n"):
            yield Finding(*line.split("\t"))
        self.send("bye")

    def _lock(self, how: str) -> Finding:
        fd = open_made(self._path, self._engine.layout.trust.access)
        try:
            _LOCKS[how](fd, fcntl.LOCK_EX)
            self.send(f"{how}-held")
            return _excluded(how, self.receive(f"{how}-tried") == "1")
        finally:
            let_go(fd)

    def _try(self, how: str) -> bool:
        fd = os.open(self._path, CHANGE)
        try:
            _LOCKS[how](fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):
            return False
        finally:
            let_go(fd)


_LOCKS: dict[str, Callable[[int, int], object]] = {"flock": fcntl.flock, "fcntl": fcntl.lockf}


def _excluded(how: str, right: bool) -> Finding:
    what = f"{how} between the two"
    if right:
        return Finding(what, OK, "what one holds keeps the other out")
    return Finding(what, WRONG, "both hold one lock", "mount it without nolock and local_lock, on both hosts")


def _visibility(seconds: list[float]) -> Finding:
    median, worst = statistics.median(seconds), max(seconds)
    says = f"what one sets the other sees after {median:.3f} s in the median, {worst:.3f} s at worst"
    if worst < MAX_DELAY_S:
        return Finding("visibility", OK, says)
    return Finding("visibility", NOTE, says, "see how busy the server and the network are")


def _clocks(best: tuple[float, float]) -> Finding:
    took, ahead = best
    says = (
        f"the clock of the second is {abs(ahead):.3f} s {'ahead' if ahead > 0 else 'behind'} (within {took / 2:.3f} s)"
    )
    return Finding("clocks", OK, f"{says}; nothing depends on them")


def _packed(text: str) -> bytes:
    """A text as a pickle of bytes, so that every pickle reader can open the cell."""
    return as_pickle(text.encode())


def _unpacked(payload: bytes) -> str:
    return payload[7:-1].decode()
