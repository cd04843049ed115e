"""Several buckets grow at one instant: all tails first, then one note that decides, then the flips.

Each bucket gets its tail behind the old STOP, which nobody sees yet. Then ``.psync/pending/<random>`` is
linked: it names the buckets, where each ended, and the byte that flips its STOP. That link is the fact that
decides. Who finds a tail that was not flipped (its writer was killed) looks for such a note: if there is one, and
the tail then fits its checksum, the flip is made up for; if there is none, the tail is cut off.
A note whose buckets have all been looked at is litter, and a sweep removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import (
    CHANGE,
    Temporary,
    let_go,
    make_folder,
    read_all,
    read_small,
    remove_quietly,
)
from psync.engine.directory.layout import Layout, is_below
from psync.engine.encoding.framing import BUCKET_HEAD, End, Unreadable, follow, frame_text, start, unframe_text

if TYPE_CHECKING:
    from psync.engine.directory.buckets.bucket import DirectoryBucket

Note = dict[str, tuple[int, int, int]]
"""Bucket name: where it ended, its checksum up to there, and the byte that commits."""
LONGEST = 1 << 24
"""Bytes of a note that is read."""


class MultiAppend:
    """The notes of one directory about appends to several buckets."""

    def __init__(self, layout: Layout, fs: AtomicFiles) -> None:
        self._layout = layout
        self._fs = fs

    def append_all(self, buckets: Mapping[str, DirectoryBucket], ops: Mapping[str, bytes]) -> None:
        """A lock, fstat and two writes a bucket, and one small file for all."""
        names = sorted(ops)  # everybody locks in this order
        with contextlib.ExitStack() as locked:
            for name in names:
                locked.enter_context(buckets[name].locked())
            note: Note = {}
            try:
                for name in names:
                    note[name] = buckets[name].prepare(ops[name])
                path, temp = self._decide(note)
            except BaseException:
                for name in note:
                    buckets[name].abandon()
                raise
            try:
                for name in names:
                    buckets[name].commit(note[name])
                remove_quietly(path)
            except OSError:
                return  # it is decided: whoever comes by makes up for the rest
            finally:
                let_go(temp.fd)

    def _decide(self, note: Note) -> tuple[str, Temporary]:
        make_folder(self._layout.pending, self._layout.trust.access)
        temp = self._fs.temporary(frame_text(json.dumps(note).encode()), sync=self._fs.sync_file)
        path = f"{self._layout.pending}/{os.path.basename(temp.path)}"
        try:
            temp.rename(path)
        except BaseException:
            temp.discard()
            raise
        if self._fs.sync_file:
            try:
                self._fs.secure(path)  # or a power cut could keep some of the flips, and not the note
            except BaseException:
                remove_quietly(path)
                let_go(temp.fd)
                raise
        return path, temp

    def flip_for(self, name: str, data: bytes, end: End) -> bytes | None:
        """The byte that commits the tail behind `end` in the bucket `data`, if it was decided that it counts."""
        for _, note in self._notes():
            if name in note and tuple(note[name][:2]) == tuple(end):
                flip = bytes((note[name][2],))
                try:
                    follow(data[BUCKET_HEAD : end.end - 1] + flip + data[end.end :], start(data))
                except Unreadable:
                    continue
                return flip
        return None

    def _notes(self) -> Iterator[tuple[str, Note]]:
        with contextlib.suppress(FileNotFoundError):
            for filename in self._fs.listing(self._layout.pending):
                path = f"{self._layout.pending}/{filename}"
                with contextlib.suppress(OSError, ValueError, RecursionError, Unreadable):
                    note = read_note(path)
                    if note is not None:
                        yield path, note

    def abandoned(self) -> list[tuple[str, list[str]]]:
        """Notes whose writer is dead, each with the buckets to look at before it may be removed."""
        found = []
        for path, note in self._notes():
            with contextlib.suppress(OSError):
                fd = self._fs.open(path, CHANGE)  # NFS locks exclusively only what is open for writing
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if read_all(fd, 1):
                        found.append((path, sorted(note)))
                finally:
                    let_go(fd)
        return found


def read_note(path: str) -> Note | None:
    """The note in a file; None for what is no note, or names what is not below the root.

    Raises OSError, ValueError, `Unreadable`.
    """
    found = json.loads(unframe_text(read_small(path, LONGEST)))
    if not isinstance(found, dict) or not all(map(is_below, found)):
        return None
    for facts in found.values():
        if not isinstance(facts, list) or len(facts) != 3 or not all(type(fact) is int for fact in facts):
            return None
    return found if all(0 <= byte < 256 for _, _, byte in found.values()) else None
