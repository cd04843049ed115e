"""What is no damage moves no file: no permission, a disk that fails, a class that is not there, too little memory."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.engine.encoding.framing import frame
from psync.errors import CorruptValue, StoreFailed, UnreadableValue
from tests.store.memory_limit import with_memory_limit
from tests.store.test_corruption import quarantined

READS: dict[str, Callable[[PickleShareDB], Any]] = {
    "[]": lambda db: db["key"],
    "get": lambda db: db.get("key", "default"),
    "setdefault": lambda db: db.setdefault("key", "default"),
    "pop": lambda db: db.pop("key", "default"),
    "popitem": lambda db: db.popitem(),
    "modify": lambda db: db.modify("key", lambda old: old, default="default"),
    "waitget": lambda db: db.waitget("key", 0),
    "items": lambda db: list(db.items()),
}
HASHED: dict[str, Callable[[PickleShareDB], Any]] = {
    "hget": lambda db: db.hget("category", "item", "default"),
    "slow hget": lambda db: db.hget("category", "item", "default", fast_only=False),
    "hdict": lambda db: db.hdict("category"),
    "hcompress": lambda db: db.hcompress("category"),
    "hpop": lambda db: db.hpop("category", "item", "default"),
    "hwait": lambda db: db.hwait("category", "item", 0),
}


def bytes_of(root: Path) -> dict[str, bytes]:
    """What the user's files hold, but for an empty ``xx``."""
    files = [path for path in root.rglob("*") if path.is_file() and ".psync" not in path.parts]
    return {str(path): path.read_bytes() for path in files if path.name != "xx" or pickle.loads(path.read_bytes())}


# -- a class that is not there ---------------------------------------------------------------------


@contextlib.contextmanager
def module(name: str, **things: Any) -> Iterator[types.ModuleType]:
    """A module that can be imported, for the length of the block."""
    made = types.ModuleType(name)
    for key, thing in things.items():
        thing.__module__ = name
        setattr(made, key, thing)
    sys.modules[name] = made
    try:
        yield made
    finally:
        del sys.modules[name]


class Fickle:
    """Can be pickled; unpickling depends on the day."""

    refuse: type[Exception] | None = None

    def __init__(self) -> None:
        self.inside = 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        if Fickle.refuse is not None:
            raise Fickle.refuse("not today")
        self.__dict__.update(state)


PASSES_OVER = ("items", "hdict")
"""Verbs that list: they give all that can be read, and tell of the rest by a warning."""


def refused(
    read: Callable[[PickleShareDB], Any], db: PickleShareDB, verb: str, kind: type[Exception], why: str
) -> None:
    """`read` raises what it has to for a value that can't be unpickled here, or warns."""
    if verb in PASSES_OVER:
        with pytest.warns(RuntimeWarning, match=why):
            assert not read(db)
        return
    with pytest.raises(UnreadableValue, match=why) as caught:
        read(db)
    assert isinstance(caught.value, kind)
    assert (caught.value.key, caught.value.category) == (("key", None) if verb in READS else ("item", "category"))


def store_one(db: PickleShareDB, verb: str, value: Any) -> None:
    if verb in READS:
        db["key"] = value
    else:
        db.hset("category", "item", value)


def plain_one(root: Path, verb: str, value: Any) -> None:
    """As PickleShare would have written it."""
    if verb in READS:
        (root / "key").write_bytes(pickle.dumps(value, protocol=2))
    else:
        (root / "category").mkdir(mode=0o700)
        (root / "category" / "ab").write_bytes(pickle.dumps({"item": value}, protocol=2))


@pytest.mark.parametrize("verb", [*READS, *HASHED])
@pytest.mark.parametrize("sealed", [True, False], ids=["framed", "plain"])
def test_a_class_that_is_missing_is_no_damage(disk: Any, verb: str, sealed: bool) -> None:
    class Visitor:
        pass

    Visitor.__qualname__ = "Visitor"
    db, read = disk(), {**READS, **HASHED}[verb]
    with module("a_module_of_yesterday", Visitor=Visitor):
        if sealed:
            store_one(db, verb, Visitor())
        else:
            plain_one(disk.root, verb, Visitor())
    before = bytes_of(disk.root)
    for handle in (db, disk()):
        if verb == "hcompress":
            read(handle)  # it carries the bytes along
            continue
        refused(read, handle, verb, ModuleNotFoundError, "a_module_of_yesterday")
        assert bytes_of(disk.root) == before
    with module("a_module_of_yesterday"):
        if verb != "hcompress":
            refused(read, db, verb, AttributeError, "Visitor")
            assert bytes_of(disk.root) == before
    assert quarantined(disk.root) == []
    with module("a_module_of_yesterday", Visitor=Visitor):
        found = db["key"] if verb in READS else db.hdict("category")["item"]
        assert type(found) is Visitor


