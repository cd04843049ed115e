"""What goes in comes out: the caller's own copy, of any value that pickles; what does not, changes nothing."""

from __future__ import annotations

import collections
import copy
import datetime
import decimal
import gc
import math
import pickle
import threading
import weakref
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psync import PickleShareDB
from tests.support import scaled


class Box:
    """A value that is compared by what is in it."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self.inside == other.inside

    def __hash__(self) -> int:
        return 1


VALUES: list[Any] = [
    None, False, True, 0, -1, 2**31, 2**63, -(2**64), 10**5000, 0.0, -0.0, 1e-320, math.inf, 1 + 2j, ...,
    "", "a", "ä\0\n🦆", "\ud800", b"", b"\0", b".", b"0.", bytearray(b"x"), (), [], {}, set(), frozenset({1}),
    [None], {None: None}, {"a": [1, (2, {3})]}, range(3), slice(1, 2), Box([Box(1)]), int, len, Box, NotImplemented,
    datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC), decimal.Decimal("1.10"), collections.OrderedDict(a=1),
    "x" * 4000, "x" * 4096, "x" * 5000, b"\0" * 10_000_000, list(range(100_000)), pickle.dumps(1), [b"." * 70_000] * 3,
]  # fmt: skip


def shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:15] if not isinstance(value, int) or abs(value) < 2**99 else 'huge'}"


@pytest.mark.parametrize("value", VALUES, ids=shown)
def test_a_value_comes_back_as_it_was(store: Any, value: Any) -> None:
    db, other = store(), store()
    db["key"] = value
    for found in (db["key"], other["key"], db.get("key", "?"), other.setdefault("key", "?"), db.waitget("key", 0)):
        assert type(found) is type(value)
        assert found == value
    assert "key" in db
    db.hset("category", "item", value)
    for handle in (db, other):
        assert handle.hget("category", "item") == value
        assert handle.hdict("category") == {"item": value}
    db.hcompress("category")
    assert other.hget("category", "item", fast_only=False) == value
    assert other.hpop("category", "item") == value
    found = db.pop("key")
    assert type(found) is type(value) and found == value


@pytest.mark.parametrize("value", [None, False, 0, "", (), [], {}, set()], ids=repr)
def test_an_empty_value_is_a_value(db: PickleShareDB, value: Any) -> None:
    assert db.add("key", value)
    assert not db.add("key", "other")
    assert db["key"] == value
    assert db.get("key", "other") == value
    assert db.setdefault("key", "other") == value
    assert db.modify("key", lambda old: (old,)) == (value,)
    assert db.modify("key", lambda old: value) == value
    assert db.pop("key", "other") == value
    assert db.modify("key", lambda old: old, default=value) == value
    assert db.hadd("h", "item", value)
    assert not db.hadd("h", "item", "other")
    assert db.hget("h", "item", "other") == value
    assert db.hwait("h", "item", 0) == value
    assert db.hpop("h", "item", "other") == value
    assert db.waitany(["none", "key"], 0) == ("key", value)


def test_a_nan_comes_back(db: PickleShareDB) -> None:
    db["key"] = math.nan
    assert math.isnan(db["key"])


def test_a_value_that_contains_itself_comes_back(store: Any) -> None:
    db = store()
    ring: list[Any] = [1]
    ring.append(ring)
    loop: dict[str, Any] = {}
    loop["me"] = (loop, ring)
    db["key"] = loop
    db.hset("category", "item", loop)
    db.hset("category", "next", ring)
    for handle in (db, store()):
        for found in (handle["key"], handle.hget("category", "item"), handle.hdict("category")["item"]):
            assert found["me"][0] is found
            assert found["me"][1][1] is found["me"][1]
        found = handle.hget("category", "next")
        assert found[1] is found


def test_what_is_shared_within_a_value_stays_shared(store: Any) -> None:
    part = ["part"]
    store()["key"] = [part, part]
    store().hset("category", "item", (part, part))
    store().hset("category", "item 2", (part, part))
    first, second = store()["key"]
    assert first is second
    for first, second in store().hdict("category").values():
        assert first is second


def test_an_array_comes_back_and_can_be_written_to(store: Any) -> None:
    numpy = pytest.importorskip("numpy")
    for array in (
        numpy.arange(10),
        numpy.zeros((300, 300)),
        numpy.arange(100).reshape(10, 10)[::2, ::3],
        numpy.array("x"),
    ):
        store()["key"] = array
        store().hset("category", "item", array)
        for found in (store()["key"], store().hget("category", "item"), store().hdict("category")["item"]):
            assert found.dtype == array.dtype and numpy.array_equal(found, array)
            assert found.flags.writeable
            found[...] = found[...]
    array = numpy.zeros(5)
    db = store()
    db["key"] = array
    db["key"][0] = 1
    array[1] = 1
    assert db["key"].tolist() == [0.0] * 5


# -- the caller's own ------------------------------------------------------------------------------


def reads(db: PickleShareDB) -> list[Any]:
    """The same value by every way there is to read it."""
    return [
        db["key"],
        db.get("key"),
        db.setdefault("key", None),
        db.waitget("key", 0),
        db.waitany(["key"], 0)[1],
        dict(db.items())["key"],
        db.hget("category", "item"),
        db.hget("category", "item", fast_only=False),
        db.hdict("category")["item"],
        db.hwait("category", "item", 0),
    ]


def test_changing_what_was_read_changes_nothing_else(store: Any) -> None:
    db, other = store(), store()
    fresh = {"list": [1], "box": Box([2]), "bytes": bytearray(b"3")}
    db["key"] = fresh
    db.hset("category", "item", fresh)
    for handle in (db, other, db):
        for number in range(len(reads(handle))):
            found = reads(handle)[number]
            assert found == fresh
            found["list"].append("changed")
            found["box"].inside.append("changed")
            found["bytes"] += b"changed"
            found["new"] = 1
            assert all(each == fresh for each in reads(db) + reads(other))
    db.hcompress("category")
    for _ in range(3):
        db.hget("category", "item", fast_only=False)["list"].append("changed")
        db.hdict("category")["item"].clear()
        assert db.hget("category", "item", fast_only=False) == db.hdict("category")["item"] == fresh


def test_changing_what_was_written_changes_nothing_in_the_store(store: Any) -> None:
    db, value = store(), {"list": [1]}
    before = copy.deepcopy(value)
    db["a"] = value
    assert db.add("b", value) and db.hadd("h", "b", value)
    assert db.setdefault("c", value) == before
    given_back = db.modify("d", lambda old: value, default=None)
    db.hset("h", "c", value)
    db.hupdate("h", {"d": value})
    value["list"].append("changed")
    given_back["list"].append("changed too")
    for handle in (db, store()):
        assert [handle[key] for key in "abcd"] == [before] * 4
        assert handle.hdict("h") == {"b": before, "c": before, "d": before}


def test_modify_may_change_the_old_value_in_place(store: Any) -> None:
    db = store()
    db["key"] = [1]

    def grow(old: list[int]) -> list[int]:
        old.append(2)
        return old

    assert db.modify("key", grow) == [1, 2]
    assert db["key"] == [1, 2]
    assert store()["key"] == [1, 2]


def test_a_function_that_fails_leaves_the_value(store: Any) -> None:
    db = store()
    db["key"] = [1]

    def spoil(old: list[int]) -> list[int]:
        old.append(2)
        raise OSError("mine")

    with pytest.raises(OSError, match=r"^mine$"):
        db.modify("key", spoil)
    assert db["key"] == store()["key"] == [1]
    with pytest.raises(ZeroDivisionError):
        db.modify("none", lambda old: old / 0, default=1)
    assert "none" not in db


def test_a_value_read_is_not_kept_alive_by_the_store(store: Any) -> None:
    db = store()
    db["key"] = Box(1)
    db.hset("category", "item", Box(2))
    gone = [weakref.ref(db["key"]), weakref.ref(db.hget("category", "item"))]
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


# -- what does not pickle --------------------------------------------------------------------------


class Stubborn:
    """Refuses to be pickled, with an error of its own, after part of it has been."""

    def __init__(self) -> None:
        self.start = "x" * 100_000

    def __reduce__(self) -> Any:
        raise RuntimeError("I stay here")


WRITES: dict[str, Any] = {
    "[]=": lambda db, value: db.__setitem__("key", value),
    "update": lambda db, value: db.update(key=value),
    "modify": lambda db, value: db.modify("key", lambda old: value),
    "setdefault": lambda db, value: db.setdefault("new", value),
    "add": lambda db, value: db.add("new", value),
    "hset": lambda db, value: db.hset("category", "item", value),
    "hset of a key": lambda db, value: db.hset("category", (value,), 1),
    "hupdate": lambda db, value: db.hupdate("category", {"new": 1, "item": value}),
    "hadd": lambda db, value: db.hadd("category", "new", value),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("make", [lambda: lambda: 0, threading.Lock, Stubborn], ids=["lambda", "lock", "stubborn"])
def test_what_does_not_pickle_leaves_the_old_value(store: Any, write: str, make: Any) -> None:
    db, value = store(), make()
    db["key"] = "old"
    db.hset("category", "item", "old")
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError, RuntimeError)):
        WRITES[write](db, [1, value])
    for handle in (db, store()):
        assert handle["key"] == "old"
        assert handle.hdict("category") == {"item": "old"}
        assert "new" not in handle
        assert handle.hget("category", "item") == "old"


def test_a_value_of_one_size_after_another(store: Any) -> None:
    """In place, by rename, and back: whatever was longer before leaves nothing behind."""
    db, other = store(), store()
    for size in (0, 100, 4000, 4096, 70_000, 10, 4050, 4070, 4080, 4090, 4100, 0, 1_000_000, 1):
        value = bytes(range(256)) * (size // 256) + b"." * (size % 256)
        db["key"] = value
        assert other["key"] == db["key"] == value
        assert store()["key"] == value
        other["key"] = [value, size]
        assert db["key"] == [value, size]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@settings(max_examples=scaled(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), ANY, max_size=5))
def test_any_items_come_back(db: PickleShareDB, items: dict[Any, Any]) -> None:
    db.clear()
    db["key"] = items
    for key, value in items.items():
        db.hset("category", key, value)
    assert db["key"] == items
    assert db.hdict("category") == items
    for key, value in items.items():
        assert db.hget("category", key) == value
    db.hcompress("category")
    assert db.hdict("category") == items
    db.hupdate("category", items)
    for key, value in items.items():
        assert db.hpop("category", key) == value
    assert db.hdict("category") == {}
