"""A value that can't be unpickled here is the matter of its own key alone, on every engine."""

from __future__ import annotations

import contextlib
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from psync import Mailbox, PickleShareDB, WorkQueue, copy_store, gethashfile
from psync.engine import MemoryEngine
from psync.errors import UnreadableAttribute, UnreadableImport, UnreadableModule, UnreadableValue
from tests.contract.harness import Harness

MODULE = "a_module_of_theirs"
THING = "class Thing:\n    def __init__(self): self.inside = 1\n"
STATE = THING + "    def __setstate__(self, state):\n        "


class Kind(NamedTuple):
    """One way in which a value can't be unpickled: the module when it was written, and now (None: there is none)."""

    then: str
    now: str | None
    error: type[Exception]
    named: str = "Thing"
    make: str = "Thing()"


KINDS = {
    "the class is gone": Kind(THING, "", UnreadableAttribute),
    "the module is gone": Kind(THING, None, UnreadableModule),
    "the module fails with an ImportError": Kind(THING, "raise ImportError('libthing.so')", UnreadableImport),
    "the module fails with another error": Kind(THING, "raise RuntimeError('not here')", UnreadableValue),
    "the module ends the program": Kind(THING, "raise SystemExit('usage')", UnreadableValue),
    "the module is no Python": Kind(THING, "class Thing(:", UnreadableValue),
    "a class within a class is gone": Kind(
        "class Outer:\n    class Thing: pass\n", "class Outer: pass", UnreadableAttribute, "Outer", "Outer.Thing()"
    ),
    "a function is gone": Kind("def thing(): pass\n", "", UnreadableAttribute, "thing", "thing"),
    "__setstate__ raises": Kind(THING, STATE + "raise ValueError('another version')", UnreadableValue),
    "__setstate__ raises a KeyError": Kind(THING, STATE + "self.what = state['absent']", UnreadableValue),
    "__setstate__ raises an AttributeError": Kind(THING, STATE + "self.absent.x = 1", UnreadableAttribute),
    "__setstate__ raises one of its own": Kind(
        THING, "class Odd(Exception):\n    def __init__(self, a, b): super().__init__(a)\n" + STATE + "raise Odd(1, 2)",
        UnreadableValue,
    ),
    "__setstate__ does not end": Kind(THING, STATE + "self.__setstate__(state)", UnreadableValue),
    "__setstate__ raises what has no text": Kind(
        THING,
        "class Odd(BaseException):\n    def __str__(self): raise RuntimeError\n" + STATE + "raise Odd",
        UnreadableValue,
    ),
    "__slots__ lack a name": Kind(THING, "class Thing:\n    __slots__ = ()\n", UnreadableAttribute),
    "a tuple has more fields": Kind(
        "from collections import namedtuple\nThing = namedtuple('Thing', 'x', module=__name__)\n",
        "from collections import namedtuple\nThing = namedtuple('Thing', 'x y', module=__name__)\n",
        UnreadableValue,
        make="Thing(1)",
    ),
    "an enum lacks the member": Kind(
        "import enum\nThing = enum.Enum('Thing', 'A B', module=__name__)\n",
        "import enum\nThing = enum.Enum('Thing', 'A', module=__name__)\n",
        UnreadableValue,
        make="Thing.B",
    ),
    "the function of __reduce__ raises": Kind(
        "def thing(x): return Thing()\nclass Thing:\n    def __reduce__(self): return thing, (1,)\n",
        "def thing(x): raise OSError('no such device')\n",
        UnreadableValue,
        "thing",
    ),
    "an exception wants more arguments": Kind(
        "class Thing(Exception): pass\n",
        "class Thing(Exception):\n    def __init__(self, a, b): pass\n",
        UnreadableValue,
        make="Thing('x')",
    ),
}  # fmt: skip


