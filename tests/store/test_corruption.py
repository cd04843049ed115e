"""Damaged files: reported by name, kept byte for byte, never "missing", never in their neighbours' way."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.engine.encoding.framing import bears_frame
from psync.errors import CorruptValue, InvalidKey

NOISE = random.Random(1).randbytes(500)

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "truncated": lambda data: data[: len(data) // 2],
    "last byte cut off": lambda data: data[:-1],
    "zero-filled": lambda data: bytes(len(data)),
    "end zero-filled": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "start zero-filled": lambda data: bytes(len(data) // 2) + data[len(data) // 2 :],
    "a bit flipped": lambda data: (
        data[: len(data) // 2] + bytes((data[len(data) // 2] ^ 4,)) + data[len(data) // 2 + 1 :]
    ),
    "a text": lambda data: b"#!/bin/sh\necho this is no pickle\n",
    "noise": lambda data: NOISE,
    "an image": lambda data: b"\x89PNG\r\n\x1a\n" + NOISE,
    "a pickle of protocol 0, cut off": lambda data: pickle.dumps([1, 2], protocol=0)[:-3],
    "a plain pickle, cut off": lambda data: pickle.dumps({"a": [1] * 100}, protocol=2)[:-20],
    "a plain pickle that takes too much from the stack": lambda data: b"\x80\x02K\x01e.",
    "a plain pickle that finds nothing": lambda data: b"\x80\x02h\x05.",
    "a plain pickle and more": lambda data: pickle.dumps(1, protocol=2) + b"more",
}

UNLOADABLE = "a plain pickle that takes too much from the stack", "a plain pickle that finds nothing"
"""Laid out as a pickle: only loading it tells that it is none, and what is assigned over it keeps nothing."""

VALUES: dict[str, Any] = {"small": 5, "medium": {"run": list(range(40))}, "large": "x" * 70_000}

READS: dict[str, Callable[[PickleShareDB, str], Any]] = {
    "[]": lambda db, key: db[key],
    "get": lambda db, key: db.get(key, "default"),
    "pop": lambda db, key: db.pop(key),
    "pop with a default": lambda db, key: db.pop(key, "default"),
    "setdefault": lambda db, key: db.setdefault(key, "default"),
    "modify": lambda db, key: db.modify(key, lambda old: old, default="default"),
    "waitget": lambda db, key: db.waitget(key, 0),
    "waitany": lambda db, key: db.waitany(["none", key], 0),
    "items": lambda db, key: list(db.items()),
    "values": lambda db, key: list(db.values()),
}


def is_kept(file: Path, damaged: bytes, root: Path) -> bool:
    """Whether the bytes are where they belong: in quarantine if psync's checksum is seen to have been there, else still
    at their name, because nothing tells them from somebody else's file."""
    if bears_frame(damaged):
        return quarantined(root) == [damaged] and (not file.exists() or file.read_bytes() != damaged)
    return quarantined(root) == [] and file.read_bytes() == damaged


def quarantined(root: Path) -> list[bytes]:
    """The bytes of every file that was set aside."""
    folder = root / ".psync" / "quarantine"
    return [path.read_bytes() for path in sorted(folder.glob("*")) if path.suffix != ".why"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_is_reported_by_name_and_kept(disk: Any, damage: str, value: str) -> None:
    db, rival = disk(), disk()
    db.update({"runs/7": VALUES[value], "runs/8": "a neighbour", "other": "too"})
    assert db["runs/7"] == VALUES[value]
    file = disk.root / "runs" / "7"
    damaged = DAMAGES[damage](file.read_bytes())
    file.write_bytes(damaged)

    with pytest.raises(CorruptValue, match="'runs/7'") as caught:
        db["runs/7"]  # although it was in the cache
    assert not isinstance(caught.value, KeyError)
    assert caught.value.key == "runs/7"
    assert caught.value.reason
    assert is_kept(file, damaged, disk.root)
    if bears_frame(damaged):
        assert Path(caught.value.quarantine).read_bytes() == damaged
        assert str(caught.value.quarantine) in str(caught.value)
    assert bool(caught.value.foreign) != bears_frame(damaged)

    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.key) == (CorruptValue, str(caught.value), "runs/7")
    for handle in (db, rival):
        assert handle["runs/8"] == "a neighbour" and handle["other"] == "too"
    rival["runs/7"] = "new"
    assert db["runs/7"] == "new"
    if damaged and damage not in UNLOADABLE:
        assert quarantined(disk.root) == [damaged]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("read", READS)
