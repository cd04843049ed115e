"""What somebody plants who can write to a sealed store is not unpickled, leads nowhere else, and holds nobody up."""

from __future__ import annotations

import contextlib
import os
import queue as stdlib
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from psync import Counter, Event, Lock, Mailbox, PickleShareDB, UnsafeStore, WorkQueue
from psync.engine.directory.admin.leftovers import leftovers_of
from psync.engine.directory.layout import is_used
from psync.engine.environment import KEY_FILE as FILE
from psync.errors import CorruptValue, PsyncError
from psync.work.admin.overview import Observer
from tests.security.attacks import ATTACKS, KEY, MALLORYS, Attack, owned, put
from tests.store.memory_limit import with_memory_limit

LONGEST = 60
"""Seconds that all uses of one attacked store may take, on a loaded machine."""
_found: list[str] = []


class Hangs(BaseException):
    """Nobody catches this."""


_watching = False


def _listen(event: str, args: tuple[Any, ...]) -> None:
    if _watching and event == "pickle.find_class":
        _found.append(".".join(map(str, args)))


sys.addaudithook(_listen)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The classes that were looked up by unpickling in the block. It may not take longer than `LONGEST`."""
    global _watching  # noqa: PLW0603 (an audit hook stays for ever)

    def too_long(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"for {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    _found.clear()
    _watching = True
    try:
        yield _found
    finally:
        _watching = False
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed store with something of every kind, another one with the same key, and one of the attacker's."""
    place = tmp_path_factory.mktemp("honest")
    (place / "outside").mkdir(mode=0o700)
    (place / "outside" / "precious").write_bytes(b"precious")
    for name, key in (("store", KEY), ("second", KEY), ("mallorys", MALLORYS)):
        fill(place / name, key=key)
    return place


def fill(root: Path, **options: Any) -> None:
    with PickleShareDB(root, **options) as db:
        db.update({"key": f"the value of {root.name}", "other": "another value", "folder/new": 1})
        del db["folder/new"]
        for category in ("category", "elsewhere"):
            db.hset(category, "item", category)
            db.hupdate(category, {"item": category})
        queue = WorkQueue(db, "jobs")
        queue.put_many(["first", "second"])
        queue.put("third", priority=1)
        queue.get().done("result")
        Mailbox(db, "box").post("item", "letter")
        Event(db, "ready").set()
        Counter(db, "count").add(3)
        with Lock(db, "door"):
            pass
        db.engine.owner()


@pytest.fixture
def store(honest: Path, root: Path) -> Path:
    shutil.copytree(honest, root / "place", symlinks=True)
    return root / "place" / "store"


def drain(db: PickleShareDB) -> list[Any]:
    queue, got = WorkQueue(db, "jobs"), []
    with contextlib.suppress(stdlib.Empty):
        while True:
            task = queue.get(timeout=0)
            got.append(task.value)
            task.done()
    return got


USES: dict[str, tuple[Callable[[PickleShareDB], Any], Callable[[Any], bool]]] = {
    "[]": (lambda db: db["key"], lambda got: got == "the value of store"),
    "get": (lambda db: db.get("key"), lambda got: got in (None, "the value of store")),
    "other": (lambda db: db["other"], lambda got: got == "another value"),
    "new": (lambda db: db.get("folder/new"), lambda got: got is None),
    "waitget": (lambda db: db.waitget("key", 0), lambda got: got == "the value of store"),
    "modify": (lambda db: db.modify("key", lambda old: old), lambda got: got == "the value of store"),
    "hget": (lambda db: db.hget("category", "item", None), lambda got: got in (None, "category")),
    "slow hget": (
        lambda db: db.hget("category", "item", None, fast_only=False),
        lambda got: got in (None, "category"),
    ),
    "hdict": (lambda db: db.hdict("category"), lambda got: got in ({}, {"item": "category"})),
    "hadd": (lambda db: db.hadd("category", "item", "category"), lambda got: got in (True, False)),
    "hcompress": (lambda db: db.hcompress("category"), lambda got: got is None),
    "letter": (lambda db: Mailbox(db, "box").get("item", 0), lambda got: got == "letter"),
    "letters": (lambda db: list(Mailbox(db, "box").collect(["item"], 0)), lambda got: got == [("item", "letter")]),
    "event": (lambda db: Event(db, "ready").is_set(), lambda got: got in (True, False)),
    "counter": (lambda db: Counter(db, "count").value, lambda got: got == 3),
    "set event": (lambda db: Event(db, "ready").set(), lambda got: got is None),
    "lock": (lambda db: Lock(db, "door").acquire(timeout=0), lambda got: got in (True, False)),
    "results": (lambda db: list(WorkQueue(db, "jobs").results.addresses()), lambda got: len(got) <= 1),
    "dead": (lambda db: WorkQueue(db, "jobs").dead(), lambda got: got == []),
    "statistics": (lambda db: WorkQueue(db, "jobs").statistics(), lambda got: True),
    "tasks": (drain, lambda got: set(got) <= {"first", "second", "third"}),
    "items": (lambda db: list(db.items()), lambda got: True),
    "set": (lambda db: db.__setitem__("key", "the value of store"), lambda got: got is None),
    "sweep": (lambda db: db.sweep(), lambda got: True),
    "pop": (lambda db: db.pop("key", None), lambda got: got in (None, "the value of store")),
}
REFUSED = (PsyncError, KeyError, stdlib.Empty)


