"""The contract of buckets that are held, replaced, dropped, or overwritten as cells."""

from __future__ import annotations

import pytest

from psync.engine import Engine
from tests.contract.harness import Harness, Job
from tests.contract.payloads import (
    Follower,
    bucket_dict,
    dict_of,
    held_tail,
    item,
    items,
    loaded,
    loaded_items,
    pickled,
)
from tests.support import scaled

NAME = "cat/a3"

# -- held ------------------------------------------------------------------------------------------


def test_who_holds_a_bucket_sees_and_extends_it(harness: Harness) -> None:
    bucket = harness.engine.bucket(NAME)
    bucket.append(item(1, 1))
    before = bucket.tail()
    assert before is not None
    with bucket.held() as held:
        assert held_tail(held) == {1: 1}
        assert held is not None
        held.append(item(2, 2))
        since = held.tail(before.position)
        assert not since.whole and loaded_items(since) == {2: 2}
    assert bucket_dict(harness.other(), NAME) == {1: 1, 2: 2}
    assert bucket.append(item(3, 3))


def test_who_appends_to_a_held_bucket_is_told_where_it_ends(harness: Harness) -> None:
    bucket, other = harness.engine.bucket(NAME), harness.other().bucket(NAME)
    bucket.append(item(1, 1))
    with bucket.held() as held:
        assert held is not None
        assert held_tail(held) == {1: 1}
        held.append(item(2, 2))
        end = held.append(item(3, 3))
        tail = held.tail(end)
        assert (tail.whole, tail.ops, tail.position) == (False, b"", end)
    other.append(item(4, 4))
    since = bucket.tail(end)
    assert since is not None and not since.whole and loaded_items(since) == {4: 4}


@pytest.mark.parametrize("durable", [False, True])
def test_a_replaced_bucket_is_read_from_its_start_again(harness: Harness, durable: bool) -> None:
    bucket, other = harness.engine.bucket(NAME), harness.other().bucket(NAME)
    bucket.append(items({1: 1, 2: 2, 3: 3}))
    mine, theirs = bucket.tail(), other.tail()
    assert mine is not None and theirs is not None
    with bucket.held() as held:
        assert held is not None
        held.replace(items({2: 22}), durable=durable)
    for handle, since in ((bucket, mine), (other, theirs)):
        tail = handle.tail(since.position)
        assert dict_of(tail) == {2: 22} and tail is not None
        later = handle.tail(tail.position)
        assert later is not None and not later.whole and later.ops == b""


def test_a_bucket_can_be_used_on_while_it_is_held_after_being_replaced(engine: Engine) -> None:
    bucket = engine.bucket(NAME)
    bucket.append(item(1, 1))
    with bucket.held() as held:
        assert held is not None
        held.replace(item(2, 2))
        assert held_tail(held) == {2: 2}
        held.append(item(3, 3))
        assert held_tail(held) == {2: 2, 3: 3}
        held.replace(item(4, 4))
        held.append(item(5, 5))
    assert bucket_dict(engine, NAME) == {4: 4, 5: 5}


def test_a_bucket_replaced_by_items_of_the_same_size_is_noticed(harness: Harness) -> None:
    bucket, follower = harness.engine.bucket(NAME), Follower(harness.other().bucket(NAME))
    bucket.append(item("k", -1))
    for turn in range(100):
        with bucket.held() as held:
            assert held is not None
            held.replace(item("k", turn + 1000))
        assert follower.look() == {"k": turn + 1000}


def test_a_bucket_dropped_and_begun_anew_is_noticed(harness: Harness) -> None:
    bucket, other = harness.engine.bucket(NAME), harness.other().bucket(NAME)
    follower, keeper = Follower(bucket), Follower(other)
    for turn in range(100):
        assert (bucket if turn % 3 else other).append(item("k", turn + 1000))
        assert follower.look() == {"k": turn + 1000}
        assert keeper.look() == {"k": turn + 1000}
        with (bucket if turn % 2 else other).held() as held:
            assert held is not None
            held.drop()
        if turn % 5 == 0:  # otherwise who follows never sees that it was gone
            assert keeper.look() is None
    assert harness.engine.read(NAME) is None


