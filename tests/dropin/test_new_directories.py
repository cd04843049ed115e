"""What psync wrote, pickleshare 0.7.5 reads: all of it, in every Python from 3.8 on, and finds nothing to repair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync import pickleshare as dropin
from tests.dropin.old import Old, old_pythons
from tests.support import scaled

VALUES: dict[str, Any] = {
    "none": None,
    "numbers": [0, -1, 2**64, -(2**100), 0.1, 1e-300, 3 + 4j, True],
    "text": "jäätelö \U0001f366 " * 7,
    "bytes": bytes(range(256)),
    "large bytes": b"\0\xff" * 500_000,
    "large text": "x" * 1_000_000,
    "at the limit of an overwrite in place": "y" * 4096,
    "nested": {"a": [1, (2, {3, 4}), {"b": b""}], (1, 2): "tuple"},
    "paths/are/ok/key": [1, (5, 46)],
    "many": list(range(50_000)),
}

EVERYTHING = "answer = [(k, db[k]) for k in db.keys() if not k.startswith('.psync/')]"


@pytest.fixture(params=[PickleShareDB, dropin.PickleShareDB], ids=["psync", "psync.pickleshare"])
def db(request: pytest.FixtureRequest, root: Path) -> Any:
    with request.param(root / "new") as db:
        yield db


@pytest.fixture(params=old_pythons(), ids=lambda path: Path(path).name)
def old(request: pytest.FixtureRequest, original: Path, root: Path) -> Old:
    return Old(original, root / "new", request.param)


def test_plain_values_are_read(old: Old, db: PickleShareDB) -> None:
    for key, value in VALUES.items():
        db[key] = value
    assert dict(old(EVERYTHING).value) == VALUES


def test_values_that_grow_and_shrink_are_read(old: Old, db: PickleShareDB) -> None:
    sizes = [10, 3000, 5, 4090, 0, 5000, 17, 4000]
    for size in sizes:
        db["value"] = "z" * size
        db["list"] = list(range(size))
        assert old("answer = db['value'], db['list']").value == ("z" * size, list(range(size)))


def test_what_the_atomic_verbs_made_is_read(old: Old, db: PickleShareDB) -> None:
    assert db.add("added", 1)
    assert not db.add("added", 2)
    for _ in range(5):
        db.modify("modified", lambda counts: [*counts, len(counts)], default=[])
    db.setdefault("defaulted", {"x": 1})
    db["popped"] = 1
    db.pop("popped")
    expected = {"added": 1, "modified": [0, 1, 2, 3, 4], "defaulted": {"x": 1}}
    assert dict(old(EVERYTHING).value) == expected


def test_a_category_is_read_after_everything_that_can_be_done_to_it(old: Old, db: PickleShareDB) -> None:
    expected: dict[Any, Any] = {}

    def same() -> None:
        assert old.hdict("a/category") == expected == db.hdict("a/category")

    for i in range(scaled(400)):
        for key, value in ((i, [i]), (f"näme {i}", {"i": i}), ((i, "x"), i), (i / 7, None)):
            db.hset("a/category", key, value)
            expected[key] = value
    same()
    for key in list(expected)[::3]:
        db.hset("a/category", key, "again")
        expected[key] = "again"
    same()
    for key in list(expected)[::5]:
        db.hdel("a/category", key)
        del expected[key]
    key = next(iter(expected))
    assert db.hpop("a/category", key) == expected.pop(key)
    same()
    more = {f"update {i}": "u" * i for i in range(scaled(300))}
    db.hupdate("a/category", more)
    expected |= more
    assert db.hadd("a/category", "added", 1)
    assert not db.hadd("a/category", "added", 2)
    expected["added"] = 1
    same()
    db.hcompress("a/category")
    same()
    for key in [*list(expected)[::7], "after"]:
        db.hset("a/category", key, "after hcompress")
        expected[key] = "after hcompress"
    same()
    for key in list(expected)[::11]:
        db.hdel("a/category", key)
        del expected[key]
    same()
    db.hcompress("a/category")
    same()


def test_a_bucket_with_a_large_item_is_read(old: Old, db: PickleShareDB) -> None:
    expected = {1: b"x" * 1_000_000, 257: "y" * 100_000, 513: 3}  # one bucket
    for key, value in expected.items():
        db.hset("category", key, value)
    assert old.hdict("category") == expected


def test_pickleshare_finds_items_by_their_key_where_it_looks_for_numbers(old: Old, db: PickleShareDB) -> None:
    for i in range(300):
        db.hset("category", i, i * i)
    assert old("answer = [db.hget('category', i) for i in range(300)]").value == [i * i for i in range(300)]


def test_a_category_emptied_again_is_empty_for_pickleshare(old: Old, db: PickleShareDB) -> None:
    for i in range(10):
        db.hset("category", i, i)
    for i in range(10):
        db.hdel("category", i)
    assert old.hdict("category") == {} == db.hdict("category")


def test_pickleshare_reads_over_psyncs_own_files(old: Old, db: PickleShareDB) -> None:
    """It lists them, so they must not stop it: they are pickles too."""
    db["mine"] = 1
    for number in range(20):
        db.hset("category", number, number)
    db.hcompress("category")
    with pytest.raises(KeyError):
        db.waitget("never", 0.01)
    db["mine"] = 2
    everything = old("answer = [(key, repr(value)) for key, value in dict(db).items()]").value
    assert ("mine", "2") in everything
    assert any(key.startswith(".psync/") for key, _ in everything)