def use(root: Path, **options: Any) -> list[str]:
    """Use the store in every way; what was refused."""
    refused = []
    options = options or {"key": KEY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (action, is_right) in USES.items():
            try:
                with PickleShareDB(root, **options) as db:
                    got = action(db)
                    assert is_right(got), f"{name} gives {got!r}"
            except REFUSED as error:
                refused.append(f"{name}: {error!r}")
    return refused


def look(root: Path) -> None:
    """As `psync status` and `psync doctor` do."""
    try:
        observer = Observer(str(root))
        try:
            str(observer.look())
        finally:
            observer.close()
    except REFUSED:
        pass
    if is_used(root):
        with contextlib.suppress(*REFUSED):
            str(leftovers_of(str(root)))


def outside(root: Path) -> dict[str, bytes]:
    """All files beside the store, by name."""
    found = {}
    for path in sorted(root.parent.rglob("*")):
        if root not in path.parents and path != root and path.is_file() and not path.is_symlink():
            found[str(path.relative_to(root.parent))] = path.read_bytes()
    return {name: data for name, data in found.items() if not name.startswith("moved/")}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_planted_is_refused_before_anything_is_unpickled(
    store: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file = store.parent / "key"
    put(key_file, KEY)
    monkeypatch.setenv(FILE, str(key_file))
    ATTACKS[name](store)
    before = outside(store)
    with watched() as found:
        look(store)
        use(store)
        look(store)
        assert found == []
    assert not owned(store).exists()
    assert outside(store) == before


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 40


def test_without_the_attack_all_uses_are_granted(store: Path) -> None:
    """Else the tests above would show nothing."""
    refused = use(store)
    assert [each for each in refused if not each.startswith("hget: KeyError")] == []


@pytest.mark.parametrize(
    "name", ["a plain pickle at a key", "the state of an event", "a bucket with psync's checksum", "a task", "a letter"]
)
def test_without_a_key_each_of_the_planted_pickles_would_have_been_loaded(honest: Path, root: Path, name: str) -> None:
    """The attacks attack: the same store without seals falls to them."""
    store = root / "place" / "store"
    with PickleShareDB(store) as db:
        db["key"] = 1
        db.hset("category", "item", 1)
        WorkQueue(db, "jobs").put("first")
        Mailbox(db, "box").post("item", "letter")
        Event(db, "ready").set()
    ATTACKS[name](store)
    with watched() as found, warnings.catch_warnings(), PickleShareDB(store) as db:
        warnings.simplefilter("ignore")
        for action, _ in USES.values():
            with contextlib.suppress(Exception):
                action(db)
        assert "posix.mkdir" in found
    assert owned(store).exists()


def spending(root: Path, name: str) -> None:
    ATTACKS[name](root)
    look(root)
    use(root)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "terabyte" in name])
def test_a_terabyte_costs_little_memory(store: Path, name: str) -> None:
    with_memory_limit(spending, store, name)


def test_an_earlier_state_of_a_primitive_is_noticed_by_who_saw_a_later_one(store: Path) -> None:
    file = store / ".psync/counter/count"
    before = file.read_bytes()
    with PickleShareDB(store, key=KEY) as db:
        counter = Counter(db, "count")
        assert counter.add(1) == 4
        with file.open("r+b") as opened:
            opened.write(before)
        with pytest.raises(CorruptValue, match="put back"):
            counter.value
        with pytest.raises(CorruptValue, match="put back"):
            counter.add(1)


# -- between a check and a use ---------------------------------------------------------------------------------


def swapping(path: Path, plants: list[Attack], root: Path, stop: threading.Event) -> None:
    good = path.read_bytes()
    number = 0
    while not stop.is_set():
        ready = path.with_name("being planted")
        with contextlib.suppress(OSError):
            if number % 2:
                shutil.copyfile(path, ready)
                ready.write_bytes(good)
            elif number % 4:
                ready.symlink_to(root.parent / "outside" / "precious")
            else:
                put(ready, (root.parent / "planted").read_bytes())
            os.replace(ready, path)
        number += 1


def test_what_is_swapped_while_it_is_read_is_the_right_value_or_refused(store: Path) -> None:
    ATTACKS["a pickle with psync's checksum at a key"](store)
    shutil.move(store / "key", store.parent / "planted")
    with PickleShareDB(store, key=KEY) as db:
        db["key"] = "the value of store"
    before = outside(store)
    stop = threading.Event()
    attacker = threading.Thread(target=swapping, args=(store / "key", [], store, stop))
    attacker.start()
    try:
        with watched() as found, PickleShareDB(store, key=KEY) as db:
            for number in range(400):
                try:
                    assert db["key"] == "the value of store"
                except (CorruptValue, KeyError, UnsafeStore, PsyncError):
                    pass
                if number % 5 == 0:
                    with contextlib.suppress(PsyncError):
                        db["key"] = "the value of store"
            assert found == []
    finally:
        stop.set()
        attacker.join()
    assert outside(store) == before
    assert not owned(store).exists()