def test_a_handle_kept_open_goes_on_after_somebody_else_replaced_the_bucket(harness: Harness) -> None:
    kept = harness.engine.bucket(NAME)
    kept.append(item("old", 0))

    def replace(engine: Engine) -> None:
        with engine.bucket(NAME).held() as held:
            assert held is not None
            held.replace(item("new", 0))

    for turn in range(5):
        harness.crowd([replace])
        assert kept.append(item(turn, turn))
        assert bucket_dict(harness.other(), NAME) == {"new": 0, turn: turn}


def test_flags_stay_with_the_bucket_until_it_is_replaced(harness: Harness) -> None:
    bucket = harness.engine.bucket(NAME)
    bucket.append(item(1, 1))
    for flags in (0, 1, 2, 255, 0):
        with bucket.held() as held:
            assert held is not None
            held.replace(item(flags, flags), flags=flags)
            assert held.tail().flags == flags
        since = bucket.tail()
        assert since is not None and since.flags == flags
        bucket.append(item("more", 1))
        for handle in (bucket, harness.other().bucket(NAME)):
            tail = handle.tail()
            assert tail is not None and tail.flags == flags
        later = bucket.tail(since.position)
        assert later is not None and later.flags == flags and not later.whole


def test_a_held_bucket_keeps_appends_holders_and_cell_writes_out(harness: Harness) -> None:
    """Each holder reads, then writes what it read plus one: any change in between would be lost."""
    name, count = NAME, scaled(40)
    harness.engine.bucket(name).append(item("n", 0))

    def hold(engine: Engine) -> None:
        for _ in range(count):
            with engine.bucket(name).held() as held:
                found = held_tail(held)
                assert held is not None and found is not None
                number = found["n"]
                assert isinstance(number, int)
                found["n"] = number + 1
                if number % 3:
                    held.replace(items(found))
                else:
                    held.append(item("n", number + 1))

    def append(engine: Engine) -> None:
        for turn in range(count):
            engine.bucket(name).append(item(turn, turn))

    def add(engine: Engine) -> None:
        for _ in range(count):
            engine.update(name, lambda old: pickled({**loaded(old), "n": loaded(old)["n"] + 1}) if old else None)
            with engine.bucket(name).held() as held:  # what a cell write left is foreign, and no append is taken
                found = held_tail(held)
                assert held is not None and found is not None
                held.replace(items(found))

    harness.crowd([hold, hold, hold])
    found = bucket_dict(harness.engine, name)
    assert found == {"n": 3 * count}
    harness.crowd([hold, hold, append])
    found = bucket_dict(harness.engine, name)
    assert found == {"n": 5 * count} | {turn: turn for turn in range(count)}
    harness.crowd([add, hold_foreign(name, count), add])
    found = bucket_dict(harness.engine, name)
    assert found is not None and found["n"] == 8 * count


def hold_foreign(name: str, count: int) -> Job:
    def hold(engine: Engine) -> None:
        for _ in range(count):
            with engine.bucket(name).held() as held:
                found = held_tail(held)
                assert held is not None and found is not None
                held.replace(items({**found, "n": int(str(found["n"])) + 1}))

    return hold


def test_a_block_that_raises_lets_go_of_the_bucket(harness: Harness) -> None:
    bucket = harness.engine.bucket(NAME)
    bucket.append(item(1, 1))
    with pytest.raises(ZeroDivisionError), bucket.held():
        raise ZeroDivisionError
    assert harness.other().bucket(NAME).append(item(2, 2))
    assert bucket_dict(harness.engine, NAME) == {1: 1, 2: 2}


def test_a_bucket_held_by_a_process_that_is_killed_is_free(harness: Harness) -> None:
    harness.engine.bucket(NAME).append(item(1, 1))
    kept = []

    def hold(engine: Engine) -> None:
        block = engine.bucket(NAME).held()
        kept.append((block, block.__enter__()))

    harness.killed(hold)
    assert harness.engine.bucket(NAME).append(item(2, 2))
    assert bucket_dict(harness.engine, NAME) == {1: 1, 2: 2}


