"""With a list of what pickles may look up, nothing else is looked up, and the error says what to do."""

from __future__ import annotations

import collections
import contextlib
import pickle
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from psync import ClassRefused, Executor, Mailbox, PickleShareDB, WorkQueue
from psync.cli.main import main
from psync.engine.environment import ALLOW
from tests.security.attacks import ATTACKS, evil, owned
from tests.security.test_attacks import USES, fill, watched

PLAIN = [1, 2.5, 3j, "4", b"5", bytearray(b"6"), (7,), {8}, frozenset({9}), {10: [None, True]}, range(11), slice(12)]


class Mine:
    def __init__(self, what: int) -> None:
        self.what = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mine) and other.what == self.what

    __hash__ = None  # type: ignore[assignment]

    class Inner:
        pass


def mine(what: int) -> Mine:
    return Mine(what)


HERE = __name__


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_what_needs_no_class_needs_no_list(root: Path, value: Any) -> None:
    with PickleShareDB(root, allow=[]) as db:
        db["key"] = value
        db.hset("category", "item", value)
        assert db["key"] == db.hget("category", "item") == value


@pytest.mark.parametrize("allow", [[Mine], {f"{HERE}.Mine"}, (HERE,), [Decimal, Mine]], ids=repr)
def test_what_is_on_the_list_comes_back(root: Path, allow: Any) -> None:
    with PickleShareDB(root, allow=allow) as db:
        db["key"] = [Mine(1)]
        db.hset("category", "item", Mine(2))
        WorkQueue(db, "jobs").put(Mine(3))
        Mailbox(db, "box").post("address", Mine(4))
        again = pickle.loads(pickle.dumps(db))
        assert again["key"] == [Mine(1)]
        assert again.hget("category", "item") == Mine(2)
        assert WorkQueue(again, "jobs").get().value == Mine(3)
        assert Mailbox(again, "box").get("address", 0) == Mine(4)
        with pytest.raises(ClassRefused):
            again["other"] = Fraction(1, 3)
            again["other"]


def test_what_is_not_on_the_list_is_refused_with_its_name_and_left_where_it_is(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["key"] = [Decimal(1)]
        db.hset("category", "item", Decimal(2))
        id = WorkQueue(db, "jobs").put(Decimal(3))
        Mailbox(db, "box").post("address", Decimal(4))
    with watched() as found, PickleShareDB(root, allow=["fractions", Mine]) as db:
        with pytest.raises(ClassRefused, match=r"the value of 'key'.*decimal\.Decimal.*allow=\[.*decimal") as caught:
            db["key"]
        assert (caught.value.name, caught.value.key) == ("decimal.Decimal", "key")
        for act in (
            lambda: db.get("key"),
            lambda: db.pop("key"),
            lambda: db.modify("key", repr),
            lambda: db.hget("category", "item"),
            lambda: db.hpop("category", "item"),
            lambda: Mailbox(db, "box").get("address", 0),
        ):
            with pytest.raises(ClassRefused, match=r"decimal\.Decimal"):
                act()
        for listing in (
            lambda: list(db.items()),
            lambda: db.hdict("category"),
            lambda: list(Mailbox(db, "box").collect(["address"], 0)),
        ):
            with pytest.warns(RuntimeWarning, match=r"decimal\.Decimal"):
                listing()
        db.hcompress("category")
        queue = WorkQueue(db, "jobs", max_attempts=1)
        assert list(queue) == []
        (dead,) = queue.dead()
        assert (dead.id, type(dead.value)) == (id, ClassRefused)
        assert found == []
    with PickleShareDB(root, allow=[Decimal]) as db:
        assert (db["key"], db.hdict("category")) == ([Decimal(1)], {"item": Decimal(2)})
        assert WorkQueue(db, "jobs").revive() == [id]
        assert WorkQueue(db, "jobs").get().value == Decimal(3)


def test_an_item_that_is_refused_hides_no_other(root: Path) -> None:
    with PickleShareDB(root) as db:
        for number in range(300):
            db.hset("category", number, Decimal(number) if number % 3 == 1 else number)
    good = {number: number for number in range(299) if number % 3 != 1}
    with watched() as found, PickleShareDB(root, allow=[Mine]) as db:
        for act in (lambda: db.hpop("category", 299), lambda: db.hcompress("category"), db.uncache):
            act()
            with pytest.warns(RuntimeWarning, match=r"the item \d+ of the category 'category': .*decimal\.Decimal"):
                assert db.hdict("category") == good
            assert db.hget("category", 3, fast_only=False) == 3
        assert found == []
    with PickleShareDB(root, allow=[Decimal]) as db:
        assert db.hget("category", 1, fast_only=False) == Decimal(1)


def asking(module: str, name: str) -> bytes:
    """A pickle that looks a name up."""
    short = [b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)]
    return b"\x80\x05" + b"".join(short) + b"\x93."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (HERE, "mine"),  # a function
        (HERE, "collections"),  # what it imports
        (HERE, "collections.OrderedDict"),
        (HERE, "Decimal"),  # made elsewhere
        (HERE, "Mine.__init__.__globals__"),
        (HERE, "PLAIN"),
        (HERE + ".Mine", "Inner"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "KeyError.__subclasses__"),
        ("psync.errors", "threading.Thread"),
        ("psync.errors", "PsyncError.__reduce__"),
        ("os", "system"),
    ],
)
def test_a_module_on_the_list_allows_the_classes_that_are_made_there(root: Path, module: str, name: str) -> None:
    with PickleShareDB(root, allow=[HERE, "decimal.Decimal"]) as db:
        db.engine.write("key", asking(module, name))
        with pytest.raises(ClassRefused) as caught:
            db["key"]
        assert caught.value.name == f"{module}.{name}"
        db.engine.write("key", asking(HERE, "Mine.Inner"))
        assert db["key"] is Mine.Inner


