"""A store of JSON: what comes back is what was put, what would not is refused, and nothing of it is unpickled."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psync import (
    Barrier,
    Condition,
    Counter,
    Event,
    Executor,
    Group,
    Latch,
    Mailbox,
    NotSerializable,
    PickleShareDB,
    PsyncError,
    ReadWriteLock,
    RemoteError,
    Semaphore,
    UnsafeStore,
    Worker,
    WorkQueue,
)
from psync.cli.main import main
from psync.engine.encoding.framing import frame
from psync.engine.environment import SERIALIZER
from psync.errors import CorruptValue
from psync.store.json_values import JSON
from tests.security.attacks import ATTACKS, append_record, evil, evil_item, owned, put, register
from tests.security.test_attacks import fill, look, outside, use, watched

PLANTED = list(ATTACKS)[: list(ATTACKS).index("one value in another's place")]
"""The attacks that plant a pickle."""
PLANTED.remove("a pickle behind the seal's own bytes")  # there is none
ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


class Colour(IntEnum):
    RED = 1


@contextlib.contextmanager
def unpickling() -> Iterator[list[str]]:
    """How often this thread unpickled anything in the block."""
    found: list[str] = []

    def profile(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and "load" in function.__name__:
            of_module = getattr(function, "__module__", "") == "_pickle"
            if of_module or isinstance(getattr(function, "__self__", None), pickle.Unpickler):
                found.append(function.__qualname__)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(before)


def files(root: Path) -> dict[str, bytes]:
    """What is stored, without the files of processes and of those who wait."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if "owners" not in name and "wake" not in name}


# -- what comes back ---------------------------------------------------------------------------------------


@given(VALUES)
def test_a_value_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    assert repr(JSON.loads(JSON.dumps(value))) == repr(value)
    assert repr(JSON.load_items(JSON.items({"key": value, 7: value}))) == repr({"key": value, 7: value})
    assert repr(JSON.unpack(JSON.pack((None, value)))) == repr([None, value])


@given(st.tuples(VALUES, st.tuples(ATOMS, VALUES), st.dictionaries(st.integers(), st.integers())))
def test_a_state_of_a_primitive_comes_back_with_its_tuples_and_tables(state: tuple[Any, ...]) -> None:
    assert repr(JSON.load_state(JSON.dump_state(state))) == repr(state)


def test_everything_works_and_nothing_is_unpickled(root: Path) -> None:
    with unpickling() as found, PickleShareDB(root, serializer="json") as db:
        db["runs/7"] = {"speed": [3.5, None, True], "n": 10**40, "name": "Zoë"}
        assert db["runs/7"] == {"speed": [3.5, None, True], "n": 10**40, "name": "Zoë"}
        assert db.modify("runs/7", lambda run: run["n"]) == db.pop("runs/7") == 10**40
        db.hset("colours", "apple", ["red"])
        db.hupdate("colours", {7: "seven", None: {"no": "thing"}})
        db.hget("colours", "apple").append("changed by the caller only")
        db.hcompress("colours")
        assert db.hdict("colours") == {"apple": ["red"], 7: "seven", None: {"no": "thing"}}
        assert db.hpop("colours", 7) == "seven"
        queue = WorkQueue(db, "jobs", max_attempts=1)
        ids = [queue.put({"x": 1}), queue.put([2], id="mine"), queue.put(3, priority=5), queue.put("4", delay=0.001)]
        for task in queue:
            with task:
                if task.id != "mine":
                    task.done([task.value])
                else:
                    task.retry("once more")
        assert queue.results.get(ids[2]) == [3]
        assert [(dead.id, dead.value, dead.history[0].error) for dead in queue.dead()] == [("mine", [2], "once more")]
        assert queue.revive() == ["mine"]
        (task,) = queue.get_many(2)
        assert (task.id, task.value, task.attempt) == ("mine", [2], 2)
        task.done()
        box = Mailbox(db, "box")
        assert box.post("address", {"a": [1]})
        assert list(box.collect(["address"])) == [("address", {"a": [1]})]
        Counter(db, "n").add(10**30)
        Event(db, "e").set()
        Latch(db, "l", 2).count_down()
        Barrier(db, "b", 1).wait()
        with Group(db, "g") as group:
            group.join({"roles": ["all", ("a", "tuple")], 7: 1})
            assert group.members()[0].information == {"roles": ["all", ("a", "tuple")], 7: 1}
        with Semaphore(db, "s"), ReadWriteLock(db, "rw").reader, Condition(db, "c"):
            assert Counter(db, "n").value == 10**30
        assert db.cache == {} or found == []
    assert found == []