@contextlib.contextmanager
def module(source: str | None, folder: Path) -> Iterator[None]:
    """For the length of the block a module can be imported that says this; None: it can't."""
    file = folder / f"{MODULE}.py"
    sys.modules.pop(MODULE, None)
    if source is not None:
        file.write_text(source)
    sys.path.insert(0, str(folder))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path_importer_cache.pop(str(folder), None)
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(folder))
        sys.modules.pop(MODULE, None)
        file.unlink(missing_ok=True)


class Broken(NamedTuple):
    """A store with a bad value, message, result and item among good ones, as `db` finds it now."""

    db: PickleShareDB
    kind: Kind
    ids: list[str]

    @property
    def box(self) -> Mailbox:
        return Mailbox(self.db, "m")

    @property
    def queue(self) -> WorkQueue:
        return WorkQueue(self.db, "q")


def thing(kind: Kind) -> Any:
    there = __import__(MODULE)
    return eval(kind.make, vars(there))


def same_bucket(count: int) -> list[str]:
    """Keys that share a bucket."""
    found: dict[str, list[str]] = {}
    for number in range(10_000):
        keys = found.setdefault(gethashfile(f"item {number}"), [])
        keys.append(f"item {number}")
        if len(keys) == count:
            return keys
    raise AssertionError("no such keys")


A, BAD, C, D = same_bucket(4)


def fill(db: PickleShareDB, kind: Kind) -> list[str]:
    bad = thing(kind)
    box, queue = Mailbox(db, "m"), WorkQueue(db, "q")
    for key, value in (("a", 1), ("b", bad), ("c", [3])):
        db[key] = value
    for category in ("cat", "packed", "half"):
        for key, value in ((A, 1), (BAD, bad), (C, [3])):
            db.hset(category, key, value)
    db.hset("replaced", A, 1)
    db.hset("replaced", BAD, bad)
    db.hset("replaced", BAD, 2)
    db.hset("replaced", C, [3])
    db.hcompress("packed")
    db.hcompress("half")
    db.hset("half", D, 4)
    for key, value in ((A, 1), (BAD, bad), (C, [3])):
        box.post(key, value)
    ids = queue.put_many(range(3))
    for task, value in zip(queue, (1, bad, [3]), strict=True):
        task.done(value)
    return ids


@pytest.fixture(params=["the class is gone", "the module ends the program"])
def broken(request: pytest.FixtureRequest, harness: Harness, tmp_path: Path) -> Iterator[Broken]:
    with made(harness, KINDS[request.param], tmp_path) as store:
        yield store


@contextlib.contextmanager
def made(harness: Harness, kind: Kind, folder: Path) -> Iterator[Broken]:
    with module(kind.then, folder):
        ids = fill(PickleShareDB(harness.engine), kind)
    with module(kind.now, folder):
        yield Broken(PickleShareDB(harness.other()), kind, ids)


GOOD = {A: 1, C: [3]}
READS: dict[str, tuple[Callable[[Broken], Any], Any, str]] = {
    "[]": (lambda at: at.db["b"], "b", "the value of 'b' "),
    "get": (lambda at: at.db.get("b", 0), "b", "the value of 'b' "),
    "setdefault": (lambda at: at.db.setdefault("b", 0), "b", "the value of 'b' "),
    "pop": (lambda at: at.db.pop("b", 0), "b", "the value of 'b' "),
    "modify": (lambda at: at.db.modify("b", repr, 0), "b", "the value of 'b' "),
    "waitget": (lambda at: at.db.waitget("b", 0), "b", "the value of 'b' "),
    "waitany": (lambda at: at.db.waitany(["b", "none"], 0), "b", "the value of 'b' "),
    "hget": (lambda at: at.db.hget("cat", BAD, 0), BAD, f"the item {BAD!r} of the category 'cat' "),
    "hget of xx": (
        lambda at: at.db.hget("packed", BAD, 0, fast_only=False), BAD, f"the item {BAD!r} of the category 'packed' "
    ),
    "hwait": (lambda at: at.db.hwait("cat", BAD, 0), BAD, f"the item {BAD!r} of the category 'cat' "),
    "hpop": (lambda at: at.db.hpop("cat", BAD, 0), BAD, f"the item {BAD!r} of the category 'cat' "),
    "hpop of xx": (lambda at: at.db.hpop("half", BAD, 0), BAD, f"the item {BAD!r} of the category 'half' "),
    "Mailbox.get": (lambda at: at.box.get(BAD, 0), BAD, f"the message for {BAD!r} of the mailbox 'm' "),
    "Mailbox.take": (lambda at: at.box.take(BAD), BAD, f"the message for {BAD!r} of the mailbox 'm' "),
    "results.get": (lambda at: at.queue.results.get(at.ids[1], 0), None, "the result of task '#"),
}  # fmt: skip


