"""Hashed category: keeps many small items in at most 256 growing buckets, and the compressed ones in one more, ``xx``.

On disk, as PickleShare has it: ``<category>/<two hex digits>``, a pickled dict of the keys with that hash, and
``<category>/xx``, a dict of the items that `compress` moved. A bucket is newer than ``xx``. An item is set by one
append to its bucket (flock, fstat, pwrite, unlock): the append decides.

`compress` locks every bucket, makes the new ``xx`` durable, and only then drops the buckets. A kill before the rename
of the new ``xx`` changes nothing; after it, the buckets that are left repeat what ``xx`` says. A writer that waited for
a bucket finds it gone and begins a new one.

`pop` rewrites ``xx`` first and the bucket last, so that an old value never shows again. PickleShare scattered string
keys over the buckets by a hash that differs from run to run; the first write moves such a category to an ``xx`` into
which a fast `get` looks, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from psync.engine.contract.bucket import COMPRESSED, Bucket, ForeignBucket, HeldBucket, Tail, is_bucket_segment
from psync.engine.contract.engine import Engine
from psync.engine.contract.values import FOREIGN_REASON
from psync.engine.encoding.framing import is_dict
from psync.errors import CorruptValue, StoreFailed, UnreadableValue
from psync.store.bucket_reader import BucketReader, ReadBucket, Undecodable
from psync.store.codec import codec_of
from psync.store.codec_type import Items, Unread, UnreadKey, fails_again
from psync.store.key_hash import gethashfile
from psync.store.sentinels import MISSING
from psync.store.unreadable import raise_unreadable

GATHERED_FLAG = 1
"""Marks an ``xx`` whose items no user compressed, so that a fast `get` finds them."""
MIN_SQUEEZED_BYTES = 1 << 16
"""A smaller bucket is never rewritten without its overwritten items."""


class Category:
    """The items of one category. All methods may run at the same time, in any number of processes and threads."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        place: Callable[[Any], str] = gethashfile,
        *,
        shown: str | None = None,
        item: str = "the item",
    ) -> None:
        """`shown` and `item`: what people call the category, if not by its name, and one of its items."""
        self.engine = engine
        self.name = name
        self.shown = f"the category {name!r}" if shown is None else shown
        self._item = item
        self._place = place
        """Returns the bucket of a key: two hex digits."""
        self.codec = codec_of(engine.format)
        self._prefix = name + "/"
        self._reader = reader = BucketReader(engine, self._prefix, self.codec)
        self._items = reader.items
        self.forget = reader.forget
        self._alone: dict[str, tuple[int, ...]] = {}
        """By bucket, its identity when there was no ``xx``."""
        self._squeeze_at: dict[str, int] = {}
        """By bucket, the size in bytes above which it is examined next, if it was before."""
        self._gathered = False
        """True once no foreign bucket is left (no other program makes new ones while psync works here)."""
        self._strange: dict[str, CorruptValue] = {}
        """Names of buckets at which the last look found files that hold neither a bucket nor a value, and why."""

    def bucket_name(self, key: Any) -> str:
        """Return the name that changes when the item changes: watch this one."""
        return self._prefix + self._place(key)

    # -- reading -------------------------------------------------------------------------------------

    def appended(
        self, name: str, tail: Tail, unreadable: Callable[[UnreadableValue], object]
    ) -> Iterable[tuple[Any, Any]]:
        """Load the items in a `tail` that was read from the bucket `name`; see `everything`. Raises `CorruptValue`."""
        with self._reader.reported():
            items = self._reader.loaded(name.removeprefix(self._prefix), tail)
        return self.readable(items, unreadable) if type(items) is Items else items.items()

    def get(self, key: Any, *, fast_only: bool) -> Any:
        """Return the value of `key`, or MISSING. One fstat for a bucket that has not changed since the last read.

        Raises `UnreadableValue`.
        """
        seen = self._items(bucket := self._place(key))
        if seen is None or key not in seen.items:
            seen, bucket = self._find_elsewhere(key, fast_only)
            if seen is None:
                return MISSING
        value = seen.items[key]
        try:
            return self.codec.copy(value)
        except BaseException as error:
            if type(value) is not Unread:
                self.forget(bucket)  # the next call gets what its class is by then
            return self._from_bytes(key, value, error, self._reader.file(bucket).tail)

    def has(self, key: Any) -> bool:
        """Tell whether there is an item of `key`, compressed or not, readable or not."""
        seen = self._items(self._place(key))
        return (seen is not None and key in seen.items) or self._find_elsewhere(key, fast_only=False)[0] is not None

    def _find_elsewhere(self, key: Any, fast_only: bool) -> tuple[ReadBucket | None, str]:
        """Look for `key` where it is not expected, and in ``xx``; (None, "") if it is not there."""
        compressed = self._items(COMPRESSED)
        if not self._gathered:
            # in the wrong buckets, too: the last one wins, as it does in PickleShare's `hdict`
            for bucket in reversed(self._foreign_buckets()):
                seen = self._items(bucket)
                if seen is not None and key in seen.items:
                    return seen, bucket
        if compressed is not None and (not fast_only or compressed.flags & GATHERED_FLAG) and key in compressed.items:
            return compressed, COMPRESSED
        return None, ""

    def _own(self, key: Any, value: Any, tail: Callable[[], Tail | None]) -> Any:
        """Return a copy of `value`, an item in `tail`. Raises `UnreadableValue`."""
        try:
            return self.codec.copy(value)
        except BaseException as error:
            return self._from_bytes(key, value, error, tail)

    def _from_bytes(self, key: Any, value: Any, error: BaseException, tail: Callable[[], Tail | None]) -> Any:
        """Load a value that can't be copied: it is unread, or its class was defined anew since it was read."""
        if type(value) is not Unread:
            if not fails_again(self.codec.copy, value, error):
                raise error
            now = tail()
            value = None if now is None else self._reader.unread(now).get(key)
            if value is None:
                raise error
        return self._loaded(key, value)

    def _loaded(self, key: Any, value: Unread) -> Any:
        """Load an unread value. Raises `UnreadableValue`."""
        try:
            return self.codec.loads(value.payload)
        except BaseException as error:
            what = f"{self._item} {key!r} of {self.shown}"
            raise_unreadable(what, error, value.payload, self.codec, key=key, category=self.name)

    def _foreign_buckets(self) -> list[str]:
        """List the buckets that PickleShare wrote; remembers if there are none. Raises `InvalidKey` if one of them, or
        ``xx``, is a value. A file that holds neither a bucket nor a value is passed over."""
        found, self._strange = [], {}
        for bucket in filter(is_bucket_segment, self.engine.entries(self.name)[0]):
            file = self._reader.file(bucket)
            try:
                tail = file.tail() if file.is_foreign() else None
                if tail is None or not tail.foreign:
                    continue
                if not is_dict(tail.ops):
                    with self._reader.reported():
                        self._reader.loaded(bucket, tail)
                found.append(bucket)
            except CorruptValue as error:
                if not error.foreign:
                    raise
                self._strange[bucket] = error
        found = sorted(bucket for bucket in found if bucket != COMPRESSED)
        self._gathered = not found
        return found

    def _buckets(self) -> list[str]:
        names = filter(is_bucket_segment, self.engine.entries(self.name)[0])
        return sorted(name for name in names if name != COMPRESSED)

    def everything(
        self, damaged: Callable[[CorruptValue], object], unreadable: Callable[[UnreadableValue], object]
    ) -> dict[Any, Any]:
        """Return all items; `damaged` gets an error for each bucket that is, `unreadable` one for each item that can't
        be unpickled here. An `update` shows whole or not at all."""
        items = self._read_all(damaged, unreadable)
        return dict(self.readable(items, unreadable)) if type(items) is Items else items

    def keys(self, damaged: Callable[[CorruptValue], object]) -> list[Any]:
        """Return the keys of all items whose key can be read; see `everything`."""
        return [key for key in self._read_all(damaged, _refuse) if type(key) is not UnreadKey]

    def readable(
        self, items: dict[Any, Any], unreadable: Callable[[UnreadableValue], object]
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the items that are not `Unread`, or can be read by now; `unreadable` gets an error for each other."""
        for key, value in items.items():
            if type(key) is not UnreadKey and type(value) is not Unread:
                yield key, value
                continue
            try:
                known = self._loaded_key(key) if type(key) is UnreadKey else key
                yield known, self._loaded(known, value) if type(value) is Unread else value
            except UnreadableValue as error:
                unreadable(error)

    def _loaded_key(self, key: UnreadKey) -> Any:
        """Load an unread key. Raises `UnreadableValue`."""
        try:
            known = self.codec.loads(key.payload)
            hash(known)
        except BaseException as error:
            what = f"the key of an item of {self.shown}"
            raise_unreadable(what, error, key.payload, self.codec, key=None, category=self.name)
        return known

    def _read_all(
        self, damaged: Callable[[CorruptValue], object], unreadable: Callable[[UnreadableValue], object]
    ) -> dict[Any, Any]:
        """Return all items, in `Items` if one of them may be `Unread`."""
        tails, strange = self._tails(damaged)
        if self._changed_since(tails, strange):
            with self._quiet():
                tails, _ = self._tails(damaged)
        return self._merge(tails, lambda error: damaged(self._reader.damaged(error)), unreadable)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep out every change of more than one item, if this process may lock anything here."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(StoreFailed):  # the directory is read-only for this process
                held.enter_context(self.engine.guard(self.name))
            yield

    def _tails(self, damaged: Callable[[CorruptValue], object]) -> tuple[dict[str, Tail], set[str]]:
        """Read all buckets; and name those at which there are files of others."""
        tails, strange = {}, set()
        for bucket in (COMPRESSED, *self._buckets()):
            try:
                tail = self._reader.file(bucket).tail()
            except CorruptValue as error:
                if error.foreign:
                    strange.add(bucket)
                damaged(error)
                continue
            if tail is not None:
                tails[bucket] = tail
        return tails, strange

    def _changed_since(self, tails: dict[str, Tail], strange: set[str]) -> bool:
        """Tell whether anything was appended, compressed or removed while `tails` were read one after the other."""
        if set(self._buckets()) - strange != set(tails) - {COMPRESSED}:
            return True
        if not all(self.engine.bucket(self._prefix + bucket).is_foreign() for bucket in strange):
            return True
        for bucket in {COMPRESSED, *tails} - strange:
            then = tails.get(bucket)
            if then is not None and then.foreign:
                continue
            now = self._reader.file(bucket).tail(None if then is None else then.position)
            if (now is None) != (then is None) or (now is not None and (now.whole or now.ops)):
                return True
        return False

    def _merge(
        self,
        tails: dict[str, Tail],
        damaged: Callable[[Undecodable], object],
        unreadable: Callable[[UnreadableValue], object],
    ) -> dict[Any, Any]:
        """Merge ``xx``, then PickleShare's buckets, then psync's own: later ones win."""
        merged: dict[Any, Any] = {}
        is_partly_unread = False
        for bucket in _in_order(tails):
            try:
                found = self._reader.loaded(bucket, tails[bucket])
            except Undecodable as error:
                damaged(error)
                continue
            except UnreadableValue as reason:  # a value at the name of a bucket
                unreadable(reason)
                continue
            is_partly_unread = is_partly_unread or type(found) is Items
            if merged:
                merged.update(found)
            else:
                merged = found
        return Items(merged) if is_partly_unread else merged

    def _merge_unread(self, tails: dict[str, Tail]) -> dict[Any, Any]:
        """`_merge`, with all values `Unread`."""
        merged = {}
        for bucket in _in_order(tails):
            merged.update(self._reader.unread(tails[bucket]))
        return merged

    def _rewritten(self, items: dict[Any, Any], unread: Callable[[], dict[Any, Any]]) -> bytes:
        """Return the opcodes of `items`; if one of them can't be pickled any more, of `unread()`, the same ones as they
        were written."""
        try:
            return self.codec.items(items)
        except BaseException as error:
            if not fails_again(self.codec.items, items, error):
                raise
            return self.codec.items(unread())  # a class was defined anew since an object was read, for one

    # -- setting -------------------------------------------------------------------------------------

    def set(self, key: Any, value: Any) -> None:
        self.set_pickled(key, self.codec.item(key, value))

    def set_pickled(self, key: Any, ops: bytes) -> None:
        """`set`, with the opcodes that `Codec.item` made of key and value."""
        while True:
            try:
                if size := self.growing(key).append(ops):
                    break
            except CorruptValue as error:
                self._make_room(error, self.bucket_name(key))
            else:
                self._gather_for(self.bucket_name(key))
        if size > MIN_SQUEEZED_BYTES:
            self.grown(key, size)

    def _gather_for(self, *names: str) -> None:
        """`gather`, because none of these buckets, or not all, could be extended."""
        self.gather()
        for name in names:
            if (error := self._strange.get(name.removeprefix(self._prefix))) is not None:
                self._make_room(error, name)

    def _make_room(self, error: CorruptValue, *names: str) -> None:
        """Keep a foreign file's bytes in quarantine, because items are set at one of `names`; raise `error` if it is no
        such file, or elsewhere."""
        reason = f"{FOREIGN_REASON} ({error.reason}), and items were set there"
        if (
            not error.foreign
            or error.key not in names
            or self.engine.set_aside(error.key, reason, (), foreign=True) is None
        ):
            raise error

    def growing(self, key: Any) -> Bucket:
        """Return the bucket to append the item of `key` to. The caller passes the new size to `grown`; 0 means that the
        bucket is foreign: then it calls `gather` and tries again."""
        bucket = self._place(key)
        if not (self._gathered or self._is_growing(bucket)):
            self.gather()
        return self._reader.file(bucket)

    def grown(self, key: Any, size: int) -> None:
        """Rewrite the bucket of `key`, which has `size` bytes now, if most of it may be overwritten items."""
        if size > MIN_SQUEEZED_BYTES and size > self._squeeze_at.get(bucket := self._place(key), MIN_SQUEEZED_BYTES):
            self._squeeze(bucket)

    def _squeeze(self, bucket: str) -> None:
        """Rewrite a bucket that holds more overwritten items than others; it is examined again at twice its size."""
        with self._reader.reported(), self._reader.file(bucket).held() as held:
            if held is not None:
                tail = held.tail()
                size = len(tail.ops)
                ops = self._rewritten(self._reader.held(bucket, held).items, lambda: self._reader.unread(tail))
                if len(ops) * 2 < size:
                    held.replace(ops, durable=True)
                    size = len(ops)
                self._squeeze_at[bucket] = max(MIN_SQUEEZED_BYTES, 2 * size)

    def _is_growing(self, bucket: str) -> bool:
        """Tell whether psync's own bucket stands there: PickleShare's were gathered before it was made."""
        tail = self._reader.file(bucket).tail()
        self._gathered = tail is not None and not tail.foreign
        return self._gathered

    def gather(self) -> bool:
        """Move PickleShare's scattered items to an ``xx`` into which a fast `get` looks. False if there are none."""
        found = bool(self._foreign_buckets())
        if found:
            self.compress(flags=GATHERED_FLAG)
        self._gathered = True
        return found

    def add(self, key: Any, value: Any) -> bool:
        """Set `key` unless it is there; True for the one caller that set it."""
        return self.add_pickled(key, self.codec.item(key, value))

    def add_pickled(self, key: Any, ops: bytes) -> bool:
        """`add`, with the opcodes that `Codec.item` made of key and value."""
        bucket = self._place(key)
        if not self._gathered:
            self.gather()
        file = self._reader.file(bucket)
        while True:
            try:
                with file.held() as held:
                    if held is not None:
                        seen = self._reader.held(bucket, held)
                        if key in seen.items or self._is_compressed(key, bucket, seen):
                            return False
                        self._reader.add(bucket, seen, ops, held.append(ops))
                        return True
            except Undecodable as error:  # `reported` written out: nothing is held any more
                self._make_room(self._reader.damaged(error), self._prefix + bucket)
            except ForeignBucket:  # a dict was assigned to the name of the bucket since they were gathered
                self.gather()
            except CorruptValue as error:
                self._make_room(error, self._prefix + bucket)
            file.append(b"")

    def _is_compressed(self, key: Any, bucket: str, seen: ReadBucket) -> bool:
        """Tell whether ``xx`` has `key`, while `bucket` is held.

        Items get from a bucket to ``xx`` only when the bucket is dropped. So once there was no ``xx``, it need not be
        looked for again as long as the bucket is the same.
        """
        if self._alone.get(bucket) == seen.position.identity:
            return False
        compressed = self._items(COMPRESSED)
        if compressed is None:
            self._alone[bucket] = seen.position.identity
            return False
        return key in compressed.items

    def update(self, mapping: dict[Any, Any]) -> None:
        """Set all items of `mapping` at one instant: a reader of several sees all or none of them."""
        if not self._gathered:
            self.gather()
        ops = {name: self.codec.items(part) for name, part in self._parted(mapping)}
        while True:
            try:
                with self.engine.guard(self.name):
                    return self.engine.append_all(ops)
            except ForeignBucket:  # a dict was assigned to the name of a bucket since they were gathered
                self._gather_for(*ops)
            except CorruptValue as error:
                self._make_room(error, *ops)

    def update_each(self, mapping: dict[Any, Any]) -> None:
        """Set all items of `mapping`, those of one bucket at one instant: `set` for many."""
        for _, part in self._parted(mapping):
            self.set_pickled(next(iter(part)), self.codec.items(part))

    def _parted(self, mapping: dict[Any, Any]) -> list[tuple[str, dict[Any, Any]]]:
        """Divide `mapping` by the name of the bucket, in order."""
        parts: dict[str, dict[Any, Any]] = {}
        for key, value in mapping.items():
            parts.setdefault(self.bucket_name(key), {})[key] = value
        return sorted(parts.items())

    # -- removing and compressing --------------------------------------------------------------------

    def pop(self, key: Any) -> Any:
        """Remove `key` and return its last value, or MISSING. Raises `UnreadableValue`, with nothing removed."""
        removed = self._remove(key, read=True)
        return removed[0] if removed else MISSING

    def remove(self, key: Any) -> bool:
        """Remove `key`, whether or not its value can be read; True if it was there."""
        return bool(self._remove(key, read=False))

    def _remove(self, key: Any, *, read: bool) -> list[Any]:
        """Remove `key` and return its last value in a list, unread unless `read`; an empty list if it is not there."""
        if not self._gathered:
            if read:
                self.get(key, fast_only=False)  # raises before anything is moved
            self.gather()
        bucket = self._place(key)
        with (
            self._reader.reported(),
            self.engine.guard(self.name),
            self._reader.file(bucket).held() as held,
            self._reader.file(COMPRESSED).held() as compressed,
        ):
            value: Any = MISSING
            parts = []
            for name, part in ((COMPRESSED, compressed), (bucket, held)):
                if part is not None and key in (seen := self._reader.held(name, part)).items:
                    value = seen.items[key]
                    parts.append((part, seen))
            if value is MISSING:
                return []
            if read:
                value = self._own(key, value, parts[-1][0].tail)
            for part, seen in parts:  # ``xx`` first: a kill in between leaves the newer value, never the older one
                self._rewrite_without(key, part, seen)
            return [value]

    def _rewrite_without(self, key: Any, part: HeldBucket, seen: ReadBucket) -> None:
        def without(items: dict[Any, Any]) -> dict[Any, Any]:
            return {each: value for each, value in items.items() if each != key}

        ops = self._rewritten(without(seen.items), lambda: without(self._reader.unread(part.tail())))
        part.replace(ops, flags=seen.flags, durable=True)

    def compress(self, *, flags: int = 0) -> None:
        """Move all items to ``xx``. Raises `CorruptValue` if a bucket can't be read, `InvalidKey` if one is a value;
        nothing is moved then."""
        if not self._buckets():
            return
        self._foreign_buckets()  # raises before ``xx`` is made
        with self._reader.reported(), self._frozen() as held:
            tails = {bucket: each.tail() for bucket, each in held.items()}
            ops = self._rewritten(self._merge(tails, _refuse, _refuse), lambda: self._merge_unread(tails))
            compressed = held.pop(COMPRESSED)
            compressed.replace(ops, flags=flags, durable=True)
            compressed.secure()  # on the disk before the buckets go: a power cut must not leave neither of the two
            for each in held.values():
                each.drop()
        self._gathered = True

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[dict[str, HeldBucket]]:
        """Hold all buckets, and ``xx``, which is made if need be: nothing in them changes meanwhile."""
        with self.engine.guard(self.name), contextlib.ExitStack() as stack:
            compressed = self._reader.file(COMPRESSED)
            if (error := self._strange.get(COMPRESSED)) is not None:
                self._make_room(error, self._prefix + COMPRESSED)
            compressed.append(b"")
            held = {}
            for bucket in (*(bucket for bucket in self._buckets() if bucket not in self._strange), COMPRESSED):
                each = stack.enter_context(self._reader.file(bucket).held())
                if each is not None:
                    held[bucket] = each
            yield held


def _refuse(error: Exception) -> None:
    raise error


def _in_order(tails: dict[str, Tail]) -> list[str]:
    """Return the buckets in the order in which later items replace earlier ones."""
    return sorted(tails, key=lambda bucket: (bucket != COMPRESSED, not tails[bucket].foreign, bucket))
