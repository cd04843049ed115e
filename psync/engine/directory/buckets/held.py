"""A bucket while it is held: nobody else can change it, so its size is known without a look."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from psync.engine.contract.bucket import HeldBucket, Position, Tail
from psync.engine.directory.buckets.file import OpenBucket
from psync.engine.encoding.framing import Unreadable, whole_bucket

if TYPE_CHECKING:
    from psync.engine.directory.buckets.bucket import DirectoryBucket


class HeldUnreadable(Exception):
    """A held bucket fails its check; reported when it is let go, because setting it aside takes its lock."""

    def __init__(self, bucket: DirectoryBucket, reason: str) -> None:
        super().__init__(reason)
        self.bucket = bucket


class Held(HeldBucket):
    def __init__(self, bucket: DirectoryBucket, file: OpenBucket, status: os.stat_result) -> None:
        self._bucket = bucket
        self.file = file
        self._size: int | None = status.st_size
        """Of the file, while that is certain: nobody else changes it."""
        self.changed = False

    def _known_size(self) -> int:
        size, self._size = self._size, None
        return os.fstat(self.file.fd).st_size if size is None else size

    def tail(self, since: Position | None = None) -> Tail:
        size = self._known_size()
        try:
            tail = self._bucket._settled_tail(self.file, size, since)
        except Unreadable as error:
            raise HeldUnreadable(self._bucket, str(error)) from error
        if not tail.foreign and tail.position.end == size:
            self._size = size
        return tail

    def append(self, ops: bytes) -> Position:
        try:
            extended = self._bucket._extend(self.file, self._known_size(), ops)
        except Unreadable as error:
            raise HeldUnreadable(self._bucket, str(error)) from error
        if not extended:
            raise ValueError("a foreign pickle can't be extended: replace it")
        self.changed = True
        known = self.file.known
        assert known is not None
        self._size = known.end
        return Position(self.file.identity, known.end, known.check)

    def replace(self, ops: bytes, *, flags: int = 0, durable: bool = False) -> None:
        self._size = None
        self.file = self._bucket._replace(self.file, whole_bucket(ops, flags)[0], durable)
        self.changed = True

    def secure(self) -> None:
        self._bucket.secure()

    def drop(self) -> None:
        fs = self._bucket._fs
        if fs.remove(self._bucket._path, self.file.fd):
            fs.bury(self.file.fd)
        self.changed = True
