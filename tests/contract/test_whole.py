"""Looking at the whole of a store: what stands in it, and who is there."""

from __future__ import annotations

import pytest

from psync.engine import Engine
from psync.engine.contract.report import Facts, Shape
from psync.engine.contract.values import Alive
from tests.contract.harness import Harness
from tests.contract.marks import LOG
from tests.contract.payloads import pickle_of

ONE, TWO, LARGE = pickle_of(10), pickle_of(100), pickle_of(10_000)
ITEM = b"\x8c\x03key\x8c\x05values"


def test_nothing_is_known_of_what_nobody_used(engine: Engine) -> None:
    assert [*engine.walk()] == [] and [*engine.walk(".psync/event")] == []
    assert engine.facts("a") is None
    assert [*engine.mutexes()] == []


def test_a_walk_comes_by_every_shape(engine: Engine) -> None:
    engine.write("a", ONE)
    engine.write("folder/deeper/b", TWO)
    engine.write(".psync/own/cell", ONE)
    engine.bucket("category/3f").append(ITEM)
    engine.write("f/xx", ONE)
    engine.log(LOG).append([b"record"])
    engine.register(".psync/event/of it").update(lambda old: b"state")
    engine.register(".psync/event/never set").read()
    engine.mutex("lock/door").acquire()
    assert engine.is_used()
    own = {
        (Shape.CELL, ".psync/own/cell"),
        (Shape.REGISTER, ".psync/event/of it"),
        (Shape.LOG, LOG),
    }
    others = {(Shape.CELL, "a"), (Shape.CELL, "folder/deeper/b"), (Shape.BUCKET, "category/3f"), (Shape.CELL, "f/xx")}
    assert {*engine.walk()} == own | others
    assert {*engine.walk(".psync")} == {each for each in own if each[1].startswith(".psync/")}
    assert {*engine.walk("folder")} == {(Shape.CELL, "folder/deeper/b")}
    assert [*engine.mutexes()] == ["lock/door"]
    engine.mutex("lock/door").release()


def test_what_was_set_aside_is_not_walked_by(harness: Harness) -> None:
    engine = harness.engine
    engine.write("a", ONE)
    assert engine.set_aside("a", "a test does it", ())
    assert [*engine.walk()] == []


def test_facts_tell_the_size_without_reading(engine: Engine) -> None:
    engine.write("a", ONE)
    engine.write("b", LARGE)
    small, large = engine.facts("a"), engine.facts("b")
    assert isinstance(small, Facts) and isinstance(large, Facts)
    assert len(ONE) <= small.size < 1000
    assert len(LARGE) <= large.size < 11_000


def test_who_is_at_work_is_listed_until_it_leaves(harness: Harness) -> None:
    other = harness.other()
    mine, theirs = harness.engine.owner(), other.owner()
    assert {each.owner: each.alive for each in harness.engine.processes()} == {mine: Alive.YES, theirs: Alive.YES}
    other.close()
    assert [each.owner for each in harness.engine.processes()] == [mine]


@pytest.mark.parametrize("name", ["k", "a key"])
def test_names_come_back_as_they_were_given(engine: Engine, name: str) -> None:
    engine.write(f"{name}/{name}*[x]?", ONE)
    assert [*engine.walk()] == [(Shape.CELL, f"{name}/{name}*[x]?")]