@pytest.mark.parametrize("verb", [*READS, *HASHED])
@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, IndexError, EOFError, pickle.UnpicklingError])
def test_a_value_that_refuses_to_be_loaded_is_no_damage(disk: Any, verb: str, error: type[Exception]) -> None:
    db, read = disk(), {**READS, **HASHED}[verb]
    store_one(db, verb, Fickle())
    before = bytes_of(disk.root)
    Fickle.refuse = error
    try:
        if verb == "hcompress":
            read(db)
        else:
            refused(read, db, verb, UnreadableValue, "not today.*Fickle, which refused it")
            assert bytes_of(disk.root) == before
    finally:
        Fickle.refuse = None
    assert quarantined(disk.root) == []
    found = disk()["key"] if verb in READS else disk().hdict("category")["item"]
    assert found.inside == 1


# -- the file system says no -----------------------------------------------------------------------


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else for the length of the block."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("verb", [*READS, *HASHED])
def test_a_file_that_may_not_be_read_is_no_damage(disk: Any, verb: str) -> None:
    db, read = disk(), {**READS, **HASHED}[verb]
    store_one(db, verb, 1)
    before = bytes_of(disk.root)
    os.chmod(disk.root, 0o755)
    for path in before:
        os.chmod(path, 0)
        os.chmod(Path(path).parent, 0o755)
    fresh = disk()
    with as_nobody(), pytest.raises(StoreFailed, match="Permission denied") as caught:
        read(fresh)
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.EACCES
    assert not isinstance(caught.value, KeyError)
    for path in before:
        os.chmod(path, 0o600)
    assert bytes_of(disk.root) == before
    assert quarantined(disk.root) == []
    assert (disk()["key"] if verb in READS else disk().hdict("category")["item"]) == 1


@pytest.mark.parametrize("verb", [*READS, *HASHED])
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOMEM])
def test_a_disk_that_fails_is_no_damage(disk: Any, verb: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    db, read = disk(), {**READS, **HASHED}[verb]
    store_one(db, verb, 1)
    before = bytes_of(disk.root)
    files = {(status.st_dev, status.st_ino) for status in map(os.stat, before)}
    failed = []
    fresh = disk()
    with monkeypatch.context() as patch:
        for name in ("read", "pread", "preadv", "readv"):
            real = getattr(os, name)

            def fail(fd: int, *args: Any, real: Callable[..., Any] = real) -> Any:
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) in files:
                    failed.append(fd)
                    raise OSError(code, os.strerror(code))
                return real(fd, *args)

            patch.setattr(os, name, fail)
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            read(fresh)
    assert failed, "nothing was read: the fault was not where the store reads"
    assert caught.value.errno == code
    assert not isinstance(caught.value, (KeyError, CorruptValue))
    assert bytes_of(disk.root) == before
    assert quarantined(disk.root) == []
    assert (fresh["key"] if verb in READS else fresh.hdict("category")["item"]) == 1


# -- too little memory -----------------------------------------------------------------------------


def outcome_in_little_memory(root: Path) -> tuple[str, bool]:
    gc.disable()  # it would look at the millions again and again
    with PickleShareDB(root) as db:
        try:
            db["key"]
        except MemoryError:
            return "MemoryError", (root / "key").exists()
        except Exception as error:
            return repr(error), (root / "key").exists()
    return "read", True


MANY = b"\x80\x02](" + b"]" * 3_000_000 + b"e."
"""A pickled list of three million empty lists: 3 MB on the disk, 240 MB in memory."""


@pytest.mark.parametrize("file", [frame(MANY), MANY], ids=["framed", "plain"])
def test_a_value_too_large_for_the_memory_there_is_is_no_damage(disk: Any, file: bytes) -> None:
    (disk.root / "key").write_bytes(file)
    outcome, there = with_memory_limit(outcome_in_little_memory, disk.root)
    assert there
    assert outcome == "MemoryError"
    assert (disk.root / "key").read_bytes() == file
