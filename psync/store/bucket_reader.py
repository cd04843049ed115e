"""Bucket reader: keeps in memory what this process has read of the buckets of one category, and follows their appends.

A bucket that has not changed costs one fstat; one that has grown costs the bytes that were appended since.

All items in the bytes are loaded together, the overwritten ones, too, because that is by far the fastest. If it fails,
the bytes are split into items, and each item that no later one replaces is loaded by itself. An item that fails then is
kept as bytes. It is loaded again whenever a caller asks for it, so that the value is back as soon as its class is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail, value_in_the_way
from psync.engine.contract.engine import Engine
from psync.engine.contract.values import Version
from psync.engine.system import fork_hooks
from psync.engine.system.reentry import Section
from psync.errors import CorruptValue, kept_at
from psync.store.codec_type import Codec, Items, Unread, UnreadKey, fails_again
from psync.store.unreadable import load_each, raise_unreadable


class ReadBucket(NamedTuple):
    """A bucket as far as this process has read it."""

    position: Position
    items: dict[Any, Any]
    flags: int


class Failing(NamedTuple):
    """The part of a bucket that is better not loaded: items that can't be, and overwritten ones, which may not be."""

    identity: Version
    size: int
    """How many bytes of opcodes were examined."""
    ranges: list[tuple[int, int]]
    unread: dict[Any, Unread]

    @classmethod
    def of(cls, items: Items, tail: Tail) -> Failing:
        unread = {key: value for key, value in items.items() if type(value) is Unread}
        last = {key: start for key, start, _ in items.ranges}
        ranges = [(start, end) for key, start, end in items.ranges if last[key] != start or key in unread]
        return cls(tail.position.identity, len(tail.ops), ranges, unread)

    def is_in(self, tail: Tail) -> bool:
        """Tell whether `tail` begins with the bytes that were examined."""
        return tail.whole and tail.position.identity == self.identity and len(tail.ops) >= self.size

    def rest_of(self, ops: bytes) -> bytes:
        parts = []
        at = 0
        for start, end in self.ranges:
            parts.append(ops[at:start])
            at = end
        return b"".join((*parts, ops[at:]))


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
        self._failing: dict[str, Failing] = {}
        self._section = Section(f"what was read of {prefix!r}")
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._section = Section(self._section.what)

    def forget(self, bucket: str | None = None) -> None:
        """Free the memory of all that was read, or of what was read of one bucket."""
        with self._section, self._section.lock:
            if bucket is None:
                self._read.clear()
                self._failing.clear()
            else:
                self._read.pop(bucket, None)

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
                try:
                    added = self._codec.load_items(ops)
                except Exception:  # it can't be read back here; its key can, as it was found
                    added = self.loaded(bucket, Tail(ops, position, whole=False))
                known.items.update(added)
                self._read[bucket] = ReadBucket(position, known.items, known.flags)

    def _follow(self, bucket: str, known: ReadBucket | None, tail: Tail | None) -> ReadBucket | None:
        if tail is None:
            self._read.pop(bucket, None)
            return None
        if known is None or tail.whole or tail.foreign:
            known = ReadBucket(tail.position, self.loaded(bucket, tail), tail.flags)
        elif tail.ops:
            more = self.loaded(bucket, tail)
            items = Items(known.items) if type(more) is Items else known.items
            items.update(more)
            known = ReadBucket(tail.position, items, tail.flags)
        if _has_unread_key(known.items):
            self._read.pop(bucket, None)  # the key may be read the next time
        else:
            self._read[bucket] = known
        return known

    def loaded(self, bucket: str, tail: Tail) -> dict[Any, Any]:
        """Load the items in `tail`: together, or if that fails each by itself; what fails then is `Unread`, in `Items`.

        Raises `Undecodable` if it is foreign or untrusted, and holds no dict; `UnreadableValue` if that can't be told.
        """
        known = self._failing.get(bucket)
        if known is not None and (items := self._loaded_without(known, tail)) is not None:
            return items
        load = self._codec.loads if tail.foreign else self._codec.load_items
        try:
            found = load(tail.ops)
        except BaseException as error:
            if not fails_again(load, tail.ops, error):
                raise
            items = self._split(bucket, tail, error)
            load_each(items, self._codec)  # if all are, what fails is an item that was overwritten since
            if tail.whole and not tail.foreign and not _has_unread_key(items):
                self._failing[bucket] = Failing.of(items, tail)
            items.ranges = ()
            return items
        if not isinstance(found, dict):
            raise value_in_the_way(self._prefix + bucket)  # a whole value: no damage, so nothing is set aside
        return found

    def unread(self, tail: Tail) -> dict[Any, Any]:
        """Return the items in `tail` with values that were not loaded, to be written elsewhere as they are. Raises
        ValueError if they can't be told apart."""
        return self._codec.split(tail.ops, tail.foreign)

    def _split(self, bucket: str, tail: Tail, error: BaseException) -> Items:
        """Return the items in `tail`, whose bytes as a whole raise `error`, unread.

        Raises `Undecodable`, or `UnreadableValue` if it is no dict, and not damaged either.
        """
        codec = self._codec
        try:
            return codec.split(tail.ops, tail.foreign)
        except ValueError:
            if isinstance(error, codec.damage) and (tail.foreign or not codec.objects):
                raise Undecodable(bucket, f"it can't be read: {error!r}") from error
            name = self._prefix + bucket
            whole = tail.ops if tail.foreign else b"".join((b"\x80\x05}", tail.ops, b"."))
            raise_unreadable(f"the value of {name!r}", error, whole, codec, key=name)

    def _loaded_without(self, failing: Failing, tail: Tail) -> Items | None:
        """`loaded`, for a bucket that failed before, without a second walk; None if there is more to it by now."""
        if not failing.is_in(tail):
            return None
        rest = failing.rest_of(tail.ops)
        try:
            items = Items(self._codec.load_items(rest))
        except BaseException as error:
            if not fails_again(self._codec.load_items, rest, error):
                raise
            return None
        unread = {key: value for key, value in failing.unread.items() if key not in items}
        load_each(unread, self._codec)
        items.update(unread)
        return items

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
            foreign=refuge is None or None,
        )


def _has_unread_key(items: dict[Any, Any]) -> bool:
    return type(items) is Items and any(type(key) is UnreadKey for key in items)
