"""Buckets of other programs are divided into their items, whatever protocol they have and however the items share."""

from __future__ import annotations

import collections
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB, gethashfile
from psync.engine.encoding.pickle_split import Unsplittable, is_well_formed, split
from psync.errors import UnreadableAttribute
from psync.store import pickles
from tests.store.test_not_corruption import module

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Part:
    """An object that is equal to its like."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return 7


class Bare:
    """An object without a state: it is made by a call without arguments, as an empty OrderedDict is."""


class Called(Part):
    def __reduce__(self) -> Any:
        return Called, self.parts, {"parts": self.parts}


SHARED = ["hello", {"deep": (1, 2, "hello")}]
ITEMS: dict[Any, Any] = {
    "an object": Part("hello"),
    "hello": "hello",
    "a list that is shared": SHARED,
    "what shares it": [SHARED, SHARED[1]],
    "a call": Called(1, SHARED),
    "the same call": Called(1, SHARED),
    1: 2.5,
    (1, "hello"): None,
    Part("key"): "hello",
    "a set": {"hello", 1},
    "a frozenset": frozenset([1, "hello"]),
    "bytes": [b"bytes", bytearray(b"x" * 300), b"", b"y" * 70_000],
    "numbers": [2**70, -(2**2200), -1.5e300, True, False, 0, 255, 65_536],
    "texts": ["x" * 300, "x" * 70_000, "\udcff\n'\"", ""],
    "an OrderedDict": collections.OrderedDict(a=1),
    "many": [list(range(2500)), {number: str(number) for number in range(2500)}],
    "empty": [(), [], {}, set()],
    "names": [Part, len, PickleShareDB],
}


def loads(ops: bytes) -> Any:
    return pickle.loads(b"\x80\x05" + ops + b".")


def pairs(data: bytes, *, whole: bool = True) -> list[tuple[Any, Any]]:
    return [(loads(piece.key), loads(piece.value)) for piece in split(data, whole=whole)]


def dumped(value: Any, protocol: int) -> list[bytes]:
    return [pickle.dumps(value, protocol), pickle._dumps(value, protocol)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_item_of_a_pickled_dict_can_be_loaded_by_itself(protocol: int) -> None:
    for data in (*dumped(ITEMS, protocol), *dumped(collections.OrderedDict(ITEMS), protocol)):
        assert is_well_formed(data)
        assert pairs(data) == list(ITEMS.items())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_pieces_make_a_bucket_and_that_can_be_split_again(protocol: int) -> None:
    for data in dumped(ITEMS, protocol):
        ops = b"".join(piece.key + piece.value + b"s" for piece in split(data, whole=True))
        assert pickles.load_items(ops) == ITEMS
        assert pairs(ops, whole=False) == list(ITEMS.items())
        twice = ops + pickles.items({1: "new"}) + ops
        assert pairs(twice, whole=False) == [*ITEMS.items(), (1, "new"), *ITEMS.items()]


@pytest.mark.parametrize("left_out", [[0], [3, 4, 5], [1, 17], range(18)], ids=str)
def test_without_the_bytes_of_some_items_the_others_are_left(left_out: list[int]) -> None:
    ops = pickles.items(ITEMS)
    at = 0
    rest = b""
    for number, piece in enumerate(split(ops, whole=False)):
        if number in left_out:
            rest += ops[at : piece.start]
            at = piece.end
    found = pickles.load_items(rest + ops[at:])
    assert len(found) == len(ITEMS) - len(left_out)
    assert all(ITEMS[key] == value for key, value in found.items())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_contains_itself_does_in_its_piece(protocol: int) -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    pair: tuple[list[Any]] = ([],)
    pair[0].append(pair)
    part = Part()
    part.parts = (part,)
    for data in dumped({"a": endless, "b": pair, "c": part, "d": [endless, pair]}, protocol):
        found = dict(pairs(data))
        assert found["a"][1] is found["a"]
        assert found["b"][0][0] is found["b"]
        assert found["c"].parts[0] is found["c"]
        assert found["d"][0][1] is found["d"][0] and found["d"][1][0][0] is found["d"][1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dict_that_contains_itself_can_not_be_split(protocol: int) -> None:
    endless: dict[str, Any] = {"a": 1}
    endless["b"] = [endless]
    for data in dumped(endless, protocol):
        with pytest.raises(Unsplittable):
            split(data, whole=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [1, "text", [1, 2], (1, 2), {1}, Part(1), Part, Bare(), None, [{"a": 1}]])
def test_what_is_no_dict_has_no_items(protocol: int, value: Any) -> None:
    for data in dumped(value, protocol):
        assert is_well_formed(data)
        with pytest.raises(Unsplittable):
            split(data, whole=True)
    for data in dumped({}, protocol):
        assert split(data, whole=True) == []


def test_names_of_python_2_are_those_of_python_3() -> None:
    data = b"\x80\x02}(U\x01acUserDict\nUserDict\nU\x01bc__builtin__\nxrange\nu."
    assert pairs(data) == [("a", collections.UserDict), ("b", range)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_damage_makes_it_raise_anything_else(protocol: int) -> None:
    chance = random.Random(protocol)
    good = pickle.dumps({"a": Part("x"), "b": [1, "x", 2.5], "c": {"d": ("x",)}}, protocol)
    for _ in range(5000):
        data = bytearray(good[: chance.choice([len(good), chance.randrange(1, len(good))])])
        for _ in range(chance.randint(0, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            split(bytes(data), whole=True)
        except Unsplittable:
            assert data != good


# -- directories that PickleShare wrote ------------------------------------------------------------


class Visitor:
    def __init__(self, name: str) -> None:
        self.name = name


Visitor.__qualname__ = "Visitor"
GONE = "a_module_of_yesterday"


def foreign(root: Path, protocol: int) -> None:
    """A category of PickleShare's: a bad item shares a text and a list with its neighbours, in a bucket and in xx."""
    (root / "cat").mkdir(mode=0o700)
    for place, prefix in ((gethashfile("a"), ""), ("xx", "old ")):
        shared = ["shared", prefix]
        items = {f"{prefix}bad": Visitor("shared"), f"{prefix}a": shared, f"{prefix}b": {"x": [shared], "y": "shared"}}
        (root / "cat" / place).write_bytes(pickle.dumps(items, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS[2:])  # a store holds no others
@pytest.mark.parametrize("verb", ["hget", "hdict", "hset", "hdel", "hpop", "hcompress", "hdel the bad one"])
def test_the_neighbours_of_an_item_in_a_foreign_bucket(disk: Any, protocol: int, verb: str) -> None:
    with module(GONE, Visitor=Visitor):
        foreign(disk.root, protocol)
    good = {}
    for prefix in ("", "old "):
        shared = ["shared", prefix]
        good |= {f"{prefix}a": shared, f"{prefix}b": {"x": [shared], "y": "shared"}}
    bad = {"bad", "old bad"}
    with module(GONE):
        db = disk()
        before = {path: path.read_bytes() for path in (disk.root / "cat").iterdir()}
        for key in ("bad", "old bad"):
            for act in (db.hget, db.hpop):
                with pytest.raises(UnreadableAttribute, match=f"the item '{key}' of the category 'cat'"):
                    act("cat", key, **({"fast_only": False} if act == db.hget else {}))
        assert {path: path.read_bytes() for path in (disk.root / "cat").iterdir()} == before
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if verb == "hget":
                assert {key: db.hget("cat", key, fast_only=False) for key in good} == good
            elif verb == "hset":
                db.hset("cat", "bad", 1)
                good["bad"] = 1
                bad -= {"bad"}
            elif verb == "hdel":
                db.hdel("cat", "a")
                del good["a"]
            elif verb == "hpop":
                assert db.hpop("cat", "old b") == good.pop("old b")
            elif verb == "hcompress":
                db.hcompress("cat")
            elif verb == "hdel the bad one":
                db.hdel("cat", "bad")
                db.hdel("cat", "old bad")
                bad.clear()
        for handle in (db, disk()):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                assert handle.hdict("cat") == good
            assert len(told) == len(bad)
            assert {key: handle.hget("cat", key, fast_only=False) for key in good} == good
    with module(GONE, Visitor=Visitor):
        found = disk().hdict("cat")
        assert set(found) == set(good) | bad
        assert {found[key].name for key in bad} <= {"shared"}
    assert not (disk.root / ".psync" / "quarantine").exists() or not list((disk.root / ".psync/quarantine").iterdir())


@pytest.mark.parametrize("verb", ["hget", "hset", "hadd", "hpop", "hdel", "hcompress"])
def test_a_value_at_the_name_of_a_bucket_whose_class_is_gone_is_no_bucket(disk: Any, verb: str) -> None:
    """It may look like a dict of an unknown class; nothing is merged into it, and it stays."""
    with module(GONE, Visitor=type("Visitor", (), {"__qualname__": "Visitor"})):
        disk()["days/5d"] = __import__(GONE).Visitor()
    before = (disk.root / "days" / "5d").read_bytes()
    with module(GONE):
        db = disk()
        with pytest.raises(UnreadableAttribute, match="the value of 'days/5d'"):
            getattr(db, verb)(*("days", "key", 1)[: 1 if verb == "hcompress" else 3 if verb in ("hset", "hadd") else 2])
        with pytest.warns(RuntimeWarning, match="the value of 'days/5d'") as told:
            assert db.hdict("days") == {}
        assert [warning.filename for warning in told] == [__file__]
        with pytest.warns(RuntimeWarning, match="the value of 'days/5d'"):
            assert "days/5d" not in dict(db.items())
    assert (disk.root / "days" / "5d").read_bytes() == before
