"""A key that can't be a name is refused by every verb before anything is touched; nothing leaves the root."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.engine import Engine, MemoryEngine
from psync.errors import InvalidKey
from tests.support import about_files, files

BAD: list[Any] = [
    "", "/", "/etc/passwd", "../x", "a/../../x", "..", ".", "a/", "a//b", "a\0b", "a" * 256, "a/" * 1600 + "a",
    ".psync", ".psync/tmp/x", "a/.nfs0123", "\ud800", None, 7, b"a", Path("a"),
]  # fmt: skip

ON_KEYS: dict[str, Callable[[PickleShareDB, Any], object]] = {
    "[]": lambda db, key: db[key],
    "[]=": lambda db, key: db.__setitem__(key, 1),
    "del": lambda db, key: db.__delitem__(key),
    "pop": lambda db, key: db.pop(key),
    "pop with a default": lambda db, key: db.pop(key, 1),
    "setdefault": lambda db, key: db.setdefault(key, 1),
    "update": lambda db, key: db.update({key: 1}),
    "add": lambda db, key: db.add(key, 1),
    "modify": lambda db, key: db.modify(key, lambda value: value, default=1),
    "waitget": lambda db, key: db.waitget(key, 0),
    "waitany": lambda db, key: db.waitany(["good", key], 0),
    "waitgone": lambda db, key: db.waitgone(key, 0),
    "hset": lambda db, key: db.hset(key, "item", 1),
    "hget": lambda db, key: db.hget(key, "item"),
    "hget with a default": lambda db, key: db.hget(key, "item", 1),
    "slow hget": lambda db, key: db.hget(key, "item", None, fast_only=False),
    "hdict": lambda db, key: db.hdict(key),
    "hcompress": lambda db, key: db.hcompress(key),
    "hdel": lambda db, key: db.hdel(key, "item"),
    "hpop": lambda db, key: db.hpop(key, "item", 1),
    "hupdate": lambda db, key: db.hupdate(key, {"item": 1}),
    "hadd": lambda db, key: db.hadd(key, "item", 1),
    "hwait": lambda db, key: db.hwait(key, "item", 0),
}
"""Every verb that takes a key or the name of a category."""

QUIET: dict[str, Callable[[PickleShareDB, Any], object]] = {
    "in": lambda db, key: key in db,
    "get": lambda db, key: db.get(key, False),
}
"""What can't be a key is no key of any store: these say so as a mapping does."""


class Watched(MemoryEngine):
    """Counts every verb that somebody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []


def _counting(name: str) -> Callable[..., Any]:
    def verb(self: Watched, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(name)
        return getattr(super(Watched, self), name)(*args, **kwargs)

    return verb


for _name in Engine.__abstractmethods__ - {"close"}:
    setattr(Watched, _name, _counting(_name))


@pytest.mark.parametrize("verb", ON_KEYS)
def test_a_bad_key_is_refused_before_the_engine_is_asked(verb: str) -> None:
    engine = Watched()
    with PickleShareDB(engine) as db:
        engine.calls.clear()
        for key in BAD:
            with pytest.raises(InvalidKey):
                ON_KEYS[verb](db, key)
        assert engine.calls == []
        ON_KEYS["[]="](db, "good")
        assert engine.calls  # so it would have been seen


@pytest.mark.parametrize("verb", QUIET)
def test_a_bad_key_is_in_no_store(db: PickleShareDB, verb: str) -> None:
    for key in BAD:
        try:
            assert QUIET[verb](db, key) is False
        except InvalidKey:
            pass


@pytest.fixture
def fenced(root: Path) -> Iterator[Path]:
    """A store's root, with a file beside it that must not change."""
    about_files()
    (root / "x").write_bytes(b"outside")
    before = tree(root, below="store")
    yield root / "store"
    assert tree(root, below="store") == before


