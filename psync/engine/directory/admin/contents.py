"""Walk a directory for files that this user can't read, and for psync's files that have a second name elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from psync.engine.contract.report import NOTE, WRONG, Finding, some_of
from psync.engine.directory.fs.refusals import Refusal
from psync.engine.directory.layout import OWN, is_leftover, may_be_bucket

MAX_ENTRIES = 200_000
"""Files and folders that are looked at, at most."""


class Contents(NamedTuple):
    refused: tuple[Refusal, ...]
    """Files and folders that this user can't read."""
    linked: tuple[str, ...]
    """Files that psync changes in place, and that have a second name (a hard link)."""
    complete: bool


def examine_contents(root: str) -> Iterator[Finding]:
    """Report what can't be read, and what has a second name. One scandir a folder, one lstat a file."""
    found = contents_of(root)
    if found.refused:
        says = f"{len(found.refused)} files or folders can't be read{some_of(tuple(map(str, found.refused)))}"
        yield Finding("reading", WRONG, says, found.refused[0].remedy())
    if found.linked:
        says = (
            f"{len(found.linked)} files have a second name elsewhere (a hard link, as snapshots and copies made with "
            f"`cp -al` have), under which they would change, too: psync refuses to change them{some_of(found.linked)}"
        )
        remedy = (
            f"""while nobody uses the directory: find '{root}' -type f -links +1 -exec sh -c """
            """'cp -p "$1" "$1.new" && mv "$1.new" "$1"' _ {} \\; ; and make snapshots by copying (cp -a)"""
        )
        yield Finding("second names", WRONG, says, remedy)
    if not found.complete:
        yield Finding("contents", NOTE, f"only the first {MAX_ENTRIES} files and folders were looked at")


def contents_of(root: str) -> Contents:
    refused: list[Refusal] = []
    linked: dict[str, int] = {}
    temporary: set[int] = set()
    seen, waiting = 0, [root]
    while waiting and seen < MAX_ENTRIES:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    seen += 1
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
                    elif stat.S_ISREG(status.st_mode):
                        if not _can_read(entry.path, status):
                            refused.append(Refusal(entry.path, status))
                        if folder == f"{root}/{OWN}/tmp":
                            temporary.add(status.st_ino)
                        elif status.st_nlink > 1 and _stays(root, entry.path):
                            linked[entry.path] = status.st_ino
        except FileNotFoundError:
            continue  # it was removed meanwhile
        except OSError:
            refused.append(Refusal(folder, os.stat(folder)))
    own = tuple(sorted(path for path, inode in linked.items() if inode not in temporary))
    return Contents(tuple(refused), own, not waiting)


def _can_read(path: str, status: os.stat_result) -> bool:
    """Whether this user can read a file. access, unless it is a plain one of his own."""
    plain = status.st_uid == os.geteuid() and status.st_mode & stat.S_IRUSR
    return bool(plain) or os.access(path, os.R_OK, effective_ids=True)


def _stays(root: str, path: str) -> bool:
    """Whether a file is changed in place, so that a second name shows the change; a value with one is replaced."""
    own = path.startswith(f"{root}/{OWN}/")
    name = path.rpartition("/")[2]
    if own:
        return not is_leftover(name) and "/quarantine/" not in path[len(root) :]
    return may_be_bucket(path) and (name == "xx" or not set(name) - set("0123456789abcdef"))
