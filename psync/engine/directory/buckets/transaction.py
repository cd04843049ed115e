"""Multi-append transaction: append to several buckets at one instant, decided by one intent record.

1. Each bucket gets its tail behind the old STOP byte. No reader sees it yet; a kill leaves a dead tail.
2. The intent record is renamed to ``.psync/pending/<random>``: it names the buckets, where each ended, and the byte
   that replaces its STOP. This rename is the fact that decides.
3. In each bucket the commit byte replaces the STOP. A kill in between leaves some for others: a writer or reader that
   finds an uncommitted tail looks for an intent record. If there is one, and the tail then fits its checksum, it writes
   the commit byte; if there is none, it cuts the tail off.
4. The intent record is removed. One that was left is an orphan once all its buckets were read, and a sweep removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping

from psync.engine.directory.buckets.bucket import DirectoryBucket, Prepared
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import CHANGE, let_go, make_folder, read_all, read_small, remove_quietly
from psync.engine.directory.fs.temporary import Temporary
from psync.engine.directory.layout import Layout, is_below
from psync.engine.encoding.framing import BUCKET_HEAD, End, Unreadable, follow, frame_text, start, unframe_text

Intent = dict[str, Prepared]
"""Bucket name -> what `DirectoryBucket.prepare` returned."""
MAX_INTENT_BYTES = 1 << 24
"""An intent record is read up to here."""


class MultiAppend:
    """The transactions of one directory."""

    def __init__(self, layout: Layout, fs: AtomicFiles) -> None:
        self._layout = layout
        self._fs = fs

    def append_all(self, buckets: Mapping[str, DirectoryBucket], ops: Mapping[str, bytes]) -> None:
        """Append `ops`, by bucket name. A lock, fstat and two writes a bucket, and one small file for all."""
        names = sorted(ops)  # all transactions lock in this order, so that none waits for another in a circle
        with contextlib.ExitStack() as locked:
            for name in names:
                locked.enter_context(buckets[name].locked())
            intent: Intent = {}
            try:
                for name in names:
                    intent[name] = buckets[name].prepare(ops[name])
                path, temp = self._write_intent(intent)
            except BaseException:
                for name in intent:
                    buckets[name].abandon()
                raise
            try:
                for name in names:
                    buckets[name].commit(intent[name])
                remove_quietly(path)
            except OSError:
                return  # it is decided: the next process that reads a bucket writes the missing commit bytes
            finally:
                let_go(temp.fd)

    def _write_intent(self, intent: Intent) -> tuple[str, Temporary]:
        make_folder(self._layout.pending, self._layout.trust.access)
        temp = self._fs.temporary(frame_text(json.dumps(intent).encode()), sync=self._fs.sync_file)
        path = f"{self._layout.pending}/{os.path.basename(temp.path)}"
        try:
            temp.rename(path)
        except BaseException:
            temp.discard()
            raise
        if self._fs.sync_file:
            try:
                self._fs.secure(path)  # else a power cut could keep some commit bytes, and lose the record
            except BaseException:
                remove_quietly(path)
                let_go(temp.fd)
                raise
        return path, temp

    def commit_byte_for(self, name: str, data: bytes, end: End) -> bytes | None:
        """The byte that commits the tail behind `end` in the bucket `data`; None if no intent record says so."""
        for _, intent in self._intents():
            if name in intent and tuple(intent[name][:2]) == tuple(end):
                commit_byte = bytes((intent[name][2],))
                try:
                    follow(data[BUCKET_HEAD : end.end - 1] + commit_byte + data[end.end :], start(data))
                except Unreadable:
                    continue
                return commit_byte
        return None

    def _intents(self) -> Iterator[tuple[str, Intent]]:
        with contextlib.suppress(FileNotFoundError):
            for filename in self._fs.listing(self._layout.pending):
                path = f"{self._layout.pending}/{filename}"
                with contextlib.suppress(OSError, ValueError, RecursionError, Unreadable):
                    intent = read_intent(path)
                    if intent is not None:
                        yield path, intent

    def abandoned(self) -> list[tuple[str, list[str]]]:
        """Intent records whose writers are dead, each with the buckets to read before it may be removed."""
        found = []
        for path, intent in self._intents():
            with contextlib.suppress(OSError):
                fd = self._fs.open(path, CHANGE)  # NFS locks exclusively only what is open for writing
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if read_all(fd, 1):
                        found.append((path, sorted(intent)))
                finally:
                    let_go(fd)
        return found


def read_intent(path: str) -> Intent | None:
    """The intent record in a file; None if it is none, or names a path that is not below the root.

    Raises OSError, ValueError, `Unreadable`.
    """
    found = json.loads(unframe_text(read_small(path, MAX_INTENT_BYTES)))
    if not isinstance(found, dict) or not all(map(is_below, found)):
        return None
    for facts in found.values():
        if not isinstance(facts, list) or len(facts) != 3 or not all(type(fact) is int for fact in facts):
            return None
    return found if all(0 <= byte < 256 for _, _, byte in found.values()) else None
