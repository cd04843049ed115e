"""Two-host check: do locks exclude, how soon does a host see the other's change, how far apart are the clocks?

The first process creates ``.psync/pair/first`` and leads; the second finds it, and answers. A message is a cell of
their own, written once, which the other waits for. The locks under trial are the file system's, so nothing here relies
on a lock to tell whether the other one lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import crc32

from psync.engine.contract.report import NOTE, OK, WRONG, Finding, Identity
from psync.engine.contract.values import Alive
from psync.engine.directory.engine import DirectoryEngine
from psync.engine.directory.fs.syscalls import CHANGE, let_go, open_made, remove_empty
from psync.engine.encoding.framing import as_pickle
from psync.engine.system import clock
from psync.engine.system.process_identity import examine, myself

FOLDER = ".psync/pair"
FIRST = f"{FOLDER}/first"
LOOK_S = 0.05
"""Seconds between two looks for a partner."""
DEFAULT_PATIENCE_S = 60.0
ROUNDS = 10
MAX_DELAY_S = 1.0
"""Seconds within which each host should see the other's change."""


def pair_hosts(root: str, patience: float) -> Iterator[Finding]:
    """Run the check with another host; `patience`: seconds to wait for it. Both hosts get the same findings.

    Raises TimeoutError if no other host comes, or answers. It leaves no message behind, however it ends.
    """
    engine = DirectoryEngine(root, sharing="network")
    try:
        pair = _Pairing(engine, patience).find()
        try:
            yield from (pair.lead() if pair.leads else pair.follow())
        except BaseException:
            pair.clear()
            raise
        if pair.leads:
            pair.clear()  # the other one has read all, and gone
    finally:
        engine.close()


class Invitation(NamedTuple):
    """The content of ``first``: a process that waits for another one."""

    number: int
    """The folder of the pair's messages is named after it."""
    seconds: float
    """How long the process waits, at most."""
    who: Identity

    def packed(self) -> bytes:
        return _packed(json.dumps(self))


def _invitation(payload: bytes) -> Invitation:
    try:
        number, seconds, who = json.loads(_unpacked(payload))
        return Invitation(int(number), float(seconds), Identity(*who))
    except (ValueError, TypeError):  # of another version: it stands for as long as one does by default
        return Invitation(crc32(payload), DEFAULT_PATIENCE_S, Identity("", 0, 0, 0, "", 0.0))


class _Pairing:
    """Looks for a partner. Locks may not reach the partner, so a free lock proves no death here: an invitation stands
    until its time is over on the watcher's clock, or its process is gone from this host's table."""

    def __init__(self, engine: DirectoryEngine, patience: float) -> None:
        self._engine = engine
        self._patience = patience
        number = int.from_bytes(os.urandom(8), "little") >> 1
        self._mine = Invitation(number, patience, myself(clock.wall_ns() / 1e9))
        self._since: dict[int, float] = {}
        """When each invitation was first seen."""

    def find(self) -> _Pair:
        """Wait for a partner. Raises TimeoutError."""
        deadline = clock.monotonic() + self._patience
        while clock.monotonic() < deadline:
            # decides who leads: one of those who create it wins
            if self._engine.create(FIRST, self._mine.packed()):
                return self._led(deadline)
            cell = self._engine.read(FIRST)
            if cell is None:
                continue
            other = _invitation(cell.payload)
            if self._is_over(other):
                self._engine.delete(FIRST)
            elif self._engine.create(f"{FOLDER}/{other.number}/second", _packed("")):
                pair = self._joined(other, deadline)
                if pair is not None:
                    return pair
            clock.sleep(LOOK_S)  # two other hosts are a pair already, or the inviting one has just gone
        raise self._alone()

    def _is_over(self, other: Invitation) -> bool:
        since = self._since.setdefault(other.number, clock.monotonic())
        return clock.monotonic() > since + other.seconds or examine(other.who) is Alive.NO

    def _led(self, deadline: float) -> _Pair:
        """Wait until somebody takes the invitation of this process."""
        pair = _Pair(self._engine, self._mine.number, leads=True, patience=self._patience)
        try:
            while clock.monotonic() < deadline:
                if self._engine.read(f"{pair.where}/second") is not None:
                    pair.send("here")
                    pair.receive("here")
                    return pair
                clock.sleep(LOOK_S)
            raise self._alone()
        except BaseException:
            pair.clear()
            raise

    def _joined(self, other: Invitation, deadline: float) -> _Pair | None:
        """Take an invitation; None if its process has gone meanwhile. Raises TimeoutError."""
        pair = _Pair(self._engine, other.number, leads=False, patience=self._patience)
        try:
            while self._engine.read(f"{pair.where}/here-1") is None:
                first = self._engine.read(FIRST)
                if first is None or _invitation(first.payload) != other or self._is_over(other):
                    pair.clear()
                    return None
                if clock.monotonic() > deadline:
                    raise self._alone()
                clock.sleep(LOOK_S)
            pair.send("here")
            return pair
        except BaseException:
            pair.clear()
            raise

    def _alone(self) -> TimeoutError:
        return TimeoutError(f"no other host was there within {self._patience:g} seconds")


class _Pair:
    def __init__(self, engine: DirectoryEngine, number: int, *, leads: bool, patience: float) -> None:
        self._engine = engine
        self._number = number
        self.where = f"{FOLDER}/{number}"
        self.leads = leads
        self._mine, self._other = ("1", "2") if leads else ("2", "1")
        self._patience = patience
        self._path = engine.layout.path(f"{self.where}/lock")

    def send(self, what: str, text: str = "") -> None:
        self._engine.write(f"{self.where}/{what}-{self._mine}", _packed(text))

    def receive(self, what: str) -> str:
        name = f"{self.where}/{what}-{self._other}"
        deadline = clock.monotonic() + self._patience
        with self._engine.watch([name]) as watch:
            while (cell := self._engine.read(name)) is None:
                if clock.monotonic() > deadline:
                    raise TimeoutError(f"the other host has not answered for {self._patience:g} seconds")
                watch.pause(deadline - clock.monotonic())
        return _unpacked(cell.payload)

    def clear(self) -> None:
        """Remove this pair's messages, and the invitation if it is this pair's. The other side does the same: the last
        one removes what either wrote."""
        first = self._engine.read(FIRST)
        if self.leads and first is not None and _invitation(first.payload).number == self._number:
            self._engine.delete(FIRST)
        for name in self._engine.list(self.where):
            self._engine.delete(name)
        remove_empty(self._engine.layout.path(FOLDER))

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


_FINDINGS = {"flock": "locks", "fcntl": "fcntl locks"}
_LOCK_REMEDY = (
    "mount it so that locks reach the other: NFS without nolock and local_lock, on both hosts; sshfs and most other "
    "FUSE file systems can't: use NFS, one mount for all, or a server (redis://HOST/0)"
)


def _excluded(how: str, right: bool) -> Finding:
    if right:
        return Finding(_FINDINGS[how], OK, "what one side holds keeps the other out")
    return Finding(_FINDINGS[how], WRONG, "both sides had it at the same time", _LOCK_REMEDY)


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