def tree(folder: Path, below: str) -> dict[str, bytes]:
    """Every file under `folder`, but for those below one of its folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != below
    }


@pytest.mark.parametrize("verb", ON_KEYS)
def test_nothing_is_written_outside_the_root(fenced: Path, verb: str) -> None:
    with PickleShareDB(fenced) as db:
        before = sorted(path for path in fenced.rglob("*") if ".psync" not in path.parts)
        for key in ("../x", "a/../../x", str(fenced.parent / "x"), str(fenced / "inside"), ".psync/x", "../store/y"):
            with pytest.raises(InvalidKey):
                ON_KEYS[verb](db, key)
        assert sorted(path for path in fenced.rglob("*") if ".psync" not in path.parts) == before
        assert db.keys() == []


@pytest.mark.parametrize("pattern", ["../*", "/*", "/etc/*", "a/../../*", "..", ""])
def test_a_glob_does_not_look_outside_the_root(fenced: Path, pattern: str) -> None:
    with PickleShareDB(fenced) as db, pytest.raises(InvalidKey):
        db.keys(pattern)


@pytest.mark.parametrize("folder", ["..", "/etc", "a/../..", "", ".psync"])
def test_a_link_does_not_lead_outside_the_root(fenced: Path, folder: str) -> None:
    with PickleShareDB(fenced) as db, pytest.raises(InvalidKey):
        db.getlink(folder).x = 1


@files
def test_a_link_to_another_place_is_not_followed(root: Path) -> None:
    outside = root / "outside"
    outside.mkdir()
    with PickleShareDB(root / "store") as db:
        db["real"] = 1
        (outside / "file").write_bytes((root / "store" / "real").read_bytes())
        (root / "store" / "linked").symlink_to(outside / "file")
        with pytest.raises((KeyError, OSError)):
            db["linked"]
        with pytest.raises((InvalidKey, OSError)):
            db["linked"] = 2
        assert (outside / "file").read_bytes() == (root / "store" / "real").read_bytes()


@pytest.mark.parametrize(
    "key", ["a b", "line\nbreak", "ä/日本語/🦆", "\udcff", "-rf", "*", "back\\slash", "~", ".hidden", "'", "%2e"]
)
def test_a_strange_name_is_a_file_of_that_name(disk: Any, key: str) -> None:
    db = disk()
    db[key] = {"value": key}
    assert os.path.isfile(os.fsencode(str(disk.root)) + b"/" + key.encode("utf-8", "surrogateescape"))
    assert db.keys() == [key]
    assert disk()[key] == {"value": key}
    assert key in db
    del db[key]
    assert db.keys() == []


@pytest.mark.parametrize("key", ["k" * 256, "é" * 128, "/".join(["k" * 200] * 20)], ids=["long", "in bytes", "deep"])
def test_what_is_too_long_for_a_key_is_referred_to_a_category_which_takes_it(store: Any, key: str) -> None:
    with pytest.raises(InvalidKey, match=r"the longest is .* hset\('category', key, value\)"):
        store()[key] = 1
    store().hset("category", key * 100, 1)
    assert store().hget("category", key * 100) == 1


@pytest.mark.parametrize("size", [1, 255])
def test_the_longest_names_work_with_every_verb(store: Any, size: int) -> None:
    db, key = store(), "k" * size
    db[key] = 1
    db[f"{key}x/{key}"[-255 * 2 :] if size == 1 else f"{'f' * 255}/{key}"] = 2
    assert db[key] == 1
    assert db.modify(key, lambda value: value + 1) == 2
    db[key] = "long" * 50_000
    assert store()[key] == "long" * 50_000
    db.hset("c" * size, "item", 1)
    assert db.hdict("c" * size) == {"item": 1}
    db.hcompress("c" * size)
    assert db.hget("c" * size, "item", fast_only=False) == 1
    assert db.waitget(key, 0) == "long" * 50_000
    assert db.pop(key) == "long" * 50_000


@pytest.mark.parametrize("verb", ["[]=", "add", "setdefault", "update", "modify", "hset", "hupdate", "hadd"])
@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c"), ("a/b/c", "a")])
def test_a_name_can_not_be_a_value_and_a_folder(store: Any, verb: str, first: str, second: str) -> None:
    db = store()
    db[first] = "first"
    if verb.startswith("h") and first.startswith(second):
        second = first  # a category is a folder: only a value stands in its way
    with pytest.raises(InvalidKey, match=r"'a"):
        ON_KEYS[verb](db, second)
    assert store()[first] == "first"
    assert db.keys() == [first]


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
def test_a_name_that_was_a_folder_is_free_again(store: Any, first: str, second: str) -> None:
    db = store()
    db[first] = "first"
    assert second not in db
    with pytest.raises(KeyError):
        db[second]
    with pytest.raises(KeyError):
        del db[second]
    del db[first]
    db[second] = "second"
    assert store()[second] == "second"
    assert db.keys() == [second]
