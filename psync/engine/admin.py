"""Administration: checks, diagnoses, repairs and reads the place of a store from outside, by path or URL.

Modules for one kind of place are loaded when a place of that kind is named.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from psync.engine.contract.engine import Engine
from psync.engine.contract.report import Finding
from psync.engine.contract.values import Key
from psync.engine.environment import SERIALIZER
from psync.engine.factory import keys_of, signed
from psync.engine.root import Root, check_path, is_address

if TYPE_CHECKING:
    from psync.engine.signed.keys import Keys

__all__ = [
    "checked",
    "diagnosed",
    "fresh_store",
    "is_address",
    "is_there",
    "is_used",
    "looking_engine",
    "paired",
    "put_back",
    "shown",
]


def checked(root: Root) -> Root:
    """Return `root`, if it is a path or a URL that can be opened. Raises ValueError."""
    if is_address(root):
        from psync.engine.redis.url import parse

        parse(str(root))
    else:
        check_path(root)
    return root


def shown(root: Root) -> str:
    """Return `root` for people: a path as it was given, a URL without its password."""
    if is_address(root):
        from psync.engine.redis.url import parse

        return parse(str(root)).shown
    return os.fspath(root)


def is_there(root: Root) -> bool:
    """Whether there is such a directory. A server is assumed to be there, and so is a directory that this user can't
    get at; the first verb raises if it is not."""
    if is_address(root):
        return True
    from psync.engine.directory.fs.syscalls import may_be_folder

    return may_be_folder(_absolute(root))


def is_used(root: Root) -> bool:
    """Whether psync ever did anything there."""
    if is_address(root):
        from psync.engine.redis.read_only import ReadOnlyEngine

        engine = ReadOnlyEngine(str(root))
        try:
            return engine.is_used()
        finally:
            engine.close()
    from psync.engine.directory.layout import is_used

    return is_used(root)


def looking_engine(root: Root, *, key: Key | None = None, trust_group: bool = False) -> Engine:
    """Open a read-only engine: every verb that would change something raises `StoreFailed`; damaged bytes stay where
    they are. Raises as `open_engine` does."""
    if is_address(root):
        from psync.engine.redis.read_only import ReadOnlyEngine as LookingRedisEngine

        served = LookingRedisEngine(str(root))
        return signed(served, keys_of(key, served.root))
    from psync.engine.directory.admin.read_only import ReadOnlyEngine

    keys = keys_of(key, _absolute(root))
    return signed(ReadOnlyEngine(root, trust_group=trust_group, unpickles=_unpickles(keys)), keys)


def _unpickles(keys: Keys | None) -> bool:
    """Whether bytes that nothing verifies may be unpickled."""
    return keys is None and os.environ.get(SERIALIZER) != "json"


def diagnosed(root: Root, *, trust_group: bool = False) -> Iterator[Finding]:
    """Diagnose the place: yields findings about its features, its problems, and the leftovers of dead processes."""
    if is_address(root):
        from psync.engine.redis.doctor import diagnosed as diagnosed_server

        return diagnosed_server(str(root))
    from psync.engine.directory.admin.doctor import diagnose as diagnosed_directory

    where = _absolute(root)
    return diagnosed_directory(where, team=trust_group, unpickles=_unpickles(keys_of(None, where)))


def paired(root: Root, patience: float) -> Iterator[Finding]:
    """Try the directory out from two hosts, on each of which this is called at the same time; returns what they found.
    Raises TimeoutError if the other one did not come within `patience` seconds."""
    from psync.engine.directory.admin.pair import pair_hosts

    return pair_hosts(_absolute(root), patience)


def put_back(root: Root, name: str, *, trust_group: bool = False) -> str:
    """Restore the value that was set aside in the directory under that name: see `leftovers.restore`."""
    from psync.engine.directory.admin.leftovers import restore

    return restore(_absolute(root), name, team=trust_group)


def _absolute(root: Root) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(root)))


@contextlib.contextmanager
def fresh_store(root: Root) -> Iterator[str]:
    """Make a place for a store that nobody else uses: below the same directory, or on the same server, as `root`. It is
    removed afterwards, with all that is in it."""
    name = f"psync-test-{os.urandom(6).hex()}"
    if is_address(root):
        from psync.engine.redis.engine import RedisEngine
        from psync.engine.redis.url import parse

        engine = RedisEngine(parse(str(root))._replace(prefix=name).whole)
        try:
            yield engine.address.whole
        finally:
            engine.remove()
            engine.close()
        return
    import shutil

    folder = f"{os.path.expanduser(os.fspath(root))}/{name}"
    os.mkdir(folder, 0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