def test_a_dropped_bucket_is_gone_and_can_be_begun_again(harness: Harness) -> None:
    bucket, other = harness.engine.bucket(NAME), harness.other().bucket(NAME)
    bucket.append(item(1, 1))
    assert other.tail() is not None
    with bucket.held() as held:
        assert held is not None
        held.drop()
    assert bucket.tail() is None and other.tail() is None
    assert harness.engine.create(NAME, pickled({})) and harness.engine.delete(NAME)
    assert other.append(item(2, 2))
    assert bucket_dict(harness.engine, NAME) == {2: 2}


# -- buckets and cells -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_cell_written_at_a_buckets_name_is_a_foreign_tail(harness: Harness, size: int) -> None:
    theirs = {"b": "v" * size}
    bucket = harness.engine.bucket(NAME)
    bucket.append(item("a", 1))
    since = bucket.tail()
    assert since is not None
    harness.other().write(NAME, pickled(theirs))
    for position in (None, since.position):
        tail = bucket.tail(position)
        assert tail is not None and tail.foreign and tail.whole and loaded(tail.ops) == theirs
        again = bucket.tail(tail.position)
        assert again is not None and again.foreign
        assert (again.whole, again.ops) in ((False, b""), (True, tail.ops))
    assert bucket.append(item("c", 1)) == 0
    assert harness.other().bucket(NAME).append(item("c", 1)) == 0
    cell = harness.engine.read(NAME)
    assert cell is not None and cell.payload == pickled(theirs)


def test_a_foreign_tail_is_noticed_each_time_it_changes(harness: Harness) -> None:
    follower = Follower(harness.engine.bucket(NAME))
    for turn in range(50):
        harness.other().write(NAME, pickled({"k": turn + 1000}))
        assert follower.look() == {"k": turn + 1000}
        assert follower.look() == {"k": turn + 1000}


def test_a_foreign_pickle_can_be_held_and_replaced(harness: Harness) -> None:
    harness.engine.write(NAME, pickled({"a": 1}))
    bucket = harness.engine.bucket(NAME)
    with bucket.held() as held:
        assert held is not None
        assert held.tail().foreign and loaded(held.tail().ops) == {"a": 1}
        held.replace(item("a", 1))
        assert not held.tail().foreign
    assert bucket.append(item("b", 2))
    assert bucket_dict(harness.other(), NAME) == {"a": 1, "b": 2}


def test_a_foreign_pickle_is_not_extended_by_its_holder_either(engine: Engine) -> None:
    engine.write(NAME, pickled({"a": 1}))
    with engine.bucket(NAME).held() as held:
        assert held is not None
        with pytest.raises(ValueError):
            held.append(item("b", 2))
    assert bucket_dict(engine, NAME) == {"a": 1}


def test_cell_verbs_work_on_a_bucket(harness: Harness) -> None:
    engine, bucket = harness.engine, harness.engine.bucket(NAME)
    bucket.append(item(1, 1))
    assert engine.create(NAME, pickled({})) is False
    assert engine.update(NAME, lambda old: None) is not None
    assert list(engine.list()) == [NAME]
    assert engine.move(NAME, "cat/b4")
    assert bucket.tail() is None
    assert bucket_dict(harness.other(), "cat/b4") == {1: 1}
    assert engine.bucket("cat/b4").append(item(2, 2))
    cell = engine.pop("cat/b4")
    assert cell is not None and loaded(cell.payload) == {1: 1, 2: 2}
    assert engine.bucket("cat/b4").tail() is None
    assert bucket.append(item(3, 3)) and engine.delete(NAME) and bucket.tail() is None


def test_an_update_of_a_bucket_gets_and_leaves_a_whole_pickle(harness: Harness) -> None:
    bucket = harness.engine.bucket(NAME)
    bucket.append(item(1, 1))
    bucket.append(item(2, 2))
    new = harness.engine.update(NAME, lambda old: pickled({**loaded(old or b""), 3: 3}))
    assert new is not None and loaded(new) == {1: 1, 2: 2, 3: 3}
    tail = bucket.tail()
    assert tail is not None and tail.foreign and dict_of(tail) == {1: 1, 2: 2, 3: 3}


def test_a_known_cell_is_not_served_once_its_bucket_has_grown(engine: Engine) -> None:
    known = None
    for turn in range(100):
        engine.bucket(NAME).append(item(turn, turn))
        known = engine.read(NAME, known)
        assert known is not None and len(loaded(known.payload)) == turn + 1
