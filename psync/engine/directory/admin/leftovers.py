"""List what killed processes and damage have left in a directory, and restore values from quarantine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import warnings
from typing import NamedTuple

from psync.engine.contract.values import Alive
from psync.engine.directory.admin.read_only import ReadOnlyEngine
from psync.engine.directory.cells.local import examine
from psync.engine.directory.fs.syscalls import READ, read_small, remove_quietly, rename_to_free, with_folder
from psync.engine.directory.layout import OWN, Layout, is_below
from psync.engine.encoding.framing import Unreadable

MAX_REASON_BYTES = 1 << 16
"""Bytes of a reason that are read."""


def plain(text: str) -> str:
    """A text of unknown origin, with unprintable characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class Quarantined(NamedTuple):
    """Damaged bytes that were set aside."""

    path: str
    name: str
    reason: str
    size: int


class Leftovers(NamedTuple):
    living: tuple[str, ...]
    """Processes at work, for people."""
    stale: tuple[str, ...]
    """Processes that ended without leaving."""
    unknown: tuple[str, ...]
    litter: tuple[str, ...]
    """Files whose writers are dead."""
    quarantined: tuple[Quarantined, ...]


def leftovers_of(root: str, *, team: bool = False, unpickles: bool = True) -> Leftovers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # who else could write there is a finding of its own
        engine = ReadOnlyEngine(root, trust_group=team, unpickles=unpickles)
    by_state: dict[Alive, list[str]] = {Alive.YES: [], Alive.NO: [], Alive.UNKNOWN: []}
    for process in engine.processes():
        by_state[process.alive].append(str(process.identity or f"{process.owner:016x}"))
    layout = engine.layout
    found = Leftovers(
        tuple(by_state[Alive.YES]),
        tuple(by_state[Alive.NO]),
        tuple(by_state[Alive.UNKNOWN]),
        (*_abandoned(layout.tmp), *_abandoned(layout.pending)),
        _quarantined(layout),
    )
    engine.close()
    return found


def _abandoned(folder: str) -> list[str]:
    """The files in a folder that no living process holds locked."""
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
                why = read_small(f"{path}.why", MAX_REASON_BYTES).decode("utf-8", "backslashreplace")
                name, _, reason = why.partition("\n")
            found.append(Quarantined(path, name, plain(reason.strip()), os.lstat(path).st_size))
    return tuple(found)


def restore(root: str, what: str, *, team: bool = False) -> str:
    """Restore from quarantine the last value of the name `what`, or the file of that name there, if it can be read.
    Returns the name of the value.

    Raises LookupError if there is none, ValueError (with the reason) if it is still damaged, was part of
    something, or its name is taken.
    """
    engine = ReadOnlyEngine(root, trust_group=team)
    layout = engine.layout
    entries = [entry for entry in _quarantined(layout) if what in (entry.name, os.path.basename(entry.path))]
    if not entries:
        raise LookupError(f"nothing of the name {what!r} is in {layout.quarantine}")
    entry = entries[-1]
    name = entry.name
    if not is_below(name) or name.startswith(f"{OWN}/"):
        raise ValueError(f"{name!r} was part of what psync keeps for itself, which has gone on without it")
    status = os.lstat(entry.path)
    layout.trust.check_file(entry.path, status)
    try:
        examine(read_small(entry.path, status.st_size), ())
    except Unreadable as error:
        raise ValueError(f"{entry.path} is still damaged ({error}): repair that file first") from error
    try:
        with_folder(layout.path(name), lambda: rename_to_free(entry.path, layout.path(name)), layout.trust.access)
    except FileExistsError as error:
        raise ValueError(f"there is a value at {name!r} again: delete it first, or leave things as they are") from error
    remove_quietly(f"{entry.path}.why")
    return name
