"""What is promised of every kind of primitive: one name is one primitive, for every handle in every process."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from psync import (
    Barrier,
    Counter,
    Latch,
    Lock,
    Mailbox,
    MemoryEngine,
    PickleShareDB,
    Semaphore,
    WorkQueue,
)
from psync.engine import open_engine
from psync.sync.primitive import Primitive
from psync.sync.read_write_lock import View
from tests.concurrency.simultaneous import in_threads
from tests.support import fresh_in
from tests.sync.kinds import BY_NAME, KINDS, Kind, each_kind, everything_in
from tests.sync.other_process import Channel, other_process

PLACES: dict[str, Callable[[Path], Any]] = {
    "a path": lambda root: root,
    "a path as text": str,
    "a store": PickleShareDB,
    "an engine": open_engine,
}


@each_kind
def test_handles_of_one_name_are_one_primitive_however_its_place_was_given(kind: Kind, root: Path) -> None:
    for place in PLACES.values():
        here = fresh_in(root)
        mine, theirs = kind.make(here), kind.make(place(here))
        assert (kind.look(mine), kind.look(theirs)) == (kind.before, kind.before)
        kind.change(theirs)
        assert (kind.look(mine), kind.look(theirs)) == (kind.after, kind.after)


@pytest.mark.parametrize("names", [("a", "a/log"), ("a/b/00", "a/b"), ("a", "a%2Fb"), ("a/b", "a%2Fb")])
@pytest.mark.parametrize(
    ("make", "leave", "find"),
    [
        (Counter, Counter.add, lambda counter: counter.value),
        (WorkQueue, WorkQueue.put, lambda queue: queue.get(timeout=0).value),
        (Mailbox, lambda mailbox, number: mailbox.post("to", number), lambda mailbox: mailbox.get("to", timeout=0)),
    ],
)
def test_a_name_is_no_folder_of_another(
    make: Callable[[Path, str], Any],
    leave: Callable[[Any, int], object],
    find: Callable[[Any], int],
    names: tuple[str, str],
    root: Path,
) -> None:
    first, second = (make(root, name) for name in names)
    leave(first, 1)
    leave(second, 2)
    assert (find(first), find(second)) == (1, 2)


@each_kind
def test_it_works_on_an_engine_in_memory(kind: Kind) -> None:
    engine = MemoryEngine()
    mine, theirs = kind.make(engine), kind.make(engine)
    assert kind.look(mine) == kind.before
    in_threads([lambda: kind.change(theirs)])
    assert kind.look(mine) == kind.after


@each_kind
def test_what_another_process_did_is_seen_here(kind: Kind, root: Path) -> None:
    mine = kind.make(root)
    assert kind.look(mine) == kind.before

    def change(talk: Channel) -> None:
        kind.change(kind.make(root))
        talk.say("changed")
        talk.hear()

    with other_process(change) as other:
        other.hear()
        assert kind.look(mine) == kind.look(kind.make(root)) == kind.after


@each_kind
def test_what_was_done_here_is_seen_by_another_process(kind: Kind, root: Path) -> None:
    mine = kind.make(root)

    def look(talk: Channel) -> None:
        theirs = kind.make(root)
        talk.say(kind.look(theirs))
        talk.hear()
        talk.say((kind.look(theirs), kind.look(kind.make(root))))

    with other_process(look) as other:
        assert other.hear() == kind.before
        kind.change(mine)
        other.tell()
        assert other.hear() == (kind.after, kind.after)


def in_a_spawned_process(primitives: dict[str, Any], talk: Connection) -> None:
    talk.send({name: BY_NAME[name].look(primitive) for name, primitive in primitives.items()})
    for name, primitive in primitives.items():
        BY_NAME[name].change(primitive)
    talk.send("changed")
    talk.recv()


def test_all_kinds_travel_to_a_spawned_process_as_its_arguments(root: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    primitives = {kind.name: kind.make(root) for kind in KINDS}
    mine, theirs = spawn.Pipe()
    process = spawn.Process(target=in_a_spawned_process, args=(primitives, theirs))
    process.start()
    with mine, theirs:
        assert mine.poll(60) and mine.recv() == {kind.name: kind.before for kind in KINDS}
        assert mine.poll(60) and mine.recv() == "changed"
        assert {name: BY_NAME[name].look(one) for name, one in primitives.items()} == {
            kind.name: kind.after for kind in KINDS
        }
        mine.send("go")
        process.join(60)
    assert process.exitcode == 0
    process.close()


@each_kind
def test_it_comes_out_of_pickle_as_another_handle_of_the_same(kind: Kind, root: Path) -> None:
    mine = kind.make(root)
    sent = [pickle.dumps(mine, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    kind.change(mine)
    for theirs in map(pickle.loads, [*sent, pickle.dumps(mine)]):
        assert type(theirs) is type(mine) and theirs is not mine
        assert kind.look(theirs) == kind.after
        assert repr(theirs) == repr(mine)


def test_the_arguments_it_was_made_with_travel_along(root: Path) -> None:
    barrier = pickle.loads(pickle.dumps(Barrier(root, "x", 1, action=print, timeout=2.5)))
    assert (barrier.parties, barrier._action, barrier._timeout) == (1, print, 2.5)
    assert pickle.loads(pickle.dumps(Counter(root, "x", 5))).start == 5
    assert pickle.loads(pickle.dumps(Latch(root, "x", 3))).count == 3
    assert pickle.loads(pickle.dumps(Semaphore(root, "x", 4))).get_value() == 4


def test_a_lock_that_is_held_is_not_held_by_the_one_it_is_sent_to(root: Path) -> None:
    lock = Lock(root, "x")
    sent = pickle.dumps(lock)
    assert lock.acquire()

    def receive(talk: Channel) -> None:
        received = pickle.loads(sent)
        talk.say((received.token, received.locked(), received.acquire(blocking=False)))

    with other_process(receive) as other:
        assert other.hear() == (0, True, False)
    assert lock.token and lock.locked()


# -- looking ---------------------------------------------------------------------------------------


def look_at(primitive: Any) -> list[Any]:
    """Every way to look."""
    if isinstance(primitive, View):
        return [primitive.locked(), repr(primitive), look_at(primitive._lock)]
    looks: list[Any] = [repr(primitive), primitive.statistics()]
    for name in ("locked", "holder", "leader", "is_leader", "is_set", "members", "get_value", "__len__"):
        if hasattr(primitive, name):
            looks.append(getattr(primitive, name)())
    for name in ("n_waiting", "broken", "parties", "count", "value", "token", "inside"):
        looks.append(getattr(primitive, name, None))
    return looks


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name != "WorkQueue"], ids=lambda kind: kind.name)
def test_looking_changes_nothing(kind: Kind, root: Path) -> None:
    """Not before it was ever used, not while it is in use, and not when who used it was killed. (But for a queue: the
    files of its log come into being, empty, when somebody looks first.)"""
    primitive = kind.make(open_engine(root))
    before = everything_in(root)
    look_at(primitive)
    assert everything_in(root) == before

    def change(talk: Channel) -> None:
        kind.change(kind.make(root))
        talk.say("changed")
        talk.hear()

    with other_process(change) as other:
        other.hear()
        before = everything_in(root)
        assert str(look_at(primitive)) == str(look_at(primitive))
        assert everything_in(root) == before
        other.kill()
        look_at(primitive)
        assert everything_in(root) == before


@each_kind
def test_statistics_are_frozen(kind: Kind, root: Path) -> None:
    primitive = kind.make(root)
    statistics = (primitive._lock if isinstance(primitive, View) else primitive).statistics()
    assert isinstance(statistics, tuple) and statistics._fields
    for field in statistics._fields:
        with pytest.raises(AttributeError):
            setattr(statistics, field, 1)
    assert pickle.loads(pickle.dumps(statistics)) == statistics


@each_kind
def test_its_repr_tells_its_state(kind: Kind, root: Path) -> None:
    mine, theirs = kind.make(root), kind.make(PickleShareDB(root))
    assert re.fullmatch(kind.says[0], repr(mine))
    kind.change(theirs)
    assert re.fullmatch(kind.says[1], repr(mine))


def test_every_kind_is_in_the_table() -> None:
    def kinds(base: type[Any]) -> set[type[Any]]:
        return {base}.union(*map(kinds, base.__subclasses__()))

    engine = MemoryEngine()
    listed = {type(one._lock if isinstance(one, View) else one) for one in (kind.make(engine) for kind in KINDS)}
    public = {kind for kind in kinds(Primitive) if not kind.__name__.startswith("_") and kind is not Primitive}
    assert {kind for kind in public if kind.__module__.startswith("psync.")} <= listed
