"""Every name on disk is built and parsed here.

``<root>/<key>``                     a value; ``<root>/<category>/<2 hex digits>`` and ``.../xx``: buckets
``<folder>/.psync-new-<name>``       will replace the file of that name, on a network file system (see `replacements`)
``<folder>/.psync-now-<name>``       holds what the name holds, whatever the name leads to
``<root>/.psync/``                   psync's own, hidden from keys; each file that rests here is itself a pickle,
                                     so that an old reader that stumbles over it goes on
``.psync/wake/armed``                one byte a slot, and one a seat: does anybody wait for a name of this slot?
``.psync/wake/<hex digits>``         touched to wake the waiters of a slot, or of a seat
``.psync/owners/<16 hex digits>``    one process; locked by it as long as it lives
``.psync/guards/<name>``             locked during a compaction
``.psync/locks/<name>``              a mutex: its last token and its holder
``.psync/pair/...``                  two hosts that try the directory out together
``.psync/pending/<16 hex digits>``   an append to several buckets that is decided, but perhaps not made everywhere
``.psync/tmp/<16 hex digits>``       being written, and locked by its writer; garbage once that is dead
``.psync/quarantine/<time>-<name>``  what failed its check, as it was found; ``.why`` beside it says why
``.psync/<kind>/<name>``             a register: the state of the barrier, event ... of that name
``.psync/<log name>/log/...``        a log: ``tail``, ``front``, ``sync``, segments, marks, hints, holes
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from urllib.parse import quote
from zlib import crc32

from psync.engine.directory.fs.permissions import Permissions

FORMAT_VERSION = 1
"""Of all that is described above. It goes up by one whenever a file gets other bytes, so that a psync which would not
understand them refuses the directory (`format_version`)."""

OWN = ".psync"
OWN_FOLDERS = "tmp", "owners", "guards", "locks", "wake", "pending", "quarantine"
SLOTS, SEATS = 1024, 64
"""Of names; and of each, seats for those who wait for something to take."""

_PREPARED, _DECIDED = ".psync-new", ".psync-now"
_ROOM = 254 - len(_PREPARED)
"""Bytes of a name that fits into that of its successor."""
NAME_AT_END = 257
"""Bytes at the end of a successor in which a long name stands."""
_NFS_LEFTOVER = re.compile(r"\.nfs[0-9a-f]+\Z")


def is_leftover(segment: str) -> bool:
    """True for what an NFS client makes of a file that was removed while open."""
    return segment.startswith(".nfs") and _NFS_LEFTOVER.match(segment) is not None


def prepared_path(path: str) -> str:
    """Where the file stands that will replace the one at `path`."""
    return _successor(path, _PREPARED)


def decided_path(path: str) -> str:
    """Where it stands once that is decided."""
    return _successor(path, _DECIDED)


def _successor(path: str, prefix: str) -> str:
    folder, _, name = path.rpartition("/")
    if has_long_name(path):
        from hashlib import blake2b  # which takes long to load, and is needed seldom

        return f"{folder}/{prefix}~{blake2b(os.fsencode(name), digest_size=16).hexdigest()}"
    return f"{folder}/{prefix}-{name}"


def has_long_name(path: str) -> bool:
    """True if no successor's name has room for this one: then its end does (`name_at_end`)."""
    return len(path) - path.rindex("/") > 60 and len(os.fsencode(path[path.rindex("/") + 1 :])) > _ROOM


def is_successor(segment: str) -> bool:
    """True for a file that will replace another one."""
    return segment.startswith((_PREPARED, _DECIDED))


def replaced_name(path: str, read: Callable[[str], bytes]) -> str:
    """The name that the successor at `path` is about to come to. `read` gives the last bytes of a file."""
    segment = path[path.rindex("/") + 1 + len(_PREPARED) :]
    if segment[:1] != "~":
        return segment[1:]
    end = read(path)
    size = int.from_bytes(end[-2:], "little")
    return os.fsdecode(end[-2 - size : -2])


