"""Bucket reader: keeps in memory what this process has read of the buckets of one category, and follows their appends.

A bucket that has not changed costs one fstat; one that has grown costs the bytes that were appended since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail
from psync.engine.contract.engine import Engine
from psync.engine.system import fork_hooks
from psync.engine.system.reentry import Section
from psync.errors import CorruptValue, kept_at
from psync.store.codec_type import Codec


class ReadBucket(NamedTuple):
    """A bucket as far as this process has read it."""

    position: Position
    items: dict[Any, Any]
    flags: int


class Undecodable(Exception):
    """A bucket holds no pickled dict. It becomes `CorruptValue` once no bucket is held any more."""

    def __init__(self, bucket: str, reason: str) -> None:
        super().__init__(bucket, reason)
        self.bucket = bucket
        self.reason = reason


class BucketReader:
    """The buckets of one category, as this process has read them. Threads may share it."""

    def __init__(self, engine: Engine, prefix: str, codec: Codec) -> None:
        self._engine = engine
        self._prefix = prefix
        self._codec = codec
        self._read: dict[str, ReadBucket] = {}
        self._files: dict[str, Bucket] = {}
        self._section = Section(f"what was read of {prefix!r}")
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._section = Section(self._section.what)

    def forget(self) -> None:
        """Free the memory of all that was read."""
        with self._section, self._section.lock:
            self._read.clear()

    def file(self, bucket: str) -> Bucket:
        """Return the engine's bucket: its file may stay open as long as this reader lives."""
        return self._files.get(bucket) or self._files.setdefault(bucket, self._engine.bucket(self._prefix + bucket))

    def items(self, bucket: str) -> ReadBucket | None:
        """Read `bucket`; None if there is none. The caller must not change the items, and gives away only copies."""
        file = self._files.get(bucket) or self.file(bucket)
        while True:
            known = self._read.get(bucket)
            tail = file.tail(None if known is None else known.position)
            if tail is not None and known is not None and not tail.whole and not tail.ops:
                return known
            with self.reported(), self._section, self._section.lock:
                if self._read.get(bucket) is known:  # else another thread has read further than this tail goes
                    return self._follow(bucket, known, tail)

    def held(self, bucket: str, held: HeldBucket) -> ReadBucket:
        """Read a bucket that the caller holds."""
        with self._section, self._section.lock:
            known = self._read.get(bucket)
            known = self._follow(bucket, known, held.tail(None if known is None else known.position))
            assert known is not None
            return known

    def add(self, bucket: str, known: ReadBucket, ops: bytes, position: Position) -> None:
        """Take in what the holder of `bucket` has just appended, so that it need not be read."""
        with self._section, self._section.lock:
            if self._read.get(bucket) is known:
                known.items.update(self._codec.load_items(ops))
                self._read[bucket] = ReadBucket(position, known.items, known.flags)

    def _follow(self, bucket: str, known: ReadBucket | None, tail: Tail | None) -> ReadBucket | None:
        if tail is None:
            self._read.pop(bucket, None)
            return None
        if known is None or tail.whole or tail.foreign:
            known = ReadBucket(tail.position, self.loaded(bucket, tail), tail.flags)
        elif tail.ops:
            known.items.update(self.loaded(bucket, tail))
            known = ReadBucket(tail.position, known.items, tail.flags)
        self._read[bucket] = known
        return known

    def loaded(self, bucket: str, tail: Tail) -> dict[Any, Any]:
        """Load the items in `tail`. Raises `Undecodable` if it is foreign or untrusted, and holds no dict."""
        if tail.foreign:
            return self._foreign(bucket, tail.ops)
        try:
            return self._codec.load_items(tail.ops)
        except self._codec.damage as error:
            if self._codec.objects:
                raise  # psync wrote it: the error is the class's own
            raise Undecodable(bucket, f"it can't be read: {error!r}") from error

    def _foreign(self, bucket: str, data: bytes) -> dict[Any, Any]:
        """Load the dict in a bucket that PickleShare wrote."""
        try:
            found = self._codec.loads(data)
        except self._codec.damage as error:
            raise Undecodable(bucket, f"it can't be read: {error!r}") from error
        if not isinstance(found, dict):
            raise Undecodable(bucket, f"it holds no dict but a {type(found).__name__}")
        return found

    # -- damage --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Turn `Undecodable` into `CorruptValue`. Enter it outside of every `held`: quarantine takes the bucket's
        lock, so a holder would wait for itself."""
        try:
            yield
        except Undecodable as error:
            raise self.damaged(error) from error

    def damaged(self, error: Undecodable) -> CorruptValue:
        """Set the bucket aside, and return the error that says so."""
        name = self._prefix + error.bucket
        refuge = self._engine.set_aside(name, error.reason, ())
        return CorruptValue(
            f"the bucket {name!r} is damaged: {error.reason}; {kept_at(refuge)}",
            key=name,
            quarantine=refuge,
            reason=error.reason,
        )
