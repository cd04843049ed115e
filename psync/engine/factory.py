"""Engine factory: opens the engine for a path or a URL, and imports only what that one needs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Hashable
from typing import TYPE_CHECKING

from psync.engine.address import KEY_FILE, SIGNED_MARKER, is_address
from psync.engine.contract.engine import Engine
from psync.engine.contract.values import Durability, Serializer
from psync.engine.directory import DirectoryEngine
from psync.engine.directory.engine import Sharing, Wakeups
from psync.engine.serialization import ALLOW, SERIALIZER, Allow, agree
from psync.engine.system import fork_hooks

if TYPE_CHECKING:
    from psync.engine.signed.keys import Key, Keys

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

Root = str | os.PathLike[str]
MEMORY = "/dev/shm"
PLENTY = 1 << 30
"""Bytes."""


class _Shared:
    """The engines that are shared in this process, by what they were opened with, as long as somebody uses them."""

    def __init__(self) -> None:
        self.engines: weakref.WeakValueDictionary[Hashable, Engine] = weakref.WeakValueDictionary()
        self.lock = threading.Lock()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()


_shared = _Shared()


def open_engine(
    root: Root | Engine,
    *,
    durability: Durability = "process",
    wakeups: Wakeups = "auto",
    key: Key | None = None,
    trust_group: bool = False,
    sharing: Sharing = "auto",
    serializer: Serializer | None = None,
    allow: Allow | None = None,
) -> Engine:
    """A new engine for the directory or the URL `root`; an engine is taken as it is. With a `key`, or a file
    PSYNC_KEY_FILE, what is stored is sealed. `serializer` and `allow`: see `format.agree`; a server is only asked what
    its store was begun with if something is asked for.

    Raises `UnsafeStore` if others could write to the directory, or if the store is sealed with another key, or is and
    there is none, or is not and there is one, or was begun with another serializer. `StoreFailed` for a server that
    can't be reached or relied on; ValueError for one that does not keep what `durability` promises, or a URL that can't
    be.
    """
    engine = _signed_if_asked(root, durability, wakeups, key, trust_group, sharing)
    asked = serializer is not None or allow is not None or bool({SERIALIZER, ALLOW} & os.environ.keys())
    if asked or isinstance(root, DirectoryEngine) or not (isinstance(root, Engine) or is_address(root)):
        agree(engine, serializer, allow)
    return engine


def _signed_if_asked(
    root: Root | Engine, durability: Durability, wakeups: Wakeups, key: Key | None, trust_group: bool, sharing: Sharing
) -> Engine:
    """Open the engine, without its serializer. Signing is loaded only for a key, a key file, or a signed store."""
    if isinstance(root, DirectoryEngine):
        return _signed(root, _keys(key, root.root))
    if isinstance(root, Engine):
        from psync.engine.signed import SignedEngine

        if isinstance(root, SignedEngine):
            keys, signed = _keys(key, None), root
            return signed if keys is None and key is None else _signed(signed, keys)
        keys = _keys(key, getattr(root, "root", None))
        return root if keys is None else _signed(root, keys)
    if "://" in os.fspath(root):
        from psync.engine.admin import checked

        checked(root)
    if is_address(root):
        from psync.engine.redis.engine import RedisEngine

        served = RedisEngine(os.fspath(root), durability)
        served.look()
        return _signed(served, _keys(key, served.root))
    keys = _keys(key, os.path.abspath(os.path.expanduser(os.fspath(root))))
    engine = DirectoryEngine(root, durability=durability, wakeups=wakeups, trust_group=trust_group, sharing=sharing)
    return _signed(engine, keys)


def _keys(key: Key | None, path: str | None) -> Keys | None:
    """The caller's keys, or those in the key file that the environment names, for a store that has a `path`."""
    if key is None and (path is None or not os.environ.get(KEY_FILE)):
        return None
    from psync.engine.signed.keys import keys_for

    return keys_for(key, path)


def _signed(engine: Engine, keys: Keys | None) -> Engine:
    if keys is None and engine.read(SIGNED_MARKER) is None:
        return engine
    from psync.engine.signed import opened

    return opened(engine, keys)


def private_directory() -> str:
    """A new, empty directory that only this user can open, for as long as its maker needs it: in memory, if there is
    plenty, and TMPDIR does not name another place."""
    import tempfile

    in_memory = None
    if "TMPDIR" not in os.environ:
        try:
            space = os.statvfs(MEMORY)
            in_memory = MEMORY if space.f_bavail * space.f_frsize >= PLENTY and os.access(MEMORY, os.W_OK) else None
        except OSError:
            pass  # no such place
    return tempfile.mkdtemp(prefix="psync-", dir=in_memory)


def remove_directory(path: str) -> None:
    """All of it; what can't be removed stays."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def shared_engine(root: Root) -> Engine:
    """The engine, with its defaults, that all in this process share who name this path or URL."""
    path = os.fspath(root) if is_address(root) else os.path.abspath(os.path.expanduser(os.fspath(root)))
    with _shared.lock:
        named = path, *map(os.environ.get, (KEY_FILE, SERIALIZER, ALLOW))
        engine = _shared.engines.get(named)
        if engine is None:
            engine = open_engine(path)
            engine = _shared.engines.setdefault(_what(engine) or named, engine)
            _shared.engines[named] = engine
        return engine


def rejoined(engine: Engine) -> Engine:
    """The engine to use for one that was sent here: all that was sent from one directory share one."""
    what = _what(engine)
    if what is None:
        return engine
    with _shared.lock:
        return _shared.engines.setdefault(what, engine)


def _what(engine: Engine) -> Hashable | None:
    """What the engine was opened with: where that is the same, one can stand for the other. None if it can't."""
    what: Hashable | None = getattr(engine, "opened_with", None)
    return what
