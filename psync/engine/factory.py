"""Engine factory: opens the engine for a path, the URL of a server, or another engine, and shares engines."""

from __future__ import annotations

import os
import weakref
from collections.abc import Hashable
from typing import TYPE_CHECKING

from psync.engine.contract.engine import Engine
from psync.engine.contract.values import Durability, Format, Key, Serializer
from psync.engine.directory import DirectoryEngine
from psync.engine.directory.engine import Sharing, Wakeups
from psync.engine.environment import ALLOW, KEY_FILE, SERIALIZER, UMASK
from psync.engine.root import Root, check_path, is_address
from psync.engine.serialization import Allow, agree, umask_of_environment
from psync.engine.store_marker import check_unsigned
from psync.engine.system import fork_hooks
from psync.engine.system.reentry import Section

__all__ = [
    "Allow",
    "Durability",
    "Root",
    "Serializer",
    "Sharing",
    "Wakeups",
    "is_address",
    "open_engine",
    "private_directory",
    "rejoined",
    "remove_directory",
    "shared_engine",
]

if TYPE_CHECKING:
    from psync.engine.signed.keys import Keys

MEMORY = "/dev/shm"
MIN_FREE_BYTES = 1 << 30


class _EngineRegistry:
    """The shared engines of this process, by the arguments they were opened with, as long as they are used."""

    def __init__(self) -> None:
        self.engines: weakref.WeakValueDictionary[Hashable, Engine] = weakref.WeakValueDictionary()
        self.section = Section("the list of open stores")
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self.section = Section("the list of open stores")


_registry = _EngineRegistry()


def open_engine(
    root: Root | Engine,
    *,
    durability: Durability = "process",
    wakeups: Wakeups = "auto",
    key: Key | None = None,
    trust_group: bool = False,
    sharing: Sharing = "auto",
    umask: int | None = None,
    serializer: Serializer | None = None,
    allow: Allow | None = None,
) -> Engine:
    """Open an engine for the directory or the URL `root`; an engine is used as it is. With a `key`, or a file
    PSYNC_KEY_FILE, all stored bytes are signed. `umask`: who else may read what is made in a directory; None: what
    PSYNC_UMASK says, else nobody. `serializer` and `allow`: see `serialization.agree`; the marker of a
    store on a server is read only if a serializer or allowed names are given.

    Raises `UnsafeStore` if others could write to the directory, or if the store is sealed with another key, or is and
    there is none, or is not and there is one, or was begun with another serializer. `StoreFailed` for a server that
    can't be reached or relied on; ValueError for one that does not keep what `durability` promises, or a URL that can't
    be.
    """
    unpickles = (serializer or os.environ.get(SERIALIZER)) != "json"
    engine = _opened(root, durability, wakeups, key, trust_group, sharing, umask, unpickles)
    asked = serializer is not None or allow is not None or bool({SERIALIZER, ALLOW} & os.environ.keys())
    if asked or isinstance(root, DirectoryEngine) or not (isinstance(root, Engine) or is_address(root)):
        agree(engine, serializer, allow)
    if isinstance(engine, DirectoryEngine) and not engine.unpickles and engine.format != Format("json", None):
        raise ValueError(f"{engine!r} was opened so that nothing is unpickled: give a key, or serializer='json'")
    return engine


def _opened(
    root: Root | Engine,
    durability: Durability,
    wakeups: Wakeups,
    key: Key | None,
    trust_group: bool,
    sharing: Sharing,
    umask: int | None,
    unpickles: bool,
) -> Engine:
    """`open_engine`, without the choice of a serializer."""
    if isinstance(root, Engine):
        return _around(root, key)
    if is_address(root):
        from psync.engine.redis.engine import RedisEngine

        served = RedisEngine(os.fspath(root), durability)
        served.look()
        return signed(served, keys_of(key, served.root))
    check_path(root)
    keys = keys_of(key, os.path.abspath(os.path.expanduser(os.fspath(root))))  # a bad key leaves no directory behind
    engine = DirectoryEngine(
        root,
        durability=durability,
        wakeups=wakeups,
        trust_group=trust_group,
        sharing=sharing,
        umask=umask_of_environment() if umask is None else umask,
        unpickles=unpickles and keys is None,
    )
    return signed(engine, keys)


def _around(engine: Engine, key: Key | None) -> Engine:
    """`open_engine` for an engine. Without a key, only an engine for a directory checks whether its store is signed."""
    if key is None and engine.signed:
        return engine
    keys = keys_of(key, getattr(engine, "root", None))
    return signed(engine, keys) if keys is not None or isinstance(engine, DirectoryEngine) else engine


def keys_of(key: Key | None, root: str | None) -> Keys | None:
    """Return the keys in `key`, else those in the file PSYNC_KEY_FILE; None, and nothing is loaded, without either."""
    if key is None and not os.environ.get(KEY_FILE):
        return None
    from psync.engine.signed.keys import keys_for

    return keys_for(key, root)


def signed(engine: Engine, keys: Keys | None) -> Engine:
    """Sign what `engine` stores with `keys`, if there are any. Raises `UnsafeStore`: see `open_engine`."""
    if keys is None:
        check_unsigned(engine)
        return engine
    from psync.engine.signed.engine import opened

    return opened(engine, keys)


def private_directory() -> str:
    """Make a new, empty directory that only this user can open; the caller removes it. It is in memory, if
    there is enough of it and TMPDIR does not name another place."""
    import tempfile

    in_memory = None
    if "TMPDIR" not in os.environ:
        try:
            space = os.statvfs(MEMORY)
            free = space.f_bavail * space.f_frsize
            in_memory = MEMORY if free >= MIN_FREE_BYTES and os.access(MEMORY, os.W_OK) else None
        except OSError:
            pass  # no such place
    return tempfile.mkdtemp(prefix="psync-", dir=in_memory)


def remove_directory(path: str) -> None:
    """Remove a directory and all in it; files that can't be removed stay."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def shared_engine(root: Root) -> Engine:
    """Return the engine, with its defaults, that all users of this path or URL in this process share."""
    path = os.fspath(root) if is_address(root) else os.path.abspath(os.path.expanduser(os.fspath(root)))
    with _registry.section, _registry.section.lock:
        named = path, *map(os.environ.get, (KEY_FILE, SERIALIZER, ALLOW, UMASK))
        engine = _registry.engines.get(named)
        if engine is None or engine.is_gone():
            engine = open_engine(path)
            engine = _shared(_identity(engine) or named, engine)
            _registry.engines[named] = engine
        return engine


def rejoined(engine: Engine) -> Engine:
    """Return the engine to use for one that was unpickled here: all for one directory share one."""
    what = _identity(engine)
    if what is None:
        return engine
    with _registry.section, _registry.section.lock:
        return _shared(what, engine)


def _shared(what: Hashable, engine: Engine) -> Engine:
    """While locked: the engine that is shared already, unless its place is gone; else `engine`, from now on."""
    known = _registry.engines.get(what)
    if known is not None and not known.is_gone():
        return known
    _registry.engines[what] = engine
    return engine


def _identity(engine: Engine) -> Hashable | None:
    """Return the arguments that the engine was opened with: engines with the same are alike. None if it has none."""
    what: Hashable | None = getattr(engine, "opened_with", None)
    return what