def test_no_way_to_read_a_damaged_value_misses_the_damage(disk: Any, read: str, damage: str) -> None:
    db = disk()
    db.update({"key": {"a": [1] * 20}, "neighbour": 1})
    file = disk.root / "key"
    damaged = DAMAGES[damage](file.read_bytes())
    file.write_bytes(damaged)
    if read in ("items", "values") and not bears_frame(damaged):
        with pytest.warns(RuntimeWarning, match="1 file is not psync's.*'key'"):
            assert READS[read](db, "key") in ([1], [("neighbour", 1)])
    else:
        with pytest.raises(CorruptValue, match="'key'"):
            READS[read](db, "key")
    assert is_kept(file, damaged, disk.root)
    assert db["neighbour"] == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_can_be_replaced_unseen(disk: Any, damage: str) -> None:
    db = disk()
    for size in (10, 70_000):
        db["key"] = "x" * size
        (disk.root / "key").write_bytes(DAMAGES[damage]((disk.root / "key").read_bytes()))
        db["key"] = "new"
        assert disk()["key"] == "new"


def test_a_damaged_value_is_not_absent(disk: Any) -> None:
    db = disk()
    db["key"] = [1] * 100
    (disk.root / "key").write_bytes(b"noise")
    assert db.keys() == ["key"]
    assert len(db) == 1
    assert not db.add("key", 2)
    assert (disk.root / "key").read_bytes() == b"noise"
    try:
        assert "key" in db
    except CorruptValue:
        pass


def test_damage_that_many_meet_at_once_is_kept_once(disk: Any) -> None:
    handles = [disk() for _ in range(5)]
    handles[0]["key"] = [1] * 100
    damaged = (disk.root / "key").read_bytes()[:-1]
    (disk.root / "key").write_bytes(damaged)
    outcomes: list[Any] = []
    for handle in handles:
        try:
            outcomes.append(handle["key"])
        except (CorruptValue, KeyError) as error:
            outcomes.append(type(error))
    assert outcomes[0] is CorruptValue
    assert quarantined(disk.root) == [damaged]


def test_two_damaged_values_of_one_key_are_both_kept(disk: Any) -> None:
    db = disk()
    damaged = []
    for value in ("first", "second"):
        db["key"] = value
        damaged.append((disk.root / "key").read_bytes()[:-1])
        (disk.root / "key").write_bytes(damaged[-1])
        with pytest.raises(CorruptValue):
            db["key"]
    assert sorted(quarantined(disk.root)) == sorted(damaged)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("pickler", [pickle.dumps, pickle._dumps], ids=["C", "Python"])  # type: ignore[attr-defined]
def test_a_plain_pickle_of_any_protocol_is_a_value(disk: Any, protocol: int, pickler: Callable[..., bytes]) -> None:
    db = disk()
    values = [
        0, 255, 65536, -1, 2**31, 2**70, None, True, 1.5, "", "a", "ä" * 300, b"", b"x" * 300, bytearray(b"x" * 300),
        [], {}, (), set(), {1: 2}, {48: 1}, [1, 2], (1,), (1, 2, 3, 4), {"a": {"b": [1.0, None]}}, "x" * 70_000,
        list(range(3000)), {str(number): number for number in range(3000)}, pytest.raises, int, 1j,
        ["x" * 70_000], {None: b"x" * 70_000}, ("x" * 70_000,), [[bytearray(70_000)]], [1, "x" * 70_000],
    ]  # fmt: skip
    for value in values:
        data = pickler(value, protocol=protocol)
        (disk.root / "plain").write_bytes(data)
        assert db["plain"] == value, data[:40]
        assert (disk.root / "plain").read_bytes() == data
    assert quarantined(disk.root) == []