@pytest.mark.parametrize("verb", READS)
def test_reading_it_names_it_and_leaves_it(broken: Broken, verb: str) -> None:
    read, key, what = READS[verb]
    for _ in range(2):
        with pytest.raises(UnreadableValue, match="can't be unpickled here") as caught:
            read(broken)
        error = pickle.loads(pickle.dumps(caught.value))
        assert type(error) is broken.kind.error
        assert str(error).startswith(what)
        assert error.key == (broken.ids[1] if key is None else key)
        assert (error.module, error.class_name) == (MODULE, "Thing")
        assert f"{MODULE}.Thing" in str(error)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_told_of_and_comes_back(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    with contextlib.closing(MemoryEngine()) as engine:
        with module(kind.then, tmp_path):
            fill(PickleShareDB(engine), kind)
        db = PickleShareDB(engine.as_owner())
        with module(kind.now, tmp_path):
            for read in (lambda: db["b"], lambda: db.hget("cat", BAD), lambda: Mailbox(db, "m").get(BAD, 0)):
                with pytest.raises(UnreadableValue) as caught:
                    read()
                assert type(caught.value) is kind.error
                assert (caught.value.class_name or "").startswith(kind.named)
                assert caught.value.__cause__ is not None
                assert type(caught.value.__cause__).__name__ in str(caught.value)
            with pytest.warns(RuntimeWarning, match=f"the item {BAD!r}"):
                assert db.hdict("cat") == GOOD
            db.hcompress("cat")
            with pytest.warns(RuntimeWarning, match=f"the item {BAD!r}"):
                assert db.hdict("cat") == GOOD
            assert db.hdict("replaced") == GOOD | {BAD: 2}
        with module(kind.then, tmp_path):
            kind_of = type(thing(kind))
            assert type(db["b"]) is kind_of
            assert type(db.hdict("cat")[BAD]) is kind_of
            assert type(db.hget("cat", BAD, fast_only=False)) is kind_of
            assert type(Mailbox(db, "m").take(BAD)) is kind_of


LISTS: dict[str, tuple[Callable[[Broken], Any], Any]] = {
    "items": (lambda at: {k: v for k, v in at.db.items() if "/" not in k}, {"a": 1, "c": [3]}),
    "values": (lambda at: [v for v in at.db.values() if type(v) is not dict].count(1), 1),
    "hdict": (lambda at: at.db.hdict("cat"), GOOD),
    "hdict of xx": (lambda at: at.db.hdict("packed"), GOOD),
    "hdict of both": (lambda at: at.db.hdict("half"), GOOD | {D: 4}),
    "items of a bucket": (lambda at: dict(at.db.items())["packed/xx"], GOOD),
    "collect": (lambda at: dict(at.box.collect(timeout=0)), GOOD),
    "collect some": (lambda at: dict(at.box.collect([C, BAD, A], timeout=5)), GOOD),
    "results.collect": (lambda at: [v for _, v in at.queue.results.collect(timeout=0)], [1, [3]]),
    "results.collect some": (lambda at: [v for _, v in at.queue.results.collect(at.ids, timeout=5)], [1, [3]]),
}


@pytest.mark.parametrize("verb", LISTS)
def test_what_lists_gives_all_others_and_tells_of_it(broken: Broken, verb: str) -> None:
    read, expected = LISTS[verb]
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=rf"can't be unpickled here.*{MODULE}\.Thing") as told:
            assert read(broken) == expected
        assert "items" in verb or verb == "values" or len(told) == 1
        assert {warning.filename for warning in told} == {__file__}