def name_at_end(path: str) -> bytes:
    """What a successor ends with if its name has no room for that of `path`."""
    name = os.fsencode(path[path.rindex("/") + 1 :])
    return name + len(name).to_bytes(2, "little")


def held_by(path: str, read: Callable[[str], bytes]) -> str | None:
    """The name whose content the file at `path` holds: mostly its own; None for what holds none."""
    segment = path[path.rindex("/") + 1 :]
    if segment.startswith(_DECIDED):
        return replaced_name(path, read)
    return None if segment.startswith(_PREPARED) or is_leftover(segment) else segment


def may_be_bucket(path: str) -> bool:
    """A name of two characters may be a bucket: never overwritten in place, so that an open bucket sees its end."""
    return path[-3:-2] == "/"


@functools.lru_cache(4096)
def slot_of(name: str) -> int:
    return crc32(name.encode("utf-8", "surrogateescape")) % SLOTS


def flat(name: str) -> str:
    """A name as one segment of a path. Long ones are cut and told apart by their checksum."""
    text = quote(name, safe=" ,=+@()", errors="surrogateescape")
    if len(text) > 200:
        text = f"{text[:180]}~{crc32(name.encode('utf-8', 'surrogateescape')):08x}"
    return text


class Layout:
    """The paths of one root, as strings: `pathlib` costs more than the system calls; and who is trusted there."""

    def __init__(self, root: str, trust: Permissions | None = None) -> None:
        self.root = root
        self.trust = trust or Permissions(root, own=OWN_FOLDERS)
        self.prefix = root if root.endswith("/") else root + "/"
        self.own = self.prefix + OWN
        self.tmp = self.own + "/tmp"
        self.owners = self.own + "/owners"
        self.guards = self.own + "/guards"
        self.locks = self.own + "/locks"
        self.wake = self.own + "/wake"
        self.armed = self.wake + "/armed"
        self.pending = self.own + "/pending"
        self.quarantine = self.own + "/quarantine"
        self.format = self.own + "/format"

    def path(self, name: str) -> str:
        return self.prefix + name

    def refuge(self, name: str, number: int) -> str:
        """Where the damaged bytes of a name go."""
        return f"{self.quarantine}/{number}-{flat(name)}"

    def slot(self, slot: int) -> str:
        return f"{self.wake}/{slot:03x}"

    def owner(self, owner: int) -> str:
        return f"{self.owners}/{owner:016x}"

    def guard(self, name: str) -> str:
        return f"{self.guards}/{flat(name)}"

    def lock(self, name: str) -> str:
        return f"{self.locks}/{flat(name)}"

    def segment(self, log: str, base: int) -> str:
        return f"{self.prefix}{log}/log/{base:016x}"

    def marks(self, log: str, base: int) -> str:
        return f"{self.prefix}{log}/log/{base:016x}.marks"

    def hole(self, log: str, begin: int, end: int) -> str:
        return f"{self.prefix}{log}/log/{begin:016x}-{end:016x}.lost"

    def log(self, log: str, part: str) -> str:
        return f"{self.prefix}{log}/log/{part}"


def number_in(filename: str) -> int | None:
    """The number that a file is named after: an owner's, or the first position in a segment. None for other files."""
    return int(filename, 16) if len(filename) == 16 and not set(filename) - set("0123456789abcdef") else None


def hole_in(filename: str) -> tuple[int, int] | None:
    """The positions that a file says are lost: the first, and that behind the last. None for other files."""
    first, _, second = filename.removesuffix(".lost").partition("-")
    begin, end = number_in(first), number_in(second)
    return None if begin is None or end is None or not filename.endswith(".lost") else (begin, end)


def is_used(root: str | os.PathLike[str]) -> bool:
    """True if psync ever worked in the directory `root`."""
    return os.path.isdir(f"{os.path.abspath(os.path.expanduser(os.fspath(root)))}/{OWN}")


def is_below(name: str) -> bool:
    """True for a name that stands for a path below the root, whatever is in it."""
    return bool(name) and "\0" not in name and not {"", ".", ".."} & set(name.split("/"))