# -- buckets ---------------------------------------------------------------------------------------

ITEMS = {f"key {number}": {"number": number} for number in range(40)}


def category(disk: Any) -> tuple[PickleShareDB, list[Path]]:
    """A category with `ITEMS`, and its files."""
    db = disk()
    for key, value in ITEMS.items():
        db.hset("runs", key, value)
    return db, sorted((disk.root / "runs").iterdir())


def items_in(db: PickleShareDB, file: Path) -> set[str]:
    """The keys that are in this bucket and no other."""
    return set(db[f"runs/{file.name}"])


@pytest.mark.parametrize("damage", DAMAGES)
def test_hdict_goes_on_without_a_damaged_bucket(disk: Any, damage: str) -> None:
    db, files = category(disk)
    lost = items_in(db, files[3])
    damaged = DAMAGES[damage](files[3].read_bytes())
    files[3].write_bytes(damaged)
    for handle in (disk(), db):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = handle.hdict("runs")
        assert {key: found[key] for key in ITEMS if key not in lost} == {
            k: v for k, v in ITEMS.items() if k not in lost
        }
        assert all(found[key] == ITEMS[key] for key in found)
        if handle is not db:
            assert [f"runs/{files[3].name}" in str(warning.message) for warning in told] == [True]
            assert set(found) == set(ITEMS) - lost
    assert is_kept(files[3], damaged, disk.root)
    for key in lost:
        db.hset("runs", key, ITEMS[key])
    assert disk().hdict("runs") == ITEMS
    assert quarantined(disk.root) == [damaged]


