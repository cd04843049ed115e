"""The contract of buckets: a dict that grows at its end, stored as one pickle at every instant."""

from __future__ import annotations

import time

import pytest

from psync.engine import Engine
from tests.contract.harness import Harness, Job, threads
from tests.contract.payloads import (
    Follower,
    bucket_dict,
    dict_of,
    item,
    items,
    loaded,
    loaded_items,
    pickle_of,
    pickled,
)
from tests.support import scaled

NAME = "cat/a3"

# -- append and tail -------------------------------------------------------------------------------


def test_the_tails_of_several_buckets_are_what_each_of_them_has(harness: Harness) -> None:
    mine, theirs = harness.engine, harness.other()
    theirs.bucket("cat/a").append(item("a", 1))
    theirs.bucket("cat/b").append(item("b", 1))
    theirs.write("cat/c", pickled({"old": 1}))
    first = dict(mine.tails(dict.fromkeys(["cat/b", "cat/none", "cat/a", "cat/c"])))
    assert list(first) == ["cat/b", "cat/none", "cat/a", "cat/c"]
    assert [dict_of(tail) for tail in first.values()] == [{"b": 1}, None, {"a": 1}, {"old": 1}]
    theirs.bucket("cat/a").append(item("c", 2))
    again = dict(mine.tails({name: first[name].position for name in ("cat/a", "cat/b")}))  # type: ignore[union-attr]
    assert [(tail.whole, loaded_items(tail)) for tail in again.values() if tail] == [(False, {"c": 2}), (False, {})]
    assert dict(mine.tails({})) == {}


def test_a_bucket_that_was_never_begun_has_no_tail(engine: Engine) -> None:
    assert engine.bucket(NAME).tail() is None
    with engine.bucket(NAME).held() as held:
        assert held is None
    assert engine.read(NAME) is None


def test_what_was_appended_is_the_dict(harness: Harness) -> None:
    bucket = harness.engine.bucket(NAME)
    assert bucket.append(item("a", 1))
    assert bucket.append(items({"b": 2, ("c", 3): [None]}))
    assert bucket.append(item("a", 4))
    for engine in (harness.engine, harness.other()):
        assert bucket_dict(engine, NAME) == {"a": 4, "b": 2, ("c", 3): [None]}


def test_a_bucket_is_one_pickle_at_every_instant(harness: Harness) -> None:
    other = harness.other()
    for turn in range(5):
        harness.engine.bucket(NAME).append(item(turn, "v" * 1500 * turn))
        cell = other.read(NAME)
        assert cell is not None and list(loaded(cell.payload)) == list(range(turn + 1))


def test_a_tail_holds_only_what_came_since(engine: Engine) -> None:
    bucket = engine.bucket(NAME)
    bucket.append(items({1: 1, 2: 2}))
    first = bucket.tail()
    assert first is not None and first.whole and not first.foreign and first.flags == 0
    assert loaded_items(first) == {1: 1, 2: 2}
    bucket.append(item(3, 3))
    bucket.append(item(4, 4))
    second = bucket.tail(first.position)
    assert second is not None and not second.whole and loaded_items(second) == {3: 3, 4: 4}
    third = bucket.tail(second.position)
    assert third is not None and not third.whole and third.ops == b""
    again = bucket.tail(first.position)
    assert again is not None and not again.whole and loaded_items(again) == {3: 3, 4: 4}
    whole = bucket.tail()
    assert whole is not None and whole.whole and loaded_items(whole) == {1: 1, 2: 2, 3: 3, 4: 4}


def test_a_position_is_followed_by_any_handle_of_the_process(engine: Engine) -> None:
    follower = Follower(engine.bucket(NAME))
    expected = {}
    for turn in range(20):
        engine.bucket(NAME).append(item(turn, turn))
        expected[turn] = turn
        follower.bucket = engine.bucket(NAME)
        assert follower.look() == expected
    assert follower.wholes == 1


@pytest.mark.parametrize("size", [0, 200, 4090, 5000, 1 << 20])
def test_items_of_any_size_can_be_appended(harness: Harness, size: int) -> None:
    value = pickle_of(max(8, size))[:size]  # bytes that no compression would shrink
    follower = Follower(harness.other().bucket(NAME))
    expected: dict[object, object] = {}
    ops = [b"K\x01B" + size.to_bytes(4, "little") + value + b"s", item("small", 1)] * 2
    for op, key, new in zip(ops, (1, "small") * 2, (value, 1) * 2, strict=True):
        assert harness.engine.bucket(NAME).append(op)
        expected[key] = new
        assert follower.look() == expected
    assert bucket_dict(harness.engine, NAME) == expected


def test_thousands_of_appends_across_pages_stay_one_dict(harness: Harness) -> None:
    count = scaled(3000)
    bucket, follower = harness.engine.bucket(NAME), Follower(harness.other().bucket(NAME))
    for turn in range(count):
        assert bucket.append(item(turn, b"v" * (turn % 97)))
        if turn % 50 == 0:
            follower.look()
    expected = {turn: b"v" * (turn % 97) for turn in range(count)}
    assert follower.look() == expected and follower.wholes == 1
    assert bucket_dict(harness.other(), NAME) == expected


def test_an_empty_append_begins_an_empty_dict(engine: Engine) -> None:
    assert engine.bucket(NAME).append(b"")
    assert bucket_dict(engine, NAME) == {}
    assert engine.bucket(NAME).append(item(1, 1))
    assert bucket_dict(engine, NAME) == {1: 1}