# -- what is refused -----------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, str]] = {
    "tuple": ((1, 2), "tuple would come back as a list: give a list"),
    "tuple in a list": ({"a": [1, (2,)]}, r"tuple at .*\['a'\]\[1\] would come back as a list"),
    "bytes": (b"x", r"bytes.* has no form there: give a text, \.decode\(\) or base64"),
    "set": ({"a": {1}}, "give a sorted list"),
    "object": (date(2026, 1, 2), r"datetime\.date.* would not come back as it was"),
    "enum": ([Colour.RED], r"Colour.* would not come back"),
    "NaN": ([float("nan")], "float.* is no number in JSON: give None"),
    "infinity": (float("inf"), "float.* is no number in JSON"),
    "key that is an int": ({1: 2}, "a key of a dict .*int.* would come back as a str: give str keys"),
    "key with a lone surrogate": ({"\ud800": 2}, "a key of a dict .*lone surrogate"),
    "lone surrogate": ("a\udc80", "lone surrogate"),
    "int of too many digits": (10**5000, "int.* has more digits than Python writes"),
}


def embed(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


DOORS: dict[str, Callable[[PickleShareDB, Any], object]] = {
    "set": lambda db, value: db.__setitem__("new", value),
    "add": lambda db, value: db.add("new", value),
    "setdefault": lambda db, value: db.setdefault("new", value),
    "modify": lambda db, value: db.modify("old", lambda old: value),
    "hset": lambda db, value: db.hset("category", "item", value),
    "hadd": lambda db, value: db.hadd("category", "new", value),
    "hupdate": lambda db, value: db.hupdate("category", {"fine": 1, "item": value}),
    "put": lambda db, value: WorkQueue(db, "jobs").put(value),
    "put with an id": lambda db, value: WorkQueue(db, "jobs").put(value, id="mine"),
    "put_many": lambda db, value: WorkQueue(db, "jobs").put_many([1, value]),
    "post": lambda db, value: Mailbox(db, "box").post("new", value),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_would_not_come_back_is_refused_and_nothing_is_written(root: Path, door: str) -> None:
    with PickleShareDB(root, serializer="json") as db:
        db["old"] = 1
        db.hset("category", "item", 1)
        before = files(root)
        for value, told in REFUSED.values():
            with pytest.raises(NotSerializable, match=told):
                DOORS[door](db, value)
        assert files(root) == before


@pytest.mark.parametrize("value", [embed(101), endless()], ids=["too deep", "endless"])
def test_what_is_nested_too_deep_is_refused(root: Path, value: Any) -> None:
    with PickleShareDB(root, serializer="json") as db:
        db["deep"] = embed(100)
        assert db["deep"] == embed(100)
        with pytest.raises(NotSerializable, match="nested more than 100 levels deep, or contains itself"):
            db["deeper"] = value
        with pytest.raises(NotSerializable):
            Group(db, "g").join(value)


def test_a_result_that_would_not_come_back_leaves_the_task_with_its_worker(root: Path) -> None:
    with PickleShareDB(root, serializer="json") as db:
        queue = WorkQueue(db, "jobs")
        id = queue.put(1)
        task = queue.get()
        with pytest.raises(NotSerializable):
            task.done({1})
        task.done([1])
        assert queue.results.get(id, timeout=0) == [1]


@pytest.mark.parametrize("key", [(1, 2), b"x", float("nan"), frozenset()])
def test_a_key_of_an_item_that_would_not_come_back_is_refused(root: Path, key: Any) -> None:
    with PickleShareDB(root, serializer="json") as db:
        for act in (lambda: db.hset("c", key, 1), lambda: Mailbox(db, "box").post(key, 1)):
            with pytest.raises(NotSerializable):
                act()
        assert db.hdict("c") == {}


def test_calls_and_commands_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PickleShareDB(root, serializer="json") as db:
        with pytest.raises(RemoteError, match="calls of a queue are pickles"):
            Executor(db, max_workers=0)
        with pytest.raises(RemoteError, match="calls of a queue are pickles"):
            Worker(WorkQueue(db, "jobs"))
    assert main(["run", str(root), "--", "true"]) == 1
    assert "they would decide what runs here" in capsys.readouterr().err


# -- how a store is opened -------------------------------------------------------------------------------------


def test_a_store_stays_what_it_was_begun_with(root: Path) -> None:
    with PickleShareDB(root, serializer="json") as db:
        db["key"] = [1]
    with PickleShareDB(root) as db, pytest.raises(NotSerializable):
        assert db["key"] == [1]
        db["key"] = (1,)
    with pytest.raises(UnsafeStore, match=r"was begun with serializer='json'"):
        PickleShareDB(root, serializer="pickle")
    with pytest.raises(ValueError, match="serializer must be"):
        PickleShareDB(root, serializer="yaml")  # type: ignore[arg-type]


def test_a_store_of_pickles_is_not_opened_as_json(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["key"] = (1,)
    before = files(root)
    with pytest.raises(UnsafeStore, match=r"not begun with serializer='json'.*psync dump OLD.*psync load NEW"):
        PickleShareDB(root, serializer="json")
    assert files(root) == before


def test_all_that_is_made_from_a_store_does_as_it_does(root: Path) -> None:
    with PickleShareDB(root, serializer="json", categories={"accounts": "file"}) as db:
        queue = WorkQueue(db, "jobs", durability="power")
        for made in (db, queue, Mailbox(db, "box")):
            again = pickle.loads(pickle.dumps(made))
            with pytest.raises(NotSerializable):
                again["key"] = (1,) if made is db else again.put((1,)) if made is queue else again.post("a", (1,))
        with pytest.raises(NotSerializable):
            db.hset("accounts", "ann", (1,))
        with pytest.raises(ValueError, match="this engine was opened with"):
            PickleShareDB(db.engine, serializer="pickle")
    with pytest.raises(NotSerializable):
        WorkQueue(str(root), "jobs").put((1,))


def test_a_sealed_store_can_be_of_json(root: Path) -> None:
    with PickleShareDB(root, serializer="json", key=b"sixteen bytes and more") as db:
        db["key"] = [1]
        assert (db["key"], WorkQueue(db, "jobs").put([2])) == ([1], "#0")
        with pytest.raises(NotSerializable):
            db["key"] = {1}


def test_the_environment_says_it_for_every_store(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SERIALIZER, "json")
    assert main(["set", str(root / "new"), "key", "--json", '{"a": [1]}']) == 0
    assert main(["get", str(root / "new"), "key", "--json"]) == 0
    assert capsys.readouterr().out == '{"a": [1]}\n'
    assert main(["set", str(root / "new"), "key", "--literal", "(1, 2)"]) == 1
    assert "tuple would come back as a list" in capsys.readouterr().err
    monkeypatch.setenv(SERIALIZER, "yaml")
    with pytest.raises(ValueError, match="PSYNC_SERIALIZER must be"):
        PickleShareDB(root / "another")


# -- who writes is not trusted -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("honest")
    (place / "outside").mkdir(mode=0o700)
    (place / "outside" / "precious").write_bytes(b"precious")
    fill(place / "store", serializer="json")
    return place


@pytest.fixture
def store(honest: Path, root: Path) -> Path:
    shutil.copytree(honest, root / "place", symlinks=True)
    return root / "place" / "store"


def test_without_an_attack_all_uses_are_granted(store: Path) -> None:
    refused = use(store, serializer="json")
    assert [each for each in refused if not each.startswith("hget: KeyError")] == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_pickle_is_not_unpickled(store: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERIALIZER, "json")
    ATTACKS[name](store)
    before = outside(store)
    with watched() as looked_up, unpickling() as unpickled:
        look(store)
        use(store, serializer="json")
        look(store)
        assert looked_up == unpickled == []
    assert not owned(store).exists()
    assert outside(store) == before


@given(VALUES, st.data())
def test_whatever_is_read_gives_a_value_or_is_damage(value: Any, data: st.DataObject) -> None:
    """As if somebody wrote it who can make checksums."""
    ways: list[tuple[bytes, Callable[[bytes], Any]]] = [
        (JSON.dumps(value), JSON.loads),
        (JSON.item("key", value), JSON.load_items),
        (JSON.pack((None, value)), JSON.unpack),
        (JSON.dump_state((1, (2, value), {3: 4})), JSON.load_state),
    ]
    for made, read in ways:
        changed = bytearray(made)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(made) - 1))
            changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2) | st.sampled_from(NASTY))
        with contextlib.suppress(ValueError):
            JSON.copy(read(bytes(changed)))