HASH_VERBS: dict[str, Callable[[PickleShareDB, str], Any]] = {
    "hget": lambda db, key: db.hget("runs", key),
    "hget with a default": lambda db, key: db.hget("runs", key, "default"),
    "slow hget": lambda db, key: db.hget("runs", key, fast_only=False),
    "hpop": lambda db, key: db.hpop("runs", key, "default"),
    "hdel": lambda db, key: db.hdel("runs", key),
    "hadd": lambda db, key: db.hadd("runs", key, "other"),
    "hwait": lambda db, key: db.hwait("runs", key, 0),
    "hcompress": lambda db, key: db.hcompress("runs"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", HASH_VERBS)
def test_no_verb_takes_a_damaged_bucket_for_an_empty_one(disk: Any, verb: str, damage: str) -> None:
    db, files = category(disk)
    lost = items_in(db, files[3])
    damaged = DAMAGES[damage](files[3].read_bytes())
    files[3].write_bytes(damaged)
    fresh, left = disk(), {key: value for key, value in ITEMS.items() if key not in lost}
    if bears_frame(damaged):
        with pytest.raises(CorruptValue, match=f"runs/{files[3].name}"):
            HASH_VERBS[verb](fresh, min(lost))
    elif verb == "hadd":
        assert fresh.hadd("runs", min(lost), "other")  # sets an item there, so the bytes are kept elsewhere
        assert quarantined(disk.root) == [damaged]
        assert disk().hdict("runs") == {**left, min(lost): "other"}
        return
    elif verb == "hcompress":
        fresh.hcompress("runs")  # the others are folded, and it stays
    else:
        for _ in range(2):
            with pytest.raises(CorruptValue, match=f"runs/{files[3].name}"):
                HASH_VERBS[verb](fresh, min(lost))
    assert is_kept(files[3], damaged, disk.root)
    for handle in (fresh, disk()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            assert handle.hdict("runs") == left


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", ["hset", "hupdate"])
def test_setting_an_item_in_a_damaged_bucket_buries_nothing(disk: Any, verb: str, damage: str) -> None:
    db, files = category(disk)
    lost = items_in(db, files[3])
    damaged = DAMAGES[damage](files[3].read_bytes())
    files[3].write_bytes(damaged)
    fresh, key = disk(), min(lost)
    write = (
        (lambda: fresh.hset("runs", key, "new")) if verb == "hset" else (lambda: fresh.hupdate("runs", {key: "new"}))
    )
    try:
        write()
    except CorruptValue:
        write()
    assert disk().hget("runs", key) == "new"
    assert quarantined(disk.root) == [damaged]
    left = {name: value for name, value in ITEMS.items() if name not in lost}
    assert disk().hdict("runs") == {**left, key: "new"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_xx_is_reported_and_kept(disk: Any, damage: str) -> None:
    db, _ = category(disk)
    db.hcompress("runs")
    db.hset("runs", "key 1", "newer")
    file = disk.root / "runs" / "xx"
    damaged = DAMAGES[damage](file.read_bytes())
    file.write_bytes(damaged)
    fresh = disk()
    assert fresh.hget("runs", "key 1") == "newer"
    with pytest.raises(CorruptValue, match="runs/xx"):
        fresh.hget("runs", "key 2", fast_only=False)
    assert is_kept(file, damaged, disk.root)
    fresh.hcompress("runs")
    assert fresh.hdict("runs") == {"key 1": "newer"}
    assert quarantined(disk.root) == [damaged]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", ["hdict", "hcompress", "hpop", "hadd"])
def test_no_verb_takes_a_damaged_xx_for_an_empty_one(disk: Any, verb: str, damage: str) -> None:
    db, _ = category(disk)
    db.hcompress("runs")
    db.hset("runs", "key 1", "newer")
    file = disk.root / "runs" / "xx"
    damaged = DAMAGES[damage](file.read_bytes())
    file.write_bytes(damaged)
    fresh = disk()
    if verb == "hdict":
        with pytest.warns(RuntimeWarning, match="runs/xx"):
            assert fresh.hdict("runs") == {"key 1": "newer"}
    elif verb == "hcompress" and not bears_frame(damaged):
        fresh.hcompress("runs")  # makes an ``xx``, so the bytes are kept elsewhere
        assert quarantined(disk.root) == [damaged]
        assert fresh.hdict("runs") == {"key 1": "newer"}
        return
    else:
        with pytest.raises(CorruptValue, match="runs/xx"):
            HASH_VERBS[verb](fresh, "key 2")
    assert is_kept(file, damaged, disk.root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert fresh.hdict("runs") == {"key 1": "newer"}


def test_a_bucket_that_is_a_pickle_of_something_else_is_a_value(disk: Any) -> None:
    _, files = category(disk)
    for thing in (["a", "list"], None, "text", 5):
        data = pickle.dumps(thing, protocol=2)
        files[3].write_bytes(data)
        with pytest.raises(InvalidKey, match=f"'runs/{files[3].name}' is a value"):
            disk().hdict("runs")
        assert files[3].read_bytes() == data
    assert quarantined(disk.root) == []


def test_an_item_set_before_the_last_append_was_torn_is_still_there(disk: Any) -> None:
    """A tail whose writer was killed is no damage: nobody was told that it is stored."""
    db = disk()
    db.hset("runs", "a", 1)
    file = next((disk.root / "runs").iterdir())
    whole = file.read_bytes()
    db.hset("runs", "a", 2)
    longer = file.read_bytes()
    for size in range(len(whole), len(longer)):
        file.write_bytes(whole + longer[len(whole) : size])
        assert disk().hdict("runs") == {"a": 1}
        fresh = disk()
        fresh.hset("runs", "a", 3)
        assert disk().hget("runs", "a") == 3
    assert quarantined(disk.root) == []
