"""Drop-in replacement: stands in for `pickleshare` 0.7.5, with its habits, on psync's store.

It differs from `psync.PickleShareDB` where old callers depend on it:

* a value that can't be read is a KeyError and stays where it is; `hdict` prints "Corrupt" and moves it to quarantine
  (where PickleShare deleted it; an item whose class can't be imported here is no damage: it is left out, with a
  RuntimeWarning);
* deleting a missing key is silent;
* a value that was set or read is the same object the next time, as long as its file is unchanged. So a caller that
  changes it in place changes it for all callers of this handle; `cache` shows those objects by absolute path;
* a key may be a path below `root`, and is read as pathlib reads it: ``"a//b"`` is ``"a/b"``.

All other methods of `psync.PickleShareDB` are there too. ``python -m psync.pickleshare`` dumps, loads and tests.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from psync.errors import CorruptValue, InvalidKey, UnreadableValue
from psync.store import PickleShareDB as Store
from psync.store import PickleShareLink, gethashfile
from psync.store.keys import check
from psync.store.sentinels import MISSING, NOT_YET

__all__ = ["PickleShareDB", "PickleShareLink", "gethashfile", "main"]

__version__ = "0.7.5"  # the version of the interface: callers compare it

USAGE = """\
pickleshare - manage PickleShare databases

Usage:

    pickleshare dump /path/to/db > dump.txt
    pickleshare load /path/to/db < dump.txt
    pickleshare test /path/to/db
