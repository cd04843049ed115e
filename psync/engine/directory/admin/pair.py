"""Two hosts try a directory out together: do locks exclude, how soon is seen what the other did, how do clocks differ?

Whoever comes first creates ``.psync/pair/first`` and leads; the other one finds it, and answers. What one has to tell
the other is a cell of their own, written once and waited for; the locks that are tried are the file system's.
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

WHERE = ".psync/pair"
ROUNDS = 10
PROMPT = 1.0
"""Seconds in which each should have seen what the other did."""


def paired(root: str, patience: float) -> Iterator[Finding]:
    """What came of it; `patience` is how many seconds to wait for the other. Both find the same.

    Raises TimeoutError if nobody comes, or answers.
    """
    engine = DirectoryEngine(root, sharing="network")
    try:
        where, leads = _met(engine, patience)
        pair = _Pair(engine, where, leads, patience)
        pair.tell("here")
        pair.hear("here")
        yield from (pair.lead() if leads else pair.follow())
    finally:
        engine.close()


def _met(engine: DirectoryEngine, patience: float) -> tuple[str, bool]:
    """Where this pair's cells are, and whether this process leads."""
    first, mine = f"{WHERE}/first", f"{engine.owner()}"
    deadline = clock.monotonic() + patience
    while clock.monotonic() < deadline:
        if engine.create(first, _packed(mine)):
            return f"{WHERE}/{mine}", True
        cell = engine.read(first)
        if cell is None:
            continue
        leader = _unpacked(cell.payload)
        if engine.alive(int(leader)) is Alive.NO:
            engine.delete(first)  # it was killed
        elif engine.create(f"{WHERE}/{leader}/second", _packed(mine)):
            return f"{WHERE}/{leader}", False
        else:
            clock.sleep(0.05)  # two others are at it
    raise TimeoutError(f"no other host was there within {patience:g} seconds")


class _Pair:
    def __init__(self, engine: DirectoryEngine, where: str, leads: bool, patience: float) -> None:
        self._engine = engine
        self._where = where
        self._mine, self._other = ("1", "2") if leads else ("2", "1")
        self._patience = patience
        self._path = engine.layout.path(f"{where}/lock")

    def tell(self, what: str, text: str = "") -> None:
        self._engine.write(f"{self._where}/{what}-{self._mine}", _packed(text))

    def hear(self, what: str) -> str:
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
            self.tell(f"question{number}")
            answered = int(self.hear(f"answer{number}"))
            took = clock.monotonic() - begun
            there.append(took / 2)
            ahead.append((took, (answered - wall) / 1e9 - took / 2))
        found = [_seen(there), _clocks(min(ahead))]
        self.tell("report", "\n".join("\t".join(finding) for finding in found))
        yield from found
        self.hear("bye")
        for name in [f"{WHERE}/first", *self._engine.list(self._where)]:
            self._engine.delete(name)

    def follow(self) -> Iterator[Finding]:
        for how in ("flock", "fcntl"):
            self.hear(f"{how}-held")
            kept_out = not self._try(how)
            self.tell(f"{how}-tried", str(int(kept_out)))
            yield _excluded(how, kept_out)
        for number in range(ROUNDS):
            self.hear(f"question{number}")
            self.tell(f"answer{number}", str(clock.wall_ns()))
        for line in self.hear("report").split("\n"):
            yield Finding(*line.split("\t"))
        self.tell("bye")

    def _lock(self, how: str) -> Finding:
        fd = open_made(self._path, self._engine.layout.trust.access)
        try:
            _LOCKS[how](fd, fcntl.LOCK_EX)
            self.tell(f"{how}-held")
            return _excluded(how, self.hear(f"{how}-tried") == "1")
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


def _seen(seconds: list[float]) -> Finding:
    median, worst = statistics.median(seconds), max(seconds)
    says = f"what one sets the other sees after {median:.3f} s in the median, {worst:.3f} s at worst"
    if worst < PROMPT:
        return Finding("visibility", OK, says)
    return Finding("visibility", NOTE, says, "see how busy the server and the network are")


def _clocks(best: tuple[float, float]) -> Finding:
    took, ahead = best
    says = (
        f"the clock of the second is {abs(ahead):.3f} s {'ahead' if ahead > 0 else 'behind'} (within {took / 2:.3f} s)"
    )
    return Finding("clocks", OK, f"{says}; nothing depends on them")


def _packed(text: str) -> bytes:
    """A text as a pickle of bytes, so that whoever reads it is not led astray."""
    return as_pickle(text.encode())


def _unpacked(payload: bytes) -> str:
    return payload[7:-1].decode()