NASTY = [
    b"[" * 2000,
    b"1e999",
    b'"',
    b"{",
    b"}",
    b'{"list":',
    b'{"dict":[[',
    b"\x8d",
    b"J",
    b"NaN",
    b"\\ud800",
    b"null",
]


def text(data: bytes) -> bytes:
    return b"\x8d" + struct.pack("<Q", len(data)) + data


HOSTILE = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "NaN": b"NaN",
    "too large": b"1e999",
    "digits": b"1" * 10_000,
    "no JSON": b"{'a': 1}",
    "no UTF-8": b'"\xff"',
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused_and_kept(store: Path, name: str) -> None:
    data = HOSTILE[name]
    put(store / "key", frame(b"\x80\x05" + text(data) + b"."))
    append_record(store, data)
    put(store / ".psync/event/ready", register(data if len(data) < 4000 else b"{"))
    put(store / "folder/new", frame(b"\x80\x05" + text(data) + b"."))
    with PickleShareDB(store, serializer="json") as db, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CorruptValue, match="can't be read") as caught:
            db["key"]
        assert caught.value.quarantine is not None
        db["key"] = "the value of store"
        with pytest.raises(CorruptValue, match="was not written by psync"):
            Event(db, "ready").is_set()
    refused = [each for each in use(store, serializer="json") if "event" not in each and "hget" not in each]
    assert [each.partition("(")[0] for each in refused] == ["new: CorruptValue"]