@pytest.mark.parametrize(
    "name", ["a plain pickle at a key", "a bucket with psync's checksum", "a task", "a letter", "the state of an event"]
)
def test_a_planted_pickle_runs_nothing(root: Path, name: str) -> None:
    store = root / "place" / "store"
    store.parent.mkdir()
    fill(store)
    ATTACKS[name](store)
    with watched() as found, PickleShareDB(store, allow=[Mine]) as db:
        for action, _ in USES.values():
            with contextlib.suppress(Exception):
                action(db)
        assert found == []
    assert not owned(store).exists()
    with PickleShareDB(store, allow=[Mine]) as db:
        db.engine.write("key", evil(store))
        with pytest.raises(ClassRefused, match=r"posix\.mkdir"):
            db["key"]


def test_calls_may_use_what_is_on_the_list(root: Path) -> None:
    with PickleShareDB(root, allow=[f"{HERE}.mine", Mine]) as db, Executor(db, 1) as executor:
        assert executor.submit(mine, 3).result(timeout=60) == Mine(3)
        with pytest.raises(ClassRefused, match=r"builtins\.pow"):
            executor.submit(pow, 2, 3).result(timeout=60)
        with pytest.raises(TypeError):  # errors of Python's own, and psync's, need no list
            executor.submit(mine).result(timeout=60)


def test_the_environment_says_it_for_every_store(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with PickleShareDB(root) as db:
        db["key"] = Decimal(1)
        db["other"] = collections.OrderedDict(a=1)
    monkeypatch.setenv(ALLOW, "fractions,decimal.Decimal")
    assert main(["get", str(root), "key"]) == 0
    assert main(["get", str(root), "other"]) == 1
    told = capsys.readouterr()
    assert told.out == "Decimal('1')\n"
    assert "collections.OrderedDict" in told.err
    assert "PSYNC_ALLOW" in told.err


@pytest.mark.parametrize("allow", ["decimal", [5], ["os system"], [""], [".x"]])
def test_a_list_that_is_none_is_refused(root: Path, allow: Any) -> None:
    with pytest.raises(TypeError, match="allow="):
        PickleShareDB(root, allow=allow)


def test_json_has_no_list(root: Path) -> None:
    with pytest.raises(ValueError, match="allow= is for pickles"):
        PickleShareDB(root, serializer="json", allow=[Mine])
