"""A hashed category: many small items in at most 256 growing files, and what was compressed in one more, ``xx``.

On disk, as PickleShare has it: ``<category>/<two hex digits>``, a pickled dict of the keys with that hash, and
``<category>/xx``, a dict of what `compress` moved. What stands in a bucket is newer than what stands in ``xx``.
An item is set by one append to its bucket (flock, fstat, pwrite, unlock): the append decides.

`compress` locks every bucket, makes the new ``xx`` durable, and only then drops the buckets. Killed before the
new ``xx`` has its name, nothing has happened; after it, the buckets left over repeat what ``xx`` says. A
writer that waited for a bucket finds it gone and begins a new one.

Removing an item rewrites ``xx`` first and the bucket last, so that an old value never shows again. PickleShare
scattered string keys over the buckets by a hash that differs from run to run; the first write moves such a
category to an ``xx`` that `get` may look into even when it is to be fast.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from psync.engine.contract.bucket import Bucket, HeldBucket, Position, Tail
from psync.engine.contract.engine import Engine
from psync.engine.system import fork_hooks
from psync.errors import CorruptValue, StoreFailed, kept_at
from psync.store.codec import codec_of
from psync.store.key_hash import gethashfile
from psync.store.sentinels import MISSING

COMPRESSED = "xx"
OPEN = 1
"""Flag of an ``xx`` whose items were never compressed by a user, so that a fast `get` may find them."""
ROOMY = 1 << 16
"""Bytes: a smaller bucket is never looked at for what was overwritten in it."""
_is_bucket = re.compile(r"[0-9a-f]{2}").fullmatch


class _Seen(NamedTuple):
    """A bucket as far as this process has read it."""

    position: Position
    items: dict[Any, Any]
    flags: int


class _Undecodable(Exception):
    """A bucket that PickleShare wrote holds no pickled dict. Becomes `CorruptValue` once no bucket is held any more."""

    def __init__(self, bucket: str, reason: str) -> None:
        super().__init__(bucket, reason)
        self.bucket = bucket
        self.reason = reason


class Category:
    """The items of one category. Every method may run beside every other, in any process and thread."""

    def __init__(self, engine: Engine, name: str, place: Callable[[Any], str] = gethashfile) -> None:
        self.engine = engine
        self.name = name
        self._place = place
        """The bucket of a key: two hex digits."""
        self.codec = codec_of(engine.format)
        self._prefix = name + "/"
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        self._alone: dict[str, tuple[int, ...]] = {}
        """The identity of each bucket beside which there was no ``xx``."""
        self._roomy: dict[str, int] = {}
        """Size at which a bucket is looked at next, where it is not ROOMY."""
        fork_hooks.remember(self)
        self._gathered = False
        """True once it is known that no foreign bucket is left (nobody makes new ones while psync works here)."""

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def bucket_name(self, key: Any) -> str:
        """The name that changes when the item changes: watch this."""
        return self._prefix + self._place(key)

    def forget(self) -> None:
        """Give the memory of what was read back."""
        with self._lock:
            self._seen.clear()

    # -- reading -------------------------------------------------------------------------------------

    def _items(self, bucket: str) -> _Seen | None:
        """What is in `bucket` now; None if there is none. Its items are not the caller's to change or to give away."""
        file = self.engine.bucket(self._prefix + bucket)
        while True:
            seen = self._seen.get(bucket)
            tail = file.tail(None if seen is None else seen.position)
            if tail is not None and seen is not None and not tail.whole and not tail.ops:
                return seen
            with self._reported(), self._lock:
                if self._seen.get(bucket) is seen:  # else another thread was faster: what we read may be behind it
                    return self._follow(bucket, seen, tail)

    def _follow(self, bucket: str, seen: _Seen | None, tail: Tail | None) -> _Seen | None:
        if tail is None:
            self._seen.pop(bucket, None)
            return None
        if tail.foreign:
            seen = _Seen(tail.position, self._foreign(bucket, tail.ops), 0)
        elif seen is None or tail.whole:
            seen = _Seen(tail.position, self._loaded(bucket, tail.ops), tail.flags)
        elif tail.ops:
            seen.items.update(self._loaded(bucket, tail.ops))
            seen = _Seen(tail.position, seen.items, tail.flags)
        self._seen[bucket] = seen
        return seen

    def _loaded(self, bucket: str, ops: bytes) -> dict[Any, Any]:
        """The items in what psync appended, and in what somebody else did who can make a checksum."""
        try:
            return self.codec.load_items(ops)
        except self.codec.damage as error:
            if self.codec.objects:
                raise
            raise _Undecodable(bucket, f"it can't be read: {error!r}") from error

    def appended(self, name: str, tail: Tail) -> dict[Any, Any]:
        """The items in a `tail` that was read from the bucket `name`. Raises `CorruptValue`."""
        with self._reported():
            return self._loaded(name.removeprefix(self._prefix), tail.ops)

    def _foreign(self, bucket: str, data: bytes) -> dict[Any, Any]:
        """The dict in a bucket that PickleShare wrote."""
        try:
            found = self.codec.loads(data)
        except self.codec.damage as error:
            raise _Undecodable(bucket, f"it can't be read: {error!r}") from error
        if not isinstance(found, dict):
            raise _Undecodable(bucket, f"it holds no dict but a {type(found).__name__}")
        return found

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Outside of every `held`: to set a file aside takes its lock, and would wait for ourselves."""
        try:
            yield
        except _Undecodable as error:
            raise self._damaged(error) from error

    def _damaged(self, error: _Undecodable) -> CorruptValue:
        name = self._prefix + error.bucket
        refuge = self.engine.set_aside(name, error.reason, ())
        return CorruptValue(
            f"the bucket {name!r} is damaged: {error.reason}; {kept_at(refuge)}",
            key=name,
            quarantine=refuge,
            reason=error.reason,
        )

    def get(self, key: Any, *, fast_only: bool) -> Any:
        """The value of `key`, or MISSING. One fstat for a bucket that has not changed since it was last read."""
        seen = self._items(self._place(key))
        if seen is not None and key in seen.items:
            return self.codec.copy(seen.items[key])
        compressed = self._items(COMPRESSED)
        if not self._gathered:
            found = self._find_scattered(key)
            if found is not MISSING:
                return self.codec.copy(found)
        if compressed is not None and (not fast_only or compressed.flags & OPEN) and key in compressed.items:
            return self.codec.copy(compressed.items[key])
        return MISSING

    def _find_scattered(self, key: Any) -> Any:
        """`key` in a bucket where it does not belong: the last one wins, as it does in PickleShare's `hdict`."""
        found = MISSING
        for bucket in self._foreign_buckets():
            seen = self._items(bucket)
            if seen is not None and key in seen.items:
                found = seen.items[key]
        return found

    def _foreign_buckets(self) -> list[str]:
        """The buckets that PickleShare wrote; remembers that there are none."""
        found = []
        for bucket in self._buckets():
            tail = self.engine.bucket(self._prefix + bucket).tail()
            if tail is not None and tail.foreign:
                found.append(bucket)
        self._gathered = not found
        return found

    def _buckets(self) -> list[str]:
        return sorted(filter(_is_bucket, self.engine.entries(self.name)[0]))

    def everything(self, damaged: Callable[[CorruptValue], None]) -> dict[Any, Any]:
        """All items; `damaged` is told of each bucket that can't be read. An `update` is seen whole or not at all."""
        tails = self._tails(damaged)
        if self._changed_since(tails):
            with self._quiet():
                tails = self._tails(damaged)
        return self._merge(tails, lambda error: damaged(self._damaged(error)))

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep out all that changes more than one item at a time, as far as it is for us to lock anything here."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(StoreFailed):  # read-only for us
                held.enter_context(self.engine.guard(self.name))
            yield

    def _tails(self, damaged: Callable[[CorruptValue], None]) -> dict[str, Tail]:
        tails = {}
        for bucket in (COMPRESSED, *self._buckets()):
            try:
                tail = self.engine.bucket(self._prefix + bucket).tail()
            except CorruptValue as error:
                damaged(error)
                continue
            if tail is not None:
                tails[bucket] = tail
        return tails

    def _changed_since(self, tails: dict[str, Tail]) -> bool:
        """Whether anything was appended, compressed or removed since `tails` were read, one after the other."""
        if set(self._buckets()) != set(tails) - {COMPRESSED}:
            return True
        for bucket in (COMPRESSED, *tails):
            then = tails.get(bucket)
            if then is not None and then.foreign:
                continue
            now = self.engine.bucket(self._prefix + bucket).tail(None if then is None else then.position)
            if (now is None) != (then is None) or (now is not None and (now.whole or now.ops)):
                return True
        return False

    def _merge(self, tails: dict[str, Tail], damaged: Callable[[_Undecodable], None]) -> dict[Any, Any]:
        """``xx``, then what PickleShare wrote, then what psync wrote: later ones win."""
        merged: dict[Any, Any] = {}
        for bucket in sorted(tails, key=lambda bucket: (bucket != COMPRESSED, not tails[bucket].foreign, bucket)):
            tail = tails[bucket]
            try:
                found = self._foreign(bucket, tail.ops) if tail.foreign else self._loaded(bucket, tail.ops)
            except _Undecodable as error:
                damaged(error)
                continue
            if merged:
                merged.update(found)
            else:
                merged = found
        return merged

    # -- setting -------------------------------------------------------------------------------------

    def set(self, key: Any, value: Any) -> None:
        self.set_pickled(key, self.codec.item(key, value))

    def set_pickled(self, key: Any, ops: bytes) -> None:
        """`set`, with what `Codec.item` made of key and value."""
        while not (size := self.growing(key).append(ops)):
            self.gather()
        self.grown(key, size)

    def growing(self, key: Any) -> Bucket:
        """The bucket to append the item of `key` to. Say how long it is then (`grown`); if it is foreign, `gather`."""
        name = self.bucket_name(key)
        if not (self._gathered or self._is_growing(name)):
            self.gather()
        return self.engine.bucket(name)

    def grown(self, key: Any, size: int) -> None:
        """What holds `key` takes so many bytes now: it may be time to look at it."""
        if size > ROOMY and size > self._roomy.get(bucket := self._place(key), ROOMY):
            self._squeeze(bucket)

    def _squeeze(self, bucket: str) -> None:
        """Rewrite a bucket that holds more overwritten items than others; it has to double before the next look."""
        with self._reported(), self.engine.bucket(self._prefix + bucket).held() as held:
            if held is not None:
                size = len(held.tail().ops)
                ops = self.codec.items(self._held_items(bucket, held))
                if len(ops) * 2 < size:
                    held.replace(ops, durable=True)
                    size = len(ops)
                self._roomy[bucket] = max(ROOMY, 2 * size)

    def _is_growing(self, name: str) -> bool:
        """True if psync's own bucket stands there: then PickleShare's were gathered before it was made."""
        tail = self.engine.bucket(name).tail()
        self._gathered = tail is not None and not tail.foreign
        return self._gathered

    def gather(self) -> None:
        """Move what PickleShare scattered, if there is any, to an open ``xx``."""
        if self._foreign_buckets():
            self.compress(flags=OPEN)
        self._gathered = True

    def add(self, key: Any, value: Any) -> bool:
        """Set `key` unless it is there; True for the one who set it."""
        ops = self.codec.item(key, value)
        bucket = self._place(key)
        if not self._gathered:
            self.gather()
        file = self.engine.bucket(self._prefix + bucket)
        while True:
            try:
                with file.held() as held:
                    if held is not None:
                        seen = self._held(bucket, held)
                        if key in seen.items or self._is_compressed(key, bucket, seen):
                            return False
                        self._grown(bucket, seen, ops, held.append(ops))
                        return True
            except _Undecodable as error:  # here, as in `_reported`, nothing is held any more
                raise self._damaged(error) from error
            file.append(b"")

    def _held(self, bucket: str, held: HeldBucket) -> _Seen:
        with self._lock:
            seen = self._seen.get(bucket)
            seen = self._follow(bucket, seen, held.tail(None if seen is None else seen.position))
            assert seen is not None
            return seen

    def _held_items(self, bucket: str, held: HeldBucket) -> dict[Any, Any]:
        return self._held(bucket, held).items

    def _is_compressed(self, key: Any, bucket: str, seen: _Seen) -> bool:
        """While `bucket` is held: whether ``xx`` has `key`. What the bucket held before it was dropped is there by now.

        Nothing of a bucket gets into ``xx`` without the bucket being dropped. So once there was no ``xx``, it need not
        be looked for again as long as the bucket is the same.
        """
        if self._alone.get(bucket) == seen.position.identity:
            return False
        compressed = self._items(COMPRESSED)
        if compressed is None:
            self._alone[bucket] = seen.position.identity
            return False
        return key in compressed.items

    def _grown(self, bucket: str, seen: _Seen, ops: bytes, position: Position) -> None:
        """While `bucket` is held: what was appended to what was `seen` need not be read."""
        with self._lock:
            if self._seen.get(bucket) is seen:
                seen.items.update(self.codec.load_items(ops))
                self._seen[bucket] = _Seen(position, seen.items, seen.flags)

    def update(self, mapping: dict[Any, Any]) -> None:
        """Set all items of `mapping` at one moment: who reads several sees all or none of them."""
        if not self._gathered:
            self.gather()
        ops = {name: self.codec.items(part) for name, part in self._parted(mapping)}
        with self.engine.guard(self.name):
            self.engine.append_all(ops)

    def update_each(self, mapping: dict[Any, Any]) -> None:
        """Set all items of `mapping`, those of one bucket at one moment: `set` for many."""
        for _, part in self._parted(mapping):
            self.set_pickled(next(iter(part)), self.codec.items(part))

    def _parted(self, mapping: dict[Any, Any]) -> list[tuple[str, dict[Any, Any]]]:
        """By the name of the bucket, in order."""
        parts: dict[str, dict[Any, Any]] = {}
        for key, value in mapping.items():
            parts.setdefault(self.bucket_name(key), {})[key] = value
        return sorted(parts.items())

    # -- removing and compressing --------------------------------------------------------------------

    def pop(self, key: Any) -> Any:
        """Remove `key`; its last value, or MISSING."""
        if not self._gathered:
            self.gather()
        bucket = self._place(key)
        with self._reported(), self.engine.guard(self.name), self.engine.bucket(self._prefix + bucket).held() as held:
            value = self._pop_compressed(key)
            if held is not None:
                items = dict(self._held_items(bucket, held))
                if key in items:
                    value = items.pop(key)
                    held.replace(self.codec.items(items), durable=True)
            return value if value is MISSING else self.codec.copy(value)

    def _pop_compressed(self, key: Any) -> Any:
        with self.engine.bucket(self._prefix + COMPRESSED).held() as held:
            if held is None:
                return MISSING
            items = dict(self._held_items(COMPRESSED, held))
            value = items.pop(key, MISSING)
            if value is not MISSING:
                held.replace(self.codec.items(items), flags=held.tail().flags, durable=True)
            return value

    def compress(self, *, flags: int = 0) -> None:
        """Everything moves to ``xx``. Raises `CorruptValue`, with nothing moved, if a bucket can't be read."""
        if not self._buckets():
            return
        with self._reported(), self._frozen() as held:
            merged = self._merge({bucket: each.tail() for bucket, each in held.items()}, _refuse)
            compressed = held.pop(COMPRESSED)
            compressed.replace(self.codec.items(merged), flags=flags, durable=True)
            compressed.secure()
            for each in held.values():
                each.drop()
        self._gathered = True

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[dict[str, HeldBucket]]:
        """All buckets there are, and ``xx``, which is made if need be: nothing in them changes while they are held."""
        with self.engine.guard(self.name), contextlib.ExitStack() as stack:
            self.engine.bucket(self._prefix + COMPRESSED).append(b"")
            held = {}
            for bucket in (*self._buckets(), COMPRESSED):
                each = stack.enter_context(self.engine.bucket(self._prefix + bucket).held())
                if each is not None:
                    held[bucket] = each
            yield held


def _refuse(error: _Undecodable) -> None:
    raise error
