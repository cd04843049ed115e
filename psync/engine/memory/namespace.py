"""Namespace: keeps names with slashes as a tree. A folder exists as long as something is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Union

from psync.engine.contract.bucket import bucket_in_the_way, is_bucket_name, is_bucket_segment
from psync.errors import InvalidKey

HIDDEN = ".psync"


@dataclass(slots=True)
class Entry:
    """The value at a name: a cell, or, if it has `ops`, a bucket."""

    version: int
    """Grows with each change in one memory, so equal versions are the same bytes."""
    payload: bytes = b""
    ops: bytearray | None = None
    flags: int = 0
    identity: int = 0
    """For a bucket: the version it had when it was created or last replaced."""
    damage: str | None = None
    """Why the value can't be read; only tests damage a memory."""

    def pickle(self) -> bytes:
        """The value as one complete pickle."""
        return self.payload if self.ops is None else b"\x80\x05}" + self.ops + b"."


Folder = dict[str, Union[Entry, "Folder"]]


@dataclass(slots=True)
class Namespace:
    """The tree of all names in one memory."""

    root: Folder = field(default_factory=dict)

    def get(self, name: str) -> Entry | None:
        found: Entry | Folder | None = self.root
        for part in name.split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, Entry) else None

    def put(self, name: str, entry: Entry) -> None:
        """Put `entry` at `name`. Raises `InvalidKey`, and changes nothing, where a folder meets a value."""
        *folders, last = name.split("/")
        self.check(name)
        folder = self.root
        for part in folders:
            inner = folder.setdefault(part, {})
            assert isinstance(inner, dict)
            folder = inner
        folder[last] = entry

    def check(self, name: str) -> None:
        """Raise `InvalidKey` if a value can't be put at `name`: one name can't be a value and a folder."""
        found: Entry | Folder | None = self.root
        for part in name.split("/"):
            found = found.get(part) if isinstance(found, dict) else found
        if isinstance(found, dict) or (found is not None and self.get(name) is None):
            what = "is a folder of values" if isinstance(found, dict) else "lies below another value"
            raise InvalidKey(f"{name!r} can't hold a value: it {what}; use another key", key=name)

    def check_no_bucket(self, name: str) -> None:
        """Raise `InvalidKey` if a bucket stands at `name`, or, for a new name of a bucket, beside it."""
        if not is_bucket_name(name):
            return
        there, folder = self.get(name), name[:-3]
        beside = [last for last in self.folder(folder) if is_bucket_segment(last)] if there is None else [name[-2:]]
        for bucket in [f"{folder}/{last}" for last in beside]:
            entry = self.get(bucket)
            if entry is not None and entry.ops is not None:
                raise bucket_in_the_way(name, bucket)

    def remove(self, name: str) -> Entry | None:
        entry = self.get(name)
        if entry is not None:
            self._prune(self.root, name.split("/"))
        return entry

    def _prune(self, folder: Folder, parts: list[str]) -> None:
        inner = folder[parts[0]]
        if isinstance(inner, dict):
            self._prune(inner, parts[1:])
        if not inner or isinstance(inner, Entry):
            del folder[parts[0]]

    def folder(self, name: str) -> Folder:
        """Return the entries directly in the folder; empty if there is no such folder."""
        found: Entry | Folder | None = self.root
        for part in name.split("/") if name else ():
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def names(self, folder: str, *, hidden: bool) -> Iterator[str]:
        """List the full names of all values below `folder`."""
        if not hidden and f"{folder}/".startswith(f"{HIDDEN}/"):
            return
        prefix = f"{folder}/" if folder else ""
        for part, inner in self.folder(folder).items():
            if isinstance(inner, Entry):
                yield prefix + part
            elif hidden or prefix + part != HIDDEN:
                yield from self.names(prefix + part, hidden=hidden)
