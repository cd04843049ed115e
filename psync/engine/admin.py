"""What is asked of a place before a store is opened there, or by who only looks: a path, or the URL of a server."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from psync.engine.address import is_address

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

if TYPE_CHECKING:
    from psync.engine.contract.engine import Engine
    from psync.engine.contract.report import Finding
    from psync.engine.signed.keys import Key

Root = str | os.PathLike[str]
_looks_like_a_url = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match


def checked(root: Root) -> Root:
    """`root`, if it is a path or a URL that can be opened. Raises ValueError."""
    if is_address(root):
        from psync.engine.redis.url import parse

        parse(str(root))
    elif isinstance(root, str) and _looks_like_a_url(root):
        raise ValueError(
            f"{root!r} is the URL of nothing that psync knows: it begins with redis://, rediss:// or unix://. If a "
            f"directory has this name, write ./{root}"
        )
    return root


def shown(root: Root) -> str:
    """For people: a path as it was given, a URL without its password."""
    if not is_address(root):
        return os.fspath(root)
    from psync.engine.redis.url import parse

    return parse(str(root)).shown


def is_there(root: Root) -> bool:
    """Whether there is such a directory. A server is taken to be there: to speak to it raises if it is not."""
    return is_address(root) or os.path.isdir(os.path.expanduser(root))


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
    """An engine for who only looks: all that would change something raises `StoreFailed`, damaged bytes stay where they
    are. Raises as `open_engine` does."""
    from psync.engine.signed import opened
    from psync.engine.signed.keys import keys_for

    engine: Engine
    if is_address(root):
        from psync.engine.redis.read_only import ReadOnlyEngine as LookingRedisEngine

        engine = LookingRedisEngine(str(root))
    else:
        from psync.engine.directory.admin.read_only import ReadOnlyEngine

        engine = ReadOnlyEngine(root, trust_group=trust_group)
    return opened(engine, keys_for(key, engine.root))


def diagnosed(root: Root, *, trust_group: bool = False) -> Iterator[Finding]:
    """All that is to be said of the place: what works there, what stands in the way, what is left of the dead."""
    if is_address(root):
        from psync.engine.redis.doctor import diagnosed as diagnosed_server

        return diagnosed_server(str(root))
    from psync.engine.directory.admin.doctor import diagnosed as diagnosed_directory

    return diagnosed_directory(_absolute(root), team=trust_group)


def paired(root: Root, patience: float) -> Iterator[Finding]:
    """What two hosts found out about the directory, on each of which this is called at the same time. Raises
    TimeoutError if the other one did not come within `patience` seconds."""
    from psync.engine.directory.admin.pair import paired

    return paired(_absolute(root), patience)


def put_back(root: Root, name: str, *, trust_group: bool = False) -> str:
    """The value that was set aside in the directory under that name stands there again: see `remains.put_back`."""
    from psync.engine.directory.admin.leftovers import put_back

    return put_back(_absolute(root), name, team=trust_group)


def _absolute(root: Root) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(root)))


@contextlib.contextmanager
def fresh_store(root: Root) -> Iterator[str]:
    """A new place beside what is at `root`, in the same directory or on the same server, for a store that nobody else
    uses; it is gone afterwards, with all that is in it."""
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