# -- many at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 3000])
def test_appends_of_many_are_in_one_order_and_none_is_lost(harness: Harness, size: int) -> None:
    count = scaled(100)

    def job(who: int) -> Job:
        def append(engine: Engine) -> None:
            bucket = engine.bucket(NAME)
            for turn in range(count):
                assert bucket.append(item((who, turn), "v" * size))

        return append

    harness.crowd([job(who) for who in range(4)])
    found = bucket_dict(harness.engine, NAME)
    assert found is not None and len(found) == 4 * count
    for who in range(4):  # a dict keeps the order of its items
        assert [turn for one, turn in found if one == who] == list(range(count))


def test_threads_may_share_a_bucket(harness: Harness) -> None:
    bucket = harness.engine.bucket(NAME)

    def append(who: int) -> None:
        for turn in range(scaled(100)):
            assert bucket.append(item((who, turn), "v" * 50))

    threads([lambda who=who: append(who) for who in range(6)])
    found = bucket_dict(harness.other(), NAME)
    assert found is not None and len(found) == 6 * scaled(100)


def test_readers_beside_appends_see_every_prefix_whole(harness: Harness) -> None:
    count = scaled(300)

    def appending(engine: Engine) -> bool:
        for turn in range(count):
            engine.bucket(NAME).append(item(turn, "v" * (turn * 37 % 5000)))
        return True

    def reading(engine: Engine) -> bool:
        follower, good = Follower(engine.bucket(NAME)), True
        while good and len(follower.look() or ()) < count:
            good = list(follower.items or ()) == list(range(len(follower.items or ())))
        return good and follower.wholes == 1

    assert all(harness.crowd([appending, reading, reading]))


def test_of_many_who_begin_a_bucket_nobodys_items_are_lost(harness: Harness) -> None:
    def job(who: int) -> Job:
        def append(engine: Engine) -> None:
            for turn in range(scaled(30)):
                engine.bucket(f"c{turn}/0f").append(item(who, turn))

        return append

    harness.crowd([job(who) for who in range(6)])
    for turn in range(scaled(30)):
        assert bucket_dict(harness.engine, f"c{turn}/0f") == dict.fromkeys(range(6), turn)


# -- several buckets at one instant ----------------------------------------------------------------


def test_appends_to_several_buckets_are_all_there(harness: Harness) -> None:
    harness.engine.bucket("c/01").append(item("old", 0))
    harness.engine.append_all({"c/01": item(1, 1), "c/02": items({2: 2, 3: 3}), "d/e/03": item(4, 4)})
    other = harness.other()
    assert [bucket_dict(other, name) for name in ("c/01", "c/02", "d/e/03")] == [{"old": 0, 1: 1}, {2: 2, 3: 3}, {4: 4}]
    harness.engine.append_all({})
    other.append_all({"c/01": item(5, 5)})
    assert bucket_dict(harness.engine, "c/01") == {"old": 0, 1: 1, 5: 5}
    assert sorted(other.list()) == ["c/01", "c/02", "d/e/03"]


def test_appends_to_several_buckets_are_none_of_them_if_one_is_foreign(harness: Harness) -> None:
    harness.engine.bucket("c/01").append(item(1, 1))
    harness.engine.write("c/02", pickled({2: 2}))
    with pytest.raises(ValueError):
        harness.engine.append_all({"c/00": item(0, 9), "c/01": item(1, 9), "c/02": item(2, 9), "c/03": item(3, 9)})
    assert [bucket_dict(harness.other(), f"c/0{number}") for number in range(4)] == [None, {1: 1}, {2: 2}, None]


def test_who_reads_several_buckets_sees_all_of_an_append_or_nothing(harness: Harness) -> None:
    """A writer steps all buckets from n to n + 1: who has read n in one finds no less in any that he reads later."""
    names, count = [f"c/0{number}" for number in range(5)], scaled(60)
    harness.engine.append_all({name: item("n", 0) for name in names})

    def write(engine: Engine) -> int:
        for turn in range(1, count + 1):
            engine.append_all({name: item("n", turn) + item(turn, "v" * (turn * 61 % 5000)) for name in names})
        return 0

    def read(engine: Engine) -> int:
        followers, seen, wrong = [Follower(engine.bucket(name)) for name in names], 0, 0
        end = time.monotonic() + 30
        while seen < count and time.monotonic() < end:
            for follower in followers[::-1] + followers:
                found = follower.look()
                assert found is not None
                wrong += found["n"] < seen
                seen = found["n"]
        return wrong

    assert harness.crowd([write, read, read]) == [0, 0, 0]


def test_appends_to_several_buckets_by_many_at_once_all_arrive(harness: Harness) -> None:
    names, count = [f"c/0{number}" for number in range(4)], scaled(40)

    def job(who: int) -> Job:
        def append(engine: Engine) -> None:
            for turn in range(count):
                if turn % 4 == who:
                    engine.bucket(names[who]).append(item((who, turn), 1))
                order = names if who % 2 else names[::-1]
                engine.append_all({name: item((who, turn), 1) for name in order[: 1 + turn % 4]})

        return append

    harness.crowd([job(who) for who in range(4)])
    dicts = [bucket_dict(harness.engine, name) or {} for name in names]
    for who in range(4):
        for turn in range(count):
            order = names if who % 2 else names[::-1]
            for name in order[: 1 + turn % 4]:
                assert (who, turn) in dicts[names.index(name)]