@pytest.mark.parametrize(
    "payload", [b"[]", b"[[1], 2]", b"[null]", b'["id", "x", "y"]', b'[{"a": 1}, 1, 2]', b'"text"', b"[1,2,3,4]"]
)
def test_a_record_that_is_no_task_is_dead_and_the_others_come(store: Path, payload: bytes) -> None:
    append_record(store, payload)
    assert [each for each in use(store, serializer="json") if "hget" not in each and "dead" not in each] == []


def test_a_priority_that_is_a_path_leads_nowhere(store: Path) -> None:
    put(store / ".psync/queue/jobs/levels", register(b'["../../../../../outside", 5]'))
    before = outside(store)
    refused = use(store, serializer="json")
    assert any(each.startswith("tasks: CorruptValue") for each in refused)
    assert outside(store) == before


@pytest.mark.parametrize("data", [b"[]", b"{}", b"7", b'{"dict": 5}', b'{"dict": [[[], 1, 2]]}', b'[{"list": 7}]'])
def test_a_state_that_is_none_is_refused(store: Path, data: bytes) -> None:
    put(store / ".psync/counter/count", register(data))
    with PickleShareDB(store, serializer="json") as db, pytest.raises(PsyncError):
        Counter(db, "count").add(1)


def test_the_same_pickles_are_loaded_where_json_was_not_asked_for(store: Path) -> None:
    """Else the tests above would show nothing."""
    (store / ".psync/serializer").unlink()
    put(store / "key", frame(evil(store, 5)))
    with watched() as found, PickleShareDB(store) as db:
        db["key"]
        assert found != []
    assert owned(store).exists()
    assert evil_item(store)