NEIGHBOURS: dict[str, Callable[[Broken], bool]] = {
    "[]": lambda at: (at.db["a"], at.db["c"]) == (1, [3]),
    "in": lambda at: "b" in at.db and at.ids[1] in at.queue.results and BAD in at.box,
    "keys": lambda at: {"a", "b", "c"} <= set(at.db.keys()),
    "hget": lambda at: (at.db.hget("cat", A), at.db.hget("cat", C)) == (1, [3]),
    "hget of xx": lambda at: at.db.hget("packed", C, fast_only=False) == [3],
    "hpop": lambda at: at.db.hpop("cat", A) == 1 and at.db.hget("cat", A, None) is None,
    "hdel": lambda at: at.db.hdel("cat", C) is None and at.db.hget("cat", A) == 1,
    "hadd": lambda at: at.db.hadd("cat", D, 4) and not at.db.hadd("cat", BAD, 4) and at.db.hget("cat", D) == 4,
    "hadd beside xx": lambda at: at.db.hadd("packed", D, 4) and not at.db.hadd("packed", BAD, 4),
    "hset": lambda at: at.db.hset("cat", D, 4) is None and at.db.hget("cat", D) == 4,
    "take": lambda at: at.box.take(C) == [3] and at.box.get(A, 0) == 1,
    "post": lambda at: at.box.post(D, 4) and not at.box.post(BAD, 5),
    "addresses": lambda at: set(at.box.addresses()) == {A, BAD, C} and len(at.box) == 3,
    "state": lambda at: at.queue.state(at.ids[1]) == "done" and at.queue.statistics().dead == 0,
}  # fmt: skip


