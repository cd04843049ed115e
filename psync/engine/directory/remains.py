"""What killed processes and damage have left in a directory that psync works in. A look that changes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import NamedTuple

from psync.engine.contract import Alive
from psync.engine.directory.files import READ, read_small
from psync.engine.directory.looking import LookingEngine
from psync.engine.directory.names import Layout

LONGEST = 1 << 16
"""Bytes of a reason."""


def plain(text: str) -> str:
    """A text that somebody else may have written, fit to be printed."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class Quarantined(NamedTuple):
    """Damaged bytes that were set aside."""

    path: str
    name: str
    reason: str
    size: int


class Remains(NamedTuple):
    living: tuple[str, ...]
    """Processes at work, for people."""
    stale: tuple[str, ...]
    """Processes that ended without leaving."""
    unknown: tuple[str, ...]
    litter: tuple[str, ...]
    """Files whose writers are dead."""
    quarantined: tuple[Quarantined, ...]


def remains(root: str) -> Remains:
    engine = LookingEngine(root)
    by_state: dict[Alive, list[str]] = {Alive.YES: [], Alive.NO: [], Alive.UNKNOWN: []}
    for process in engine.processes():
        by_state[process.alive].append(str(process.identity or f"{process.owner:016x}"))
    layout = engine.layout
    found = Remains(
        tuple(by_state[Alive.YES]),
        tuple(by_state[Alive.NO]),
        tuple(by_state[Alive.UNKNOWN]),
        (*_abandoned(layout.tmp), *_abandoned(layout.pending)),
        _quarantined(layout),
    )
    engine.close()
    return found


def _abandoned(folder: str) -> list[str]:
    """The files there that nobody holds locked any more."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            with contextlib.suppress(OSError):
                fd = os.open(f"{folder}/{name}", READ)
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    found.append(f"{folder}/{name}")
                finally:
                    os.close(fd)
    return found


def _quarantined(layout: Layout) -> tuple[Quarantined, ...]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for file in sorted(os.listdir(layout.quarantine)):
            path = f"{layout.quarantine}/{file}"
            if file.endswith(".why"):
                continue
            name, reason = file.partition("-")[2], "nobody wrote down why"
            with contextlib.suppress(OSError):
                why = read_small(f"{path}.why", LONGEST).decode("utf-8", "backslashreplace")
                name, _, reason = why.partition("\n")
            found.append(Quarantined(path, name, plain(reason.strip()), os.lstat(path).st_size))
    return tuple(found)