"""


class _Kept(NamedTuple):
    """An object that was set or read, with the version of its file."""

    value: Any
    cell: Any
    """The cell as the engine gave it, without its bytes; None for an object that was set and not read since."""
    digest: int
    """Tells the bytes from others, where time stamps are too coarse."""


class _Reading(threading.local):
    """Whether this thread is reading a value just now. A damaged value stays where it is then."""

    now = False


class PickleShareDB(Store):
    """A store below the directory `root`, used like PickleShare's."""

    _reading = _Reading()

    def __init__(self, root: Any, **options: Any) -> None:
        super().__init__(root, **options)
        self._kept: dict[str, _Kept] = {}
        self._folder = super().root
        reading = self._reading
        self.engine.spare_damaged(lambda: reading.now)

    @property
    def root(self) -> Any:
        return self._folder

    @property
    def cache(self) -> dict[Path, tuple[Any, Any]]:  # type: ignore[override]
        """The objects that were set or read, and their cells, by absolute path (on a server, by key)."""
        folder = self._folder if isinstance(self._folder, Path) else Path()
        return {folder / name: (kept.value, kept.cell) for name, kept in list(self._kept.items())}

    def _name(self, key: Any) -> str:
        """Return the store's key for `key`, a str or a path as pathlib takes them. Raises `InvalidKey`."""
        try:
            return check(key)
        except InvalidKey:
            if not isinstance(key, str | PurePath) or not isinstance(self._folder, Path):
                raise
            try:
                path = (self._folder / key).relative_to(self._folder)
            except ValueError:
                pass  # not below the root: `check` has said what is wrong
            else:
                return check(path.as_posix())
            raise

    # -- the mapping -----------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        name = self._name(key)
        kept = self._kept.get(name)
        self._reading.now = True
        try:
            cell = self.engine.read(name, kept and kept.cell)
            if kept is not None and cell is kept.cell and cell is not None:
                return kept.value
            if cell is not None:
                digest = hash(cell.payload)
                value = kept.value if kept is not None and kept.digest == digest else self.codec.loads(cell.payload)
                self._kept[name] = _Kept(value, cell._replace(payload=b""), digest)
                return value
        except Exception as error:  # any reason that keeps a file from being read
            self._kept.pop(name, None)
            raise KeyError(key) from error
        finally:
            self._reading.now = False
        self._kept.pop(name, None)
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        name = self._name(key)
        payload = self.codec.dumps(value)
        self.engine.write(name, payload)
        self._kept[name] = _Kept(value, None, hash(payload))

    def __delitem__(self, key: Any) -> None:
        """Delete a key, silently if it is missing. All of several concurrent callers return."""
        name = self._name(key)
        self._kept.pop(name, None)
        self.engine.delete(name)

    def __contains__(self, key: object) -> bool:
        return self.get(key, MISSING) is not MISSING

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def _find(self, key: str) -> Any:
        """Read a value for `items` and `values`: MISSING if it was removed meanwhile, a KeyError if it can't be
        read, `UnreadableValue` (they pass over it) if only its class is not there."""
        try:
            return self[key]
        except KeyError as error:
            if error.__cause__ is None:
                return MISSING
        self._reading.now = True
        try:
            return super()._find(key)
        except UnreadableValue:
            raise
        except Exception as error:
            raise KeyError(key) from error
        finally:
            self._reading.now = False

    def _look(self, key: str) -> Any:
        return self.get(key, NOT_YET)  # a waiter goes on waiting for a value that can't be read

    def add(self, key: Any, value: Any) -> bool:
        return super().add(self._name(key), value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        name = self._name(key)
        while True:
            try:
                return self[name]
            except KeyError as error:
                unreadable = error.__cause__
            if self.add(name, default):
                return default
            if unreadable is not None and not self._make_room(name, unreadable):
                self[name] = default
                return default

    def _make_room(self, name: str, reason: BaseException) -> bool:
        """Move a value that can't be read to quarantine. False if that is impossible."""
        try:
            cell = self.engine.read(name)  # this moves a damaged value
        except CorruptValue as error:
            return error.quarantine is not None
        if cell is None:
            return True
        return self.engine.set_aside(name, f"{reason!r} while reading it", cell.version) is not None

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        name = self._name(key)
        if name not in self:  # or can't be read: then it is not removed
            if default is MISSING:
                raise KeyError(key)
            return default
        self._kept.pop(name, None)
        return super().pop(name) if default is MISSING else super().pop(name, default)

    def modify(self, key: Any, function: Callable[[Any], Any], default: Any = MISSING) -> Any:
        name = self._name(key)
        self._kept.pop(name, None)
        return super().modify(name, function) if default is MISSING else super().modify(name, function, default)

    def uncache(self, *items: Any) -> None:
        """Forget the objects of these keys or paths, or all of them: the next read makes new ones."""
        if not items:
            self._kept.clear()
            super().uncache()
        for item in items:
            try:
                self._kept.pop(self._name(item), None)
            except InvalidKey:
                continue  # never seen

    # -- waiting and links -----------------------------------------------------------------------------

    def waitget(self, key: Any, maxwaittime: float | None = 60) -> Any:
        return super().waitget(self._name(key), maxwaittime)

    def waitany(self, keys: Iterable[Any], maxwaittime: float | None = 60) -> tuple[str, Any]:
        return super().waitany([self._name(key) for key in keys], maxwaittime)

    def waitgone(self, key: Any, maxwaittime: float | None = 60) -> None:
        super().waitgone(self._name(key), maxwaittime)

    def getlink(self, folder: Any) -> PickleShareLink:
        return super().getlink(self._name(folder))

    # -- hashed categories -----------------------------------------------------------------------------

    def _category(self, hashroot: Any) -> Any:
        return super()._category(self._name(hashroot))

    def hset(self, hashroot: Any, key: Any, value: Any) -> None:
        while True:
            try:
                return super().hset(hashroot, key, value)
            except CorruptValue as error:
                if error.quarantine is None:
                    raise
                # the damaged bucket is in quarantine now, and a new one begins

    def hget(self, hashroot: Any, key: Any, default: Any = MISSING, fast_only: bool = True) -> Any:
        self._reading.now = True  # a damaged bucket stays where it is, as PickleShare leaves it
        try:
            return super().hget(hashroot, key, fast_only=fast_only)
        except (KeyError, CorruptValue, UnreadableValue) as error:
            if default is not MISSING:
                return default
            raise KeyError(key) from error
        finally:
            self._reading.now = False

    def hcompress(self, hashroot: Any) -> None:
        self._reading.now = True  # a bucket that can't be read stays where it is, and all the rest with it
        try:
            self._category(hashroot).keys(_refuse)
            super().hcompress(hashroot)
        except CorruptValue as error:
            raise KeyError(error.key) from error
        finally:
            self._reading.now = False

    def _warn(self, error: CorruptValue) -> None:
        kept = f"kept at {error.quarantine}" if error.quarantine else "left where it is"
        print("Corrupt", error.key, kept, "- it can't be read")


def _refuse(error: CorruptValue) -> None:
    raise error


def main() -> int:
    """Run the command: `dump`, `load` and `test` as in ``psync``; usage without arguments. Returns the exit code."""
    if len(sys.argv) < 2:
        print(USAGE)
        return 0
    from psync.cli.main import main as command

    return command(sys.argv[1:], prog="pickleshare")


if __name__ == "__main__":
    sys.exit(main())
