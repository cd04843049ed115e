"""Store: maps names to picklable values, for every process that sees the directory.

`PickleShareDB` is the whole public interface in one class, so that a user finds each verb with its promise in one
place. Each verb is a few lines over the engine, a `Category`, or a module that is loaded when it is first needed; the
file is longer than 400 lines for its docstrings.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, Sequence, ValuesView
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from psync.engine import is_address, open_engine
from psync.engine.system.reentry import finish_later, reentrant
from psync.errors import CorruptValue, ReentrantCall, UnreadableValue, kept_at
from psync.store.cache import Cache
from psync.store.codec import codec_of
from psync.store.codec_type import PASSING
from psync.store.keys import check, is_bucket_name
from psync.store.sentinels import MISSING, NOT_YET

if TYPE_CHECKING:
    from psync.engine import Allow, Durability, Engine, Key, Root, Serializer, Sharing, Wakeups
    from psync.engine.contract.values import Cell
    from psync.store.category import Category
    from psync.store.link import PickleShareLink

D = TypeVar("D")


class _Modifying(threading.local):
    """The keys whose new values the functions of `modify` are computing in this thread."""

    def __init__(self) -> None:
        self.keys: set[tuple[object, str]] = set()
        """Each with the place of its store."""


_modifying = _Modifying()


class PickleShareDB(MutableMapping[str, Any]):
    """A mapping of str keys to picklable values, one file a key, below the directory `root` (made if it is not there).

    >>> import tempfile
    >>> db = PickleShareDB(tempfile.mkdtemp())
    >>> db["paths/are/ok/key"] = [1, (5, 46)]
    >>> db["paths/are/ok/key"], db.keys("paths/*/ok/*")
    ([1, (5, 46)], ['paths/are/ok/key'])

    Any number of handles, threads and processes may use one directory at once. Each operation on a key is atomic and
    takes effect at one instant: no reader gets a torn, mixed or outdated value, and `kill -9` at any instant leaves the
    value before or the value after. Each read returns a copy of the caller's own.

    `root` may be an `Engine` instead. `durability`: ``"process"`` survives the death of any process; ``"file"`` has
    each value on the disk before it becomes visible, ``"power"`` its name too (both cost some hundred microseconds and
    more). `categories` gives some hashed categories another level: ``{"accounts": "power"}``. `wakeups`: ``"inotify"``,
    ``"poll"``, or ``"auto"``, which polls where inotify does not see all changes. `sharing`: ``"host"`` if only
    processes of this host use the directory, ``"network"`` if those of others do, too, or ``"auto"``, which goes by the
    type of file system.

    `umask` says who else may read what is made in the directory: ``0o022`` all, ``0o027`` its group, ``0o077`` nobody;
    None is what the environment's PSYNC_UMASK says, else ``0o077``. Nobody else may ever write. A user who may not
    write can open the store, read, and wait (by looking every 50 ms); changes raise `StoreFailed`.

    `key` seals all that is stored, `trust_group` admits a team's folder: see SECURITY.md. With a key, or
    ``serializer="json"``, a directory that others can write to is opened with a RuntimeWarning. `serializer`:
    ``"pickle"``, or ``"json"`` for a new store with untrusted writers: nothing in it is ever unpickled, and a value
    that JSON would not give back as it was is refused (`NotSerializable`). None: that with which the store was begun.
    `allow`: the names that pickles may look up, as classes, ``"module.name"``, or ``"module"`` for all classes made
    there; any other is `ClassRefused`. Links and primitives made from this store use the same options.

    Raises `InvalidKey` for an impossible key, before any I/O; `StoreFull` and `StoreFailed` when the file system
    refuses, with the old value untouched; `CorruptValue` for a damaged file, which is kept in quarantine;
    `UnreadableValue` for a value whose class is gone, or refuses: it stays, can be set or deleted, and moves with the
    store, and what lists many values passes over it with a RuntimeWarning.

    Not promised: that keys iterated over still exist; that PickleShare itself may write at the same time.
    """

    def __init__(
        self,
        root: Root | Engine,
        *,
        durability: Durability = "process",
        wakeups: Wakeups = "auto",
        categories: Mapping[str, Durability] | None = None,
        key: Key | None = None,
        trust_group: bool = False,
        sharing: Sharing = "auto",
        umask: int | None = None,
        serializer: Serializer | None = None,
        allow: Allow | None = None,
    ) -> None:
        self.engine = open_engine(
            root,
            durability=durability,
            wakeups=wakeups,
            key=key,
            trust_group=trust_group,
            sharing=sharing,
            umask=umask,
            serializer=serializer,
            allow=allow,
        )
        self.codec = codec_of(self.engine.format)
        self._levels = dict(categories or {})
        """The categories that have a durability of their own."""
        self._cache = Cache()
        self._categories = {name: self._new_category(name) for name in self._levels}
        self._place = getattr(self.engine, "root", None) or id(self.engine)
        """The same for all handles of one directory or server."""

    @property
    def root(self) -> Any:
        """The directory, as a `pathlib.Path`; of a server the URL, without a password; else the engine."""
        place: str | None = getattr(self.engine, "root", None)
        if place is None:
            return self.engine
        if is_address(place):
            return place
        from pathlib import Path

        return Path(place)

    @property
    def cache(self) -> Mapping[str, Cell]:
        """The remembered values by key, pickled, each with its version. A replaced value is never served from it."""
        return self._cache.cells

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    def __reduce__(self) -> tuple[Callable[..., PickleShareDB], tuple[Any, ...]]:
        return _reopen, (type(self), self.engine, self._levels)

    # -- the mapping -----------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """The value, a copy of the caller's own.

        1 system call for one that did not change (stat), floor 1; 4 system calls for one not read before (open stat
        pread close), floor 4; in the two seconds after a change also flock, flock, and once in a while stat.
        """
        value = self._find(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def _find(self, key: str) -> Any:
        """Return the value, or MISSING: a KeyError from here is one that unpickling the value raised."""
        known = self._cache.cells.get(key)
        if known is None:
            check(key)
        cell = self.engine.read(key, known)
        if cell is None:
            self._cache.forget(key)
            return MISSING
        if cell is not known:
            self._cache.remember(key, cell)
        try:
            return self.codec.loads(cell.payload)
        except BaseException as error:
            return self._load_in_parts(key, cell, error)

    def _load_in_parts(self, key: str, cell: Cell, error: BaseException) -> Any:
        """Return the items of a bucket of which only overwritten ones can't be loaded; else raise what an `error` of
        loading `cell` means.

        `UnreadableValue`; or `CorruptValue`, for a pickle without a checksum, or of an untrusted writer, that is not
        laid out like one.
        """
        if isinstance(error, PASSING):
            raise error
        from psync.store.unreadable import may_be_damage, part_of_bucket, raise_unreadable

        codec, payload = self.codec, cell.payload
        if (cell.sealed and codec.objects) or not may_be_damage(error, payload, codec):
            rest, is_all = part_of_bucket(payload, codec) if is_bucket_name(key) else (None, False)
            if is_all and codec.diagnose(payload) is not None:  # else it was not in the bytes
                return rest
            try:
                raise_unreadable(f"the value of {key!r}", error, payload, codec, key=key)
            except UnreadableValue as reason:
                reason.rest = rest
                raise
        self._cache.forget(key)
        refuge = self.engine.set_aside(key, f"it can't be read: {error!r}", cell.version)
        raise CorruptValue(
            f"the value of {key!r} is damaged: it can't be read ({error!r}); {kept_at(refuge)}. "
            "Set the key again, or restore the file from a backup",
            key=key,
            quarantine=refuge,
            reason=repr(error),
            foreign=not cell.sealed or None,
        ) from error

    def __setitem__(self, key: str, value: Any) -> None:
        """Set the value; a reader sees the one before or the one after.

        7 system calls over a value (stat open flock stat pwrite flock close), floor 5; 6 system calls for a new one
        (stat open open pwrite link close), floor 5. More than a page goes to a new file in either case.

        Raises `InvalidKey` where a category keeps a bucket (``category/5d``, ``category/xx``), unless the value is a
        dict: that takes the place of the bucket's items, as in PickleShare.
        """
        payload = self.codec.dumps(value)
        try:
            if check(key)[-3:-2] != "/" or isinstance(value, dict):
                self.engine.write(key, payload)
            else:
                self.engine.write(key, payload, spare_bucket=True)
        except ReentrantCall:
            spare_bucket = key[-3:-2] == "/" and not isinstance(value, dict)
            write = functools.partial(self.engine.write, key, payload, spare_bucket=spare_bucket)
            self._finish_later(key, "an assignment", write, (self.engine, key, payload))

    def __delitem__(self, key: str) -> None:
        """Delete a key; KeyError if it is not there, as for all but one of several concurrent callers.

        7 system calls (stat open flock stat unlink flock close).
        """
        try:
            if not self.engine.delete(check(key)):
                raise KeyError(key)
        except ReentrantCall:
            self._finish_later(key, "del", functools.partial(self.engine.delete, key), (self.engine, key))
        self._cache.forget(key)

    def __contains__(self, key: object) -> bool:
        try:
            return self.engine.read(check(key), self._cache.cells.get(key)) is not None  # type: ignore[call-overload]
        except KeyError:
            return False  # an impossible key is not in here

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return sum(1 for _ in self.engine.list())

    def keys(self, globpat: str | None = None) -> list[str]:  # type: ignore[override]
        """All keys, or those that match a glob: ``*``, ``?``, ``[...]`` within a segment, ``**`` any depth.

        A list, in no order. Only folders that can hold a match are listed. Raises `InvalidKey` for a
        pattern that leads out of the store.
        """
        if globpat is None:
            return list(self.engine.list())
        from psync.store.glob import matching

        return list(matching(self.engine.entries, globpat))

    def items(self) -> ItemsView[str, Any]:
        """Pairs of key and value; a key that is deleted before its turn is passed over, and one whose value can't be
        unpickled here (`UnreadableValue`) with a RuntimeWarning.

        So are files that psync did not write; one RuntimeWarning tells their names at the end.
        """
        from psync.store.views import Items

        return Items(self, self._find)

    def values(self) -> ValuesView[Any]:
        """The values; what `items` passes over is passed over here, too."""
        from psync.store.views import Values

        return Values(self, self._find)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default`. Raises `InvalidKey` for an impossible key."""
        value = self._find(key)
        return default if value is MISSING else value

    def add(self, key: str, value: Any) -> bool:
        """Set `key` only if it is not there. One of any number of concurrent callers gets True.

        6 system calls (stat stat open pwrite link close).
        """
        self._check_outside_modify(check(key), "add()")
        spare_bucket = key[-3:-2] == "/" and not isinstance(value, dict)
        return self.engine.create(key, self.codec.dumps(value), spare_bucket=spare_bucket)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value; if there is none, `default`, which is then set. Concurrent callers all get the same."""
        self._check_outside_modify(key, "setdefault()")
        while (value := self._find(key)) is MISSING:
            if self.add(key, default):
                return default
        return value

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove `key` and return its last value. One of several callers gets it, others `default` or KeyError.

        `UnreadableValue`, with nothing removed, if it can't be unpickled here.
        """
        self._check_outside_modify(check(key), "pop()")
        found: list[Any] = []
        unloadable = False

        def load(cell: Cell) -> None:
            nonlocal unloadable
            unloadable = True
            found.append(self.codec.loads(cell.payload))
            unloadable = False

        try:
            self.engine.pop(key, load)
        except BaseException:
            if unloadable:
                self._find(key)  # raises the error that explains it; nothing was removed
            raise
        self._cache.forget(key)
        if found:
            return found[0]
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[str, Any]:
        """Remove any one item; concurrent callers each get another one. KeyError when the store is empty, and
        `UnreadableValue` when nothing else is left."""
        from psync.store.foreign import ForeignNames

        foreign = ForeignNames()
        unreadable: UnreadableValue | None = None
        for key in self.engine.list():
            try:
                value = self.pop(key, MISSING)
            except UnreadableValue as error:
                unreadable = error
                continue
            except CorruptValue as error:
                if not foreign.passes(error):
                    raise
                continue
            if value is not MISSING:
                return key, value
        if unreadable is not None:
            raise unreadable
        raise KeyError("popitem(): the store is empty")

    def clear(self, *, foreign: bool = False) -> None:
        """Delete every key there is at the beginning. Nothing else of the directory is touched.

        Files that psync did not write stay, and one RuntimeWarning tells their names, unless `foreign`: then they are
        deleted, too.
        """
        from psync.store.foreign import ForeignNames

        for place, key in _modifying.keys:
            if place == self._place:
                raise self._inside_modify(key, "clear()")
        left = ForeignNames()
        for key in self.keys():
            delete = functools.partial(self.engine.delete, key, spare_foreign=not foreign)
            try:
                delete()
            except ReentrantCall:
                finish_later(delete)
            except CorruptValue as error:
                if not left.passes(error):
                    raise
        self.uncache()
        left.tell(stacklevel=2)

    def modify(self, key: str, function: Callable[[Any], Any], default: Any = MISSING) -> Any:
        """Set `key` to ``function(value)`` and return that. No other change comes in between, so none is lost.

        Without the key, `function` gets `default`; without that, KeyError is raised. Other writers of the key wait, so
        `function` should be short; it must not change the same key (RuntimeError), and may be called
        again if the key comes or goes meanwhile.

        8 system calls (stat open flock stat pread pwrite flock close), floor 6.
        """
        self._check_outside_modify(check(key), "modify()")
        result: Any = None
        undecodable = False

        def change(payload: bytes | None) -> bytes:
            nonlocal result, undecodable
            if payload is None and default is MISSING:
                raise KeyError(key)
            undecodable = True
            value = default if payload is None else self.codec.loads(payload)
            undecodable = False
            mine = self._place, key
            _modifying.keys.add(mine)
            try:
                result = function(value)
            finally:
                _modifying.keys.discard(mine)
            return self.codec.dumps(result)

        try:
            if key[-3:-2] == "/":  # a bucket may stand there
                self.engine.update(key, change, spare_bucket=lambda: not isinstance(result, dict))
            else:
                self.engine.update(key, change)
        except BaseException:
            if undecodable:
                self._find(key)  # raises the error that explains it
            raise
        return result

    def _finish_later(self, key: str, verb: str, call: Callable[[], object], same: tuple[Any, ...]) -> None:
        """Make `call` when the call that this one interrupts is done. Raises `ReentrantCall` within `modify(key)`."""
        self._check_outside_modify(key, verb)
        finish_later(call, same)

    def _check_outside_modify(self, key: str, verb: str) -> None:
        """Raise `ReentrantCall` if this thread is in the function of ``modify(key)``, through whichever handle."""
        if _modifying.keys and (self._place, key) in _modifying.keys:
            raise self._inside_modify(key, verb) from None

    def _inside_modify(self, key: str, verb: str) -> ReentrantCall:
        return reentrant(f"{verb} of {key!r} inside the function of modify({key!r}): return the value instead. {key!r}")

    def uncache(self, *items: str) -> None:
        """Free the memory of the values read, of these keys or of all. No value changes by it."""
        if items:
            for key in items:
                self._cache.forget(key)
            return
        self._cache.clear()
        for category in self._categories.values():
            category.forget()

    # -- waiting ---------------------------------------------------------------------------------------

    def waitget(self, key: str, maxwaittime: float | None = 60) -> Any:
        """The value of `key`, as soon as it has one. Raises `WaitTimeout` after `maxwaittime` seconds (None: never).

        The writer wakes waiters on its own host; a waiter finds what other programs or hosts write by reading now and
        then. 12 system calls for a waiter that is woken (open stat open stat poll open stat flock stat pread flock
        close).
        """
        check(key)
        look = lambda: self._look(key)  # noqa: E731
        return self._wait([key], look, maxwaittime, f"{key!r} got no value")

    def _wait(self, names: Sequence[str], look: Callable[[], Any], timeout: float | None, awaited: str) -> Any:
        from psync.store.waiting import wait_for

        return wait_for(self.engine, names, look, timeout, awaited)

    def _look(self, key: str) -> Any:
        value = self._find(key)
        return NOT_YET if value is MISSING else value

    def waitany(self, keys: Iterable[str], maxwaittime: float | None = 60) -> tuple[str, Any]:
        """The first of `keys` that has a value (in their order, if several have), and the value. Else `WaitTimeout`."""
        names = [check(key) for key in keys]
        if not names:
            raise ValueError("waitany() needs at least one key: with none it would wait for ever")

        def look() -> Any:
            for key in names:
                value = self._look(key)
                if value is not NOT_YET:
                    return key, value
            return NOT_YET

        found: tuple[str, Any] = self._wait(names, look, maxwaittime, f"none of {names!r} got a value")
        return found

    def waitgone(self, key: str, maxwaittime: float | None = 60) -> None:
        """Return once `key` is not there. Raises `WaitTimeout` after `maxwaittime` seconds (None: never)."""
        look = lambda: NOT_YET if key in self else None  # noqa: E731
        self._wait([check(key)], look, maxwaittime, f"{key!r} was not deleted")

    def hwait(self, hashroot: str, key: Any, maxwaittime: float | None = 60) -> Any:
        """``hget(hashroot, key, fast_only=False)``, as soon as there is such an item. Else `WaitTimeout`."""
        category = self._category(hashroot)

        def look() -> Any:
            value = category.get(key, fast_only=False)
            return NOT_YET if value is MISSING else value

        awaited = f"the item {key!r} of {hashroot!r} was not set"
        return self._wait([category.bucket_name(key)], look, maxwaittime, awaited)

    # -- hashed categories -----------------------------------------------------------------------------

    def _category(self, hashroot: str) -> Category:
        category = self._categories.get(hashroot)
        if category is None:
            category = self._categories.setdefault(hashroot, self._new_category(hashroot))
        return category

    def _new_category(self, hashroot: str) -> Category:
        from psync.store.category import Category

        return Category(self.engine.at(self._levels.get(check(hashroot))), hashroot)

    def hset(self, hashroot: str, key: Any, value: Any) -> None:
        """Set one item of the category `hashroot`; `key`: anything hashable. Costs the same however many there are.

        5 system calls (stat flock stat pwrite flock), floor 4.
        """
        category = self._category(hashroot)
        ops = category.codec.item(key, value)
        try:
            category.set_pickled(key, ops)
        except ReentrantCall:
            finish_later(functools.partial(category.set_pickled, key, ops), (category.engine, hashroot, ops))

    def hget(self, hashroot: str, key: Any, default: Any = MISSING, fast_only: bool = True) -> Any:
        """One item of the category. KeyError without it, or `default`.

        With ``fast_only=False`` it also finds the items that `hcompress` moved, and may have to load all of them. The
        first call reads the item's bucket; later calls make 2 system calls for an item in memory (stat stat).
        """
        value = self._category(hashroot).get(key, fast_only=fast_only)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def hdict(self, hashroot: str) -> dict[Any, Any]:
        """All items of the category; empty if there is none.

        It has every item that was set before the call, and perhaps some that are set meanwhile; an `hupdate` whole or
        not at all. A damaged bucket is left out, with a warning, and kept in quarantine; so is an item that can't be
        unpickled here, which stays where it is. A file that psync did not write, at the name of a bucket, is left out
        and stays; one RuntimeWarning tells all of them.
        """
        from psync.store.foreign import ForeignNames
        from psync.store.unreadable import warn_unreadable

        foreign = ForeignNames()
        unreadable: list[UnreadableValue] = []
        category = self._category(hashroot)
        items = category.everything(
            lambda error: None if foreign.passes(error) else self._warn(error), unreadable.append
        )
        for error in unreadable:
            warn_unreadable(error, stacklevel=2)
        foreign.tell(stacklevel=2)
        return items

    def _warn(self, error: CorruptValue) -> None:
        import warnings

        warnings.warn(str(error), RuntimeWarning, stacklevel=5)

    def hcompress(self, hashroot: str) -> None:
        """Move every item of the category to one file, so that `hdict` is fast. It may be killed at any time.

        It runs under a `filelock` lock, so concurrent calls follow one another. `hset` waits while it runs.
        """
        self._category(hashroot).compress()

    def hadd(self, hashroot: str, key: Any, value: Any) -> bool:
        """Set an item only if it is not there, compressed or not; one of many concurrent callers gets True."""
        return self._category(hashroot).add(key, value)

    def hdel(self, hashroot: str, key: Any) -> None:
        """Remove an item, compressed or not, readable or not; KeyError without it. Rewrites the file it is in."""
        category = self._category(hashroot)
        try:
            if not category.remove(key):
                raise KeyError(key)
        except ReentrantCall:
            finish_later(functools.partial(category.remove, key))

    def hpop(self, hashroot: str, key: Any, default: Any = MISSING) -> Any:
        """Remove an item and return the last value it had. KeyError without it, or `default`. `UnreadableValue`, with
        nothing removed, if the value can't be unpickled here."""
        value = self._category(hashroot).pop(key)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def hupdate(self, hashroot: str, mapping: Mapping[Any, Any]) -> None:
        """Set many items at one instant: a reader of several of them sees all or none, and so does a crash."""
        self._category(hashroot).update(dict(mapping))

    # -- links and housekeeping ------------------------------------------------------------------------

    def getlink(self, folder: str) -> PickleShareLink:
        """A view of the keys in `folder` as attributes: ``link.x = 1`` sets ``folder/x``."""
        from psync.store.link import PickleShareLink

        return PickleShareLink(self, check(folder))

    def sweep(self) -> int:
        """Remove the files that killed processes left; returns how many. Opening a directory does it, too."""
        return self.engine.sweep()

    def close(self) -> None:
        """Give back descriptors and memory. The handle opens them again if it is used once more."""
        self.uncache()
        self.engine.close()

    def __enter__(self) -> PickleShareDB:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def _reopen(kind: type[PickleShareDB], engine: Engine, levels: dict[str, Durability]) -> PickleShareDB:
    db = kind(engine)
    db._levels = levels
    return db
