"""The same calls on pickleshare 0.7.5 and on psync.pickleshare, side by side: the same answers, the same keys."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psync import pickleshare as new
from tests.support import scaled

KEYS = st.sampled_from(["x", "y z", "a/b", "a/c/d", "a//b", "./x", "a/./c/d/", "näin"])
PATHS = st.sampled_from(["x", "a/b", "cat/01"]).map(Path)
NUMBERS = st.integers(0, 6)
VALUES = (
    st.none() | st.integers() | st.text("aäb ", max_size=5) | st.lists(st.integers(), max_size=4) | st.just("x" * 6000)
)
GLOBS = st.sampled_from(["*", "a/*", "cat/*", "*/*", "**/d", "a*", "[xy]*", "nothing/*", "a/c/?"])


def damage(db: Any, path: Path) -> None:
    """Some other program breaks a value. Pickleshare would not notice within the same second, hence `uncache`."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        if (db.root / path).exists():
            (db.root / path).write_bytes(b"\x80\x04 damaged")
    db.uncache()


def clear(db: Any) -> None:
    """Pickleshare's leaves everything behind the first value that it can't read."""
    if all(key in db for key in db.keys()):
        db.clear()


def compress(db: Any) -> None:
    """Once: a second time, pickleshare may take what it finds in the old xx for newer than the rest. Not of nothing."""
    there = db.keys("cat/*")
    if there and "cat/xx" not in there:
        db.hcompress("cat")


CALLS: dict[str, tuple[Callable[..., Any], tuple[st.SearchStrategy[Any], ...]]] = {
    "set": (lambda db, key, value: db.__setitem__(key, value), (KEYS, VALUES)),
    "get": (lambda db, key: db[key], (KEYS,)),
    "get by path": (lambda db, path: db[db.root / path], (PATHS,)),
    "get or 7": (lambda db, key: db.get(key, 7), (KEYS,)),
    "delete": (lambda db, key: db.__delitem__(key), (KEYS,)),
    "in": (lambda db, key: key in db, (KEYS,)),
    "pop": (lambda db, key: db.pop(key), (KEYS,)),
    "pop or 7": (lambda db, key: db.pop(key, 7), (KEYS,)),
    "setdefault": (lambda db, key, value: db.setdefault(key, value), (KEYS, VALUES)),
    "update": (lambda db, key, value: db.update({key: value, "y z": 0}), (KEYS, VALUES)),
    "keys": (lambda db, pattern: sorted(db.keys(pattern)), (GLOBS,)),
    "items": (lambda db: sorted(db.items(), key=lambda item: item[0]), ()),
    "values": (lambda db: len(list(db.values())), ()),
    "len": (len, ()),
    "clear": (clear, ()),
    "uncache": (lambda db, path: db.uncache(db.root / path), (PATHS,)),
    "uncache all": (lambda db: (db.uncache(), len(db.cache)), ()),
    "waitget": (lambda db, key: db.waitget(key) if key in db else "not there", (KEYS,)),
    "hset": (lambda db, number, value: db.hset("cat", number, value), (NUMBERS, VALUES)),
    "hget": (lambda db, number: db.hget("cat", number, "none"), (NUMBERS,)),
    "hget slow": (lambda db, number: db.hget("cat", number, "none", fast_only=False), (NUMBERS,)),
    "hdict": (lambda db: db.hdict("cat"), ()),
    "hcompress": (compress, ()),
    "damage": (damage, (PATHS,)),
    "link set": (lambda db, value: setattr(db.getlink("a"), "b", value), (VALUES,)),
    "link get": (lambda db: db.getlink("a").b, ()),
}


@pytest.fixture(scope="module")
def old(original: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("the_original_pickleshare", original / "pickleshare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(call: Callable[..., Any], db: Any, arguments: tuple[Any, ...]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            said = call(db, *arguments)
        except KeyError:
            said = KeyError
    return said, "Corrupt" in printed.getvalue()


call = st.sampled_from(sorted(CALLS)).flatmap(lambda name: st.tuples(st.just(name), st.tuples(*CALLS[name][1])))


@settings(max_examples=scaled(40), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(calls=st.lists(call, max_size=40))
def test_every_call_gets_the_same_answer(old: ModuleType, root: Path, calls: list[tuple[str, tuple[Any, ...]]]) -> None:
    with tempfile.TemporaryDirectory(dir=root) as folder:
        theirs = old.PickleShareDB(Path(folder) / "old")
        with new.PickleShareDB(Path(folder) / "new") as ours:
            for name, arguments in calls:
                expected = answer(CALLS[name][0], theirs, arguments)
                assert answer(CALLS[name][0], ours, arguments) == expected, (name, arguments)
                theirs.uncache()  # its cache doesn't see a change within the second
            assert sorted(ours.keys()) == sorted(theirs.keys())
