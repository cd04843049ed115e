"""What a killed replacement can leave on a network file system, and each verb on it: as if it were done, or not begun.

`psync.engine.directory.fs.nfs_replace` names the states. In all of them a new content was on its way to a name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB, gethashfile

OLD, NEW, MEANWHILE = "o" * 9000, "n" * 9000, "made meanwhile"
BUCKET = gethashfile("key")


def prepared(path: Path) -> Path:
    return path.with_name(f".psync-new-{path.name}")


def decided(path: Path) -> Path:
    return path.with_name(f".psync-now-{path.name}")


def undecided(path: Path, new: Path) -> None:
    shutil.copy(new, prepared(path))


def emptied(path: Path, new: Path) -> None:
    shutil.copy(new, prepared(path))
    os.truncate(path, 0)


def emptied_and_decided(path: Path, new: Path) -> None:
    shutil.copy(new, decided(path))
    os.truncate(path, 0)


def nameless(path: Path, new: Path) -> None:
    shutil.copy(new, decided(path))
    path.unlink()


def made_meanwhile(path: Path, new: Path) -> None:
    """Somebody found no such name, made it, and was killed before looking at it again."""
    nameless(path, new)
    other = path.parent.parent / ".psync/tmp/0123456789abcdef"
    shutil.copy(path.with_name("other"), other)
    os.link(other, path)


def linked_and_decided(path: Path, new: Path) -> None:
    """A snapshot has the old file, too: that is not emptied."""
    os.link(path, path.parent.parent.parent / "snapshot")
    shutil.copy(new, decided(path))


DONE = [emptied, emptied_and_decided, nameless, made_meanwhile]
VALUES: dict[str, tuple[Callable[[Any], Any], Callable[[str], Any], Callable[[str], Any]]] = {
    # what is done, what that returns, and what is there then
    "get": (lambda db: db["a/x"], lambda old: old, lambda old: old),
    "in": (lambda db: "a/x" in db, lambda old: True, lambda old: old),
    "keys": (lambda db: db.keys("a/x"), lambda old: ["a/x"], lambda old: old),
    "items": (lambda db: dict(db.items())["a/x"], lambda old: old, lambda old: old),
    "waitget": (lambda db: db.waitget("a/x", 5), lambda old: old, lambda old: old),
    "set": (lambda db: db.__setitem__("a/x", 1), lambda old: None, lambda old: 1),
    "set large": (lambda db: db.__setitem__("a/x", "l" * 8000), lambda old: None, lambda old: "l" * 8000),
    "add": (lambda db: db.add("a/x", 1), lambda old: False, lambda old: old),
    "setdefault": (lambda db: db.setdefault("a/x", 1), lambda old: old, lambda old: old),
    "modify": (lambda db: db.modify("a/x", lambda old: old + "m"), lambda old: old + "m", lambda old: old + "m"),
    "pop": (lambda db: db.pop("a/x"), lambda old: old, lambda old: None),
    "del": (lambda db: db.__delitem__("a/x"), lambda old: None, lambda old: None),
}
ITEMS: dict[str, tuple[Callable[[Any], Any], Callable[[str], Any], Callable[[str], Any]]] = {
    "hget": (lambda db: db.hget("cat", "key", fast_only=False), lambda old: old, lambda old: old),
    "hdict": (lambda db: db.hdict("cat")["key"], lambda old: old, lambda old: old),
    "hset": (lambda db: db.hset("cat", "key", 1), lambda old: None, lambda old: 1),
    "hadd": (lambda db: db.hadd("cat", "key", 1), lambda old: False, lambda old: old),
    "hupdate": (lambda db: db.hupdate("cat", {"key": 1, "more": 2}), lambda old: None, lambda old: 1),
    "hpop": (lambda db: db.hpop("cat", "key"), lambda old: old, lambda old: None),
    "hdel": (lambda db: db.hdel("cat", "key"), lambda old: None, lambda old: None),
    "hcompress": (lambda db: db.hcompress("cat"), lambda old: None, lambda old: old),
}
READING = ("get", "in", "keys", "items", "waitget", "setdefault", "hget", "hdict")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[PickleShareDB]:
    db = PickleShareDB(tmp_path / "store", sharing="network")
    yield db
    db.close()


def with_values(db: PickleShareDB) -> tuple[Path, Path]:
    """The file of a key, which others have open as well, and another one with what is to come to it."""
    db["a/x"], db["b/new"], db["a/other"] = OLD, NEW, MEANWHILE
    return Path(db.root) / "a/x", Path(db.root) / "b/new"


def with_buckets(db: PickleShareDB) -> tuple[Path, Path]:
    db.hset("cat", "key", OLD)
    db.hset("new", "key", NEW)
    shutil.copy(Path(db.root) / "new" / BUCKET, Path(db.root) / "cat/other")
    return Path(db.root) / "cat" / BUCKET, Path(db.root) / "new" / BUCKET


def unfinished(db: PickleShareDB) -> list[str]:
    return [str(path) for path in Path(db.root).rglob(".psync-n*")]


@pytest.mark.parametrize("fresh", [False, True], ids=["a kept handle", "a new handle"])
@pytest.mark.parametrize("state", [*DONE, linked_and_decided, undecided], ids=lambda state: state.__name__)
@pytest.mark.parametrize("verb", VALUES)
def test_a_verb_on_a_value_that_was_being_replaced(far: Any, verb: str, state: Any, fresh: bool) -> None:
    path, new = with_values(far)
    assert far["a/x"] == OLD
    state(path, new)
    del far["b/new"]
    check(far, verb, VALUES, state, fresh, lambda db: db.get("a/x"))


@pytest.mark.parametrize("fresh", [False, True], ids=["a kept handle", "a new handle"])
@pytest.mark.parametrize("state", [*DONE, linked_and_decided, undecided], ids=lambda state: state.__name__)
@pytest.mark.parametrize("verb", ITEMS)
def test_a_verb_on_an_item_whose_bucket_was_being_replaced(far: Any, verb: str, state: Any, fresh: bool) -> None:
    path, new = with_buckets(far)
    assert far.hdict("cat") == {"key": OLD}
    state(path, new)
    (Path(far.root) / "cat/other").unlink()
    check(far, verb, ITEMS, state, fresh, lambda db: db.hdict("cat").get("key"))


def check(db: Any, verb: str, verbs: Any, state: Any, fresh: bool, look: Callable[[Any], Any]) -> None:
    act, returned, after = verbs[verb]
    content = OLD if state is undecided else NEW
    seen = [content]
    if verb in READING and state is linked_and_decided:
        seen.append(OLD)  # a reader need not look further than at a file with content
    if verb in READING and state is made_meanwhile and verbs is VALUES:
        seen.append(MEANWHILE)
    used = PickleShareDB(db.root, sharing="network") if fresh else db
    try:
        assert act(used) in [returned(each) for each in seen]
        db.sweep()
        assert look(db) == after(content)
        with PickleShareDB(db.root, sharing="network") as other:
            assert look(other) == after(content)
        assert unfinished(db) == []
    finally:
        if fresh:
            used.close()


@pytest.mark.parametrize("state", DONE, ids=lambda state: state.__name__)
def test_a_host_of_its_own_goes_on_after_a_sweep(far: Any, state: Any, tmp_path: Path) -> None:
    """A directory that was on NFS, and is used on the server alone."""
    state(*with_values(far))
    far.close()
    with PickleShareDB(tmp_path / "store") as db:
        db.sweep()
        assert db["a/x"] == NEW


def test_a_file_that_is_left_of_a_name_that_is_gone_comes_to_nothing(far: Any) -> None:
    path, new = with_values(far)
    undecided(path, new)
    del far["a/x"]
    assert "a/x" not in far
    assert far.sweep() == 1
    assert "a/x" not in far
    assert unfinished(far) == []


@pytest.mark.parametrize("name", [".psync-new-x", "a/.psync-now-x"])
def test_such_a_name_is_no_key(far: Any, name: str) -> None:
    with pytest.raises(KeyError, match="replace"):
        far[name] = 1
