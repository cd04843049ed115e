"""The format on disk: names, paths and bytes of every file. This page is the specification of `FORMAT_VERSION`.

Names on disk are built here, and read back here, and nowhere else. Integers in files are unsigned and little-endian,
unless something else is said; u16 is one of 16 bits. Bytes are given in hexadecimal. "CRC" is CRC-32 (zlib), and
"CRC-16" is CRC-CCITT (`binascii.crc_hqx`). "Pickled" bytes are ``80 05 42``, their length (u32), the bytes, ``2e``.
Most files are pickles themselves, so that a program which unpickles every file it finds goes on.

Values and categories
=====================

``<root>/<key>``: a value, as a **frame**: ``80 05 4a`` CRC (u32) ``30 8a 08`` length (u64) ``30``, and the pickle, of
which those are CRC and length. To a reader of pickles the head is two numbers that are pushed and popped again. Bytes
behind the pickle mean nothing. A file without a frame that is one whole pickle is a value, too (somebody else's).

    Changed under `flock` on the file itself: by one `pwrite` of at most 4 KB in place, else by a new file that is
    renamed to the name. A reader takes no lock, but reads again if the CRC does not fit. A crash of a process leaves
    the old or the new value, and perhaps a file in ``tmp``.

``<root>/<category>/<2 hex digits>`` and ``.../xx``: **buckets**, of a category; mailboxes, results and dead letters
have such folders below ``.psync``. A bucket is one pickled dict that grows: ``80 05 7d 4b`` flags (u8) ``30``, and then
for each append its opcodes, ``4a`` CRC (u32) ``30``; ``2e`` ends the file. Each CRC covers all bytes before its
``4a``. Flag 1, of ``xx`` alone: its items were never compressed by a user.

    Changed under `flock` on the file: an append writes all that follows the last ``2e``, and then that byte, which
    decides. A crash leaves a tail behind a ``2e``: the next process that looks under the lock completes it, if a note
    in ``pending`` says so, and cuts it off otherwise. `hcompress` locks every bucket, replaces ``xx``, then drops the
    buckets.

In a **signed** store (`signed.signature`) each value's pickle, each value of a register and each payload of a record is
``80 05 8e``, the length (u64) of what follows up to the ``2e``, ``70 73 71 01``, the name of the key (4 bytes), a
generation (u64), an HMAC-SHA256 (32 bytes), the signed bytes, ``2e``. The opcodes of an append to a bucket are the
same, without the first two bytes and the last one, and ``30``.

``<folder>/.psync-new-<name>``: the next content of ``<name>``, on a network file system alone (`fs.nfs_replace`).
``<folder>/.psync-now-<name>``: its content, whatever ``<name>`` leads to. A name of more than 244 bytes gives
``.psync-new~<32 hex digits>`` (BLAKE2b of 16 bytes), and stands at the end of the file, followed by its length (u16).

Both are locked by their writer. After a crash the next process that changes ``<name>``, or a sweep, makes the last
steps or removes the file.

psync's own files, in ``<root>/.psync/``
========================================

Hidden from keys. `flat` makes one segment of a name. "Atomic" is a file that gets its name only when it is whole
(O_TMPFILE and `link`; elsewhere ``tmp`` and a link or a rename).

``format``: `FORMAT_VERSION` (`format_version`): a frame around the pickled bytes ``psync format <number>\\n``.

    Atomic; made by the first opening of the directory, and never changed. Read at each opening. Missing, it is made if
    no file has an older format; damaged, it goes to quarantine and is made anew.

``seal``: the store is signed (`store_marker`): a frame around pickled bytes: ``psync seal 1\\n``, the store's id (16
bytes), and for each key its name (4 bytes) and HMAC-SHA256 of ``psync: the store `` and the id (32 bytes).
``serializer``: the store was begun with JSON (`serialization`): a frame around the pickled bytes
``psync serializer 1\\njson``.
``copy``: how far `copy_store` has come to this place: a frame around a pickle.

    Made and changed as values are. Without ``seal`` a signed store is refused; ``serializer`` missing means pickles.

``tmp/<16 hex digits>``: a file that is being written. Locked by its writer, so a process that gets the lock removes it:
the next process that opens the directory.

``owners/<16 hex digits>``: one process; the digits are its number. A **text frame**: JSON (host, pid, start time, boot
id ...), a line feed, its length in decimal digits, a space, its CRC in 8 hex digits, a line feed.

    Atomic, and locked by its process as long as it lives: a free lock proves a dead process. Removed by its
    process at its end, or else by a sweep.

``guards/<name>``: ``80 05 4e 2e`` (a pickled None); locked during a compaction. Never removed.

``locks/<name>``: a mutex: ``80 05 43 10``, the next token times 65537 (u64), the holder's number (u64; 0: free),
``2e``. These two are in the order of the host's processor. A token that is no multiple of 65537 is damaged, and
counting goes on from the milliseconds since 1970.

Changed by the holder of the `flock` on the file, which is the mutex; each number by one store. A crash frees the lock
and leaves the holder's number. Never removed.

``wake/armed``: ``80 05 42``, 66560 (u32), one byte for each of 1024 slots, then 64 for each slot (its waiter slots),
``2e``. 1 means that a process waits. ``wake/<3 or more hex digits>``: a pickled None; a change of its time stamp wakes
the waiters of the slot, or waiter slot, of that number. Without such a file, a change of the time stamp of ``armed``
wakes those who wait for several names.

    Changed by single bytes, without a lock. Hints: a wrong byte costs a wake-up, and waiters also read by
    themselves. A process removes those that it made when it closes the directory; a waiter there makes it again.

``pending/<16 hex digits>``: an append to several buckets that is decided: a text frame around a JSON object: bucket
name -> [where it ended, its CRC there, the byte to write over its ``2e``].

    Renamed to its name once all tails are written, which decides, and locked by its writer. After a crash the bytes are
    written by the next reader of a bucket, and the note is removed by a sweep.

``quarantine/<nanoseconds since 1970>-<name>``: damaged bytes, or those of a foreign file whose name was set, as they
were found. The same with ``.why``: the name, a line feed, the reason, a line feed.

    Atomic. Removed by people alone, or put back by ``psync doctor --restore``.

``pair/...``: messages between two hosts that test the directory: frames around pickled bytes, and a file
``lock``. ``first`` names the leader; all are removed at the end.

``<kind>/<name>``: the state of a primitive (``barrier``, ``event`` ...) is a **register**. Bytes 0 to 27:
``psync=1\\n``, number of the change (u64), where the value begins (u32), its length (u32), CRC (u32) of those three (16
bytes) and then the value. A value of at most 2020 bytes begins at 28; a longer one at 4096, or behind what was there
before; no value: 0 and 0. Bytes 2048 to 4095 are **slots**: 127 pairs of u64 (owner, word), then one pair (0, the
number that closes the round). The file has at least 4096 bytes.

    Changed under `flock` on the file: a long value is written first, then the first bytes by one `pwrite`, which
    decides. A word is stored by its owner alone, without a lock. A crash leaves the old or the new value. Damaged, its
    bytes go to quarantine and it begins anew, in the same file.

Logs, in ``.psync/<log name>/log/``
===================================

A **position** is the place of a record in the log, counted in bytes from its beginning; it is never used again.

``<16 hex digits>``: a **segment**, from that position on; a new one is begun after 1 MB. A record begins at a multiple
of 32: length of the payload (u32); CRC of the payload (u32), for which position + 1 is the start value; how many more
records were appended with it (u32); a check of the head (u32): all ones XOR the length XOR the third word shifted left
by 8; the payload; zeros up to a multiple of 32. Bytes behind the end that ``tail`` states mean nothing.

    Written under the lock of ``tail``, before ``tail``. Removed by the process that finds all records in it final.

``<16 hex digits>.marks``: the **status** of each record of that segment, 16 bytes at half the record's offset. Byte 0:
80 hex + state (0 waiting, 1 claimed, 2 done, 3 dead, 4 delayed); 1-2: attempt (u16); 3-4: CRC-16, XOR bits 5 to 20 of
the position; 5: beat (u8); 6-7: lease in seconds (a half-precision float); 8-15: owner (u64; of a delayed record until
when: 24 bits tell the boot, 40 bits count its milliseconds). The CRC-16 is that of the 16 bytes with zeros in its
place. The owner counts only if the state is claimed or delayed, and is 0 in the CRC-16 otherwise. 16 zeros: waiting,
never claimed.

    Changed under the lock of ``front``, or by the owner of the claim; by a store of the first 8 bytes, or a `pwrite`
    of 16, which decides. Removed after its segment.

``tail``: 9 numbers: end of the log, beginning of the last segment, records appended, of these DELAYED, end of what may
have a status behind the end, closed (0 or 1), end of what is prepared, how many records that is, and the boot in which
the log was last put in order. ``front``: 9 numbers: the first record never claimed, the first that may be unfinished,
records passed, entries in ``returned``, the first unused one there, records settled without a claim that are still to
be passed, DELAYED ones passed, entries in ``delayed``, a note of the queue's. ``sync``, of a durable log alone: 3
numbers: the position up to which the disk has all, failures of the disk, records that came together lately.

    Each is a **double buffer**: the number n of the last change (u64); then twice: n (u64), the numbers (u64 each), CRC
    (u64) of these. A change of an odd number lies in the second copy, of an even one in the first. Changed under
    `flock` on the file; the copy first, then the word at the beginning, which decides. After a power cut, and when it
    is damaged, ``tail`` and ``front`` are made anew from records and statuses (`log.recovery`, `log.repair`); ``sync``
    may be all zeros, and means nothing then.

``returned``, ``delayed``: positions, 8 bytes each: 48 bits, and 16 of a CRC-16 (start value a5a5 hex) of these 6 bytes:
hints at records that went back, and at those that wait for their time. ``front`` counts them, and its lock guards them.

``<16 hex digits>-<16 hex digits>.lost``: an empty file: the records between these positions are lost (not final). Never
removed.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from zlib import crc32

from psync.engine.directory.fs.permissions import Permissions
from psync.engine.directory.fs.presence import Presence
from psync.engine.directory.fs.syscalls import may_be_folder

FORMAT_VERSION = 1
"""The version of all that is described above. It goes up by one whenever a file gets other bytes, so that a psync which
would not understand them refuses the directory (`format_version`)."""

OWN = ".psync"
FORMAT = "format"
OWN_FOLDERS = "tmp", "owners", "guards", "locks", "wake", "pending", "pair", "quarantine"
"""The folders below ``.psync/`` that hold nothing that was stored."""
SLOTS, WAITER_SLOTS = 1024, 64
"""How many slots the names share, and how many waiter slots each has, for processes that wait for a record to claim."""

_PREPARED, _DECIDED = ".psync-new", ".psync-now"
_ROOM = 254 - len(_PREPARED)
"""Bytes of a name that fits into that of its successor."""
NAME_AT_END = 257
"""Bytes at the end of a successor in which a long name stands."""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~ ,=+@()")
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
    """Return the end of a successor whose name has no room for that of `path`."""
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
    """A name as one segment of a path, percent-encoded. Long ones are cut and told apart by their checksum."""
    data = name.encode("utf-8", "surrogateescape")
    text = "".join([chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data])  # urllib takes long to load
    return text if len(text) <= 200 else f"{text[:180]}~{crc32(data):08x}"


class Layout:
    """The paths of one root, as strings: `pathlib` costs more than the system calls; and who is trusted there."""

    def __init__(self, root: str, trust: Permissions | None = None) -> None:
        self.root = root
        self.presence = Presence(root)
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
        self.format = f"{self.own}/{FORMAT}"

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
    """True if psync ever worked in the directory `root`, or this user may not look."""
    return may_be_folder(f"{os.path.abspath(os.path.expanduser(os.fspath(root)))}/{OWN}")


def is_below(name: str) -> bool:
    """True for a name that stands for a path below the root, whatever it leads to."""
    return bool(name) and "\0" not in name and not {"", ".", ".."} & set(name.split("/"))