@pytest.mark.parametrize("verb", NEIGHBOURS)
def test_its_neighbours_are_as_before(broken: Broken, verb: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert NEIGHBOURS[verb](broken)


def test_popitem_takes_all_others_first(broken: Broken) -> None:
    for key in [key for key in broken.db if "/" in key]:
        del broken.db[key]
    assert sorted(broken.db.popitem() for _ in range(2)) == [("a", 1), ("c", [3])]
    with pytest.raises(UnreadableValue, match="'b'"):
        broken.db.popitem()
    assert list(broken.db) == ["b"]


ENDS: dict[str, tuple[Callable[[Broken], Any], Callable[[Broken], Any]]] = {
    "del": (lambda at: at.db.__delitem__("b"), lambda at: "b" not in at.db),
    "clear": (lambda at: at.db.clear(), lambda at: not list(at.db)),
    "set": (lambda at: at.db.__setitem__("b", 2), lambda at: at.db["b"] == 2),
    "update": (lambda at: at.db.update(b=2), lambda at: at.db["b"] == 2),
    "hdel": (lambda at: at.db.hdel("cat", BAD), lambda at: at.db.hdict("cat") == GOOD),
    "hdel of xx": (lambda at: at.db.hdel("packed", BAD), lambda at: at.db.hdict("packed") == GOOD),
    "hset": (lambda at: at.db.hset("cat", BAD, 2), lambda at: at.db.hdict("cat") == GOOD | {BAD: 2}),
    "hset over xx": (lambda at: at.db.hset("packed", BAD, 2), lambda at: at.db.hdict("packed") == GOOD | {BAD: 2}),
    "hset over xx, compressed": (
        lambda at: (at.db.hset("packed", BAD, 2), at.db.hcompress("packed")),
        lambda at: at.db.hget("packed", BAD, fast_only=False) == 2 and at.db.hdict("packed") == GOOD | {BAD: 2},
    ),
    "hupdate": (lambda at: at.db.hupdate("cat", {BAD: 2}), lambda at: at.db.hdict("cat") == GOOD | {BAD: 2}),
    "discard": (lambda at: at.box.discard(BAD), lambda at: dict(at.box.collect(timeout=0)) == GOOD),
    "results.discard": (
        lambda at: at.queue.results.discard(at.ids[1]),
        lambda at: [v for _, v in at.queue.results.collect(timeout=0)] == [1, [3]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("verb", ENDS)
def test_it_can_be_removed_and_replaced_and_is_in_nobodys_way_then(broken: Broken, harness: Harness, verb: str) -> None:
    act, check = ENDS[verb]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        act(broken)
        assert check(broken)
        assert check(broken._replace(db=PickleShareDB(harness.other())))
    assert not broken.box.discard("nobody")
    with pytest.raises(KeyError):
        broken.db.hdel("cat", "nobody")


CARRIES: dict[str, Callable[[Broken], Any]] = {
    "hcompress": lambda at: [at.db.hcompress(category) for category in ("cat", "packed", "half", "replaced")],
    "hcompress twice": lambda at: [at.db.hcompress("cat"), at.db.hset("cat", D, 4), at.db.hcompress("cat")],
    "compact": lambda at: [at.box.compact(), at.queue.results.compact()],
    "hdel of a neighbour": lambda at: [at.db.hset("cat", D, 4), at.db.hdel("cat", D)],
    "hpop of a neighbour in xx": lambda at: at.db.hpop("half", D),
    "a bucket that outgrows its overwritten items": lambda at: [
        at.db.hset("cat", D, "x" * 10_000 + str(number)) for number in range(40)
    ],
}


@pytest.mark.parametrize("verb", CARRIES)
def test_its_bytes_are_carried_along_unread(broken: Broken, harness: Harness, verb: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CARRIES[verb](broken)
    with pytest.warns(RuntimeWarning, match="the item"):
        assert {key: value for key, value in broken.db.hdict("cat").items() if key != D} == GOOD
    with module(broken.kind.then, tmp_path):
        all_of_it_is_back(broken._replace(db=PickleShareDB(harness.other())))
        all_of_it_is_back(broken)


def all_of_it_is_back(at: Broken) -> None:
    made = type(thing(at.kind))
    found = (
        at.db["b"],
        at.db.hdict("cat")[BAD],
        at.db.hget("cat", BAD, fast_only=False),
        at.db.hdict("packed")[BAD],
        at.db.hget("half", BAD, fast_only=False),
        at.box.get(BAD, 0),
        at.queue.results.get(at.ids[1], 0),
    )
    assert {type(each) for each in found} == {made}
    assert {each.inside for each in found} == {1}
    assert at.db.hget("replaced", BAD, fast_only=False) == 2
    assert at.db.hget("cat", C, fast_only=False) == [3]


def test_a_copy_of_the_store_has_it_too(broken: Broken, tmp_path: Path) -> None:
    with contextlib.closing(MemoryEngine()) as engine:
        assert copy_store(broken.db, PickleShareDB(engine)).differences == ()
        with module(broken.kind.then, tmp_path):
            all_of_it_is_back(broken._replace(db=PickleShareDB(engine)))


@pytest.mark.parametrize(
    "name", ["the class is gone", "__setstate__ raises", "__setstate__ wants too much", "the module ends the program"]
)
def test_a_task_that_no_worker_here_can_read_is_dead_and_the_others_come(
    name: str, harness: Harness, tmp_path: Path
) -> None:
    kind = KINDS.get(name) or Kind(THING, STATE + "raise MemoryError", MemoryError)
    with module(kind.then, tmp_path):
        ids = WorkQueue(harness.engine, "q").put_many([1, thing(kind), 3])
    with module(kind.now, tmp_path):
        queue = WorkQueue(harness.other(), "q")
        assert queue.get(timeout=0).value == 1
        assert queue.get(timeout=0).value == 3
        (dead,) = queue.dead()
        assert dead.id == ids[1]
        assert type(dead.value) is kind.error
        told = "can't be read here: MemoryError"
        if isinstance(dead.value, UnreadableValue):
            assert (dead.value.key, dead.value.class_name) == (ids[1], "Thing")
            told = f"the value of task {ids[1]!r} of the queue 'q' can't be unpickled here"
        assert [told in attempt.error for attempt in dead.history] == [True] * 3
        assert queue.revive() == [ids[1]]
    with module(kind.then, tmp_path):
        assert type(queue.get(timeout=0).value) is type(thing(kind))


def test_a_class_that_is_defined_anew_is_no_hindrance(harness: Harness, tmp_path: Path) -> None:
    """As in a notebook whose cell is run again: the objects that were read before are of the class that was."""
    kind = KINDS["the class is gone"]
    db = PickleShareDB(harness.engine)
    with module(kind.then, tmp_path):
        fill(db, kind)
        old = type(db.hget("cat", BAD))
        db.hget("packed", BAD, fast_only=False)
    with module(kind.then, tmp_path):
        new = type(thing(kind))
        assert new is not old
        assert type(db.hget("cat", BAD)) is new
        assert type(db.hget("packed", BAD, fast_only=False)) is new
    with module(kind.then, tmp_path):
        assert db.hpop("cat", C) == [3]
        db.hset("packed", D, 4)
        assert db.hpop("packed", C) == [3]
        db.hcompress("cat")
        assert type(db.hpop("cat", BAD)).__name__ == "Thing"


def test_an_item_whose_key_cannot_be_read_is_carried_along(harness: Harness, tmp_path: Path) -> None:
    kind = Kind("import enum\nThing = enum.Enum('Thing', 'A B', module=__name__)\n", "", UnreadableAttribute)
    with module(kind.then, tmp_path):
        db = PickleShareDB(harness.engine)
        key = __import__(MODULE).Thing.A
        db.hupdate("cat", {key: "its value", "other": 1})
    with module(kind.now, tmp_path):
        db = PickleShareDB(harness.other())
        for _ in range(2):
            with pytest.warns(RuntimeWarning, match=f"the key of an item of the category 'cat' .*{MODULE}.Thing"):
                assert db.hdict("cat") == {"other": 1}
            db.hcompress("cat")
        assert db.hget("cat", "other", fast_only=False) == 1
    with module(kind.then, tmp_path):
        assert db.hdict("cat") == {__import__(MODULE).Thing.A: "its value", "other": 1}


@pytest.mark.parametrize("error", [TimeoutError, SystemExit, KeyboardInterrupt])
def test_a_handlers_exception_is_not_taken_for_the_values(harness: Harness, error: type[BaseException]) -> None:
    """Unpickling calls code of others, where a signal's handler may raise: that is not the value's fault."""
    db = PickleShareDB(harness.engine)
    db["a"] = Once()
    db.hset("cat", A, Once())
    for read in (lambda: db["a"], lambda: db.hget("cat", A), lambda: db.hdict("cat"), lambda: list(db.items())):
        for forget in (db.uncache, bool):  # what was read before is copied, which calls the same code
            forget()
            Once.interrupt = error
            with pytest.raises(error):
                read()
            assert Once.interrupt is None
            assert read()


class Once:
    """Unpickling it is interrupted, once."""

    interrupt: type[BaseException] | None = None

    def __setstate__(self, state: Any) -> None:
        error, Once.interrupt = Once.interrupt, None
        if error is not None:
            raise error("the alarm clock")

    def __getstate__(self) -> int:
        return 1
