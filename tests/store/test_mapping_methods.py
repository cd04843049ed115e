"""The mapping's methods, and those a dict does not have: who wins, what is missing, what is counted."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB, gethashfile
from psync.engine import DirectoryEngine, MemoryEngine
from psync.errors import WaitTimeout
from tests.support import files

MISSING_KEY: dict[str, Any] = {
    "[]": lambda db: db["none"],
    "del": lambda db: db.__delitem__("none"),
    "pop": lambda db: db.pop("none"),
    "popitem": lambda db: db.popitem(),
    "modify": lambda db: db.modify("none", lambda old: old),
    "hget": lambda db: db.hget("none", "item"),
    "slow hget": lambda db: db.hget("none", "item", fast_only=False),
    "hdel": lambda db: db.hdel("none", "item"),
    "hpop": lambda db: db.hpop("none", "item"),
    "[] below": lambda db: db["none/below"],
    "waitget": lambda db: db.waitget("none", 0),
    "hwait": lambda db: db.hwait("none", "item", 0),
    "waitany": lambda db: db.waitany(["none", "neither"], 0),
}


@pytest.mark.parametrize("verb", MISSING_KEY)
def test_what_is_missing_is_a_key_error_and_nothing_is_made(db: PickleShareDB, verb: str) -> None:
    with pytest.raises(KeyError):
        MISSING_KEY[verb](db)
    assert db.keys() == []
    assert len(db) == 0
    assert not db


def test_a_key_error_names_the_key(db: PickleShareDB) -> None:
    with pytest.raises(KeyError, match="some/key"):
        db["some/key"]
    with pytest.raises(KeyError, match="some/key"):
        del db["some/key"]
    with pytest.raises(KeyError, match="item 7"):
        db.hget("category", "item 7")


def test_an_item_that_is_missing_in_a_category_that_is_not(db: PickleShareDB) -> None:
    db.hset("category", "item", 1)
    for missing in ("other", 1, ("item",), None, b"item"):
        assert db.hget("category", missing, "default") == "default"
        assert db.hget("category", missing, None, fast_only=False) is None
        assert db.hpop("category", missing, 5) == 5
        for verb in (db.hget, db.hpop, db.hdel):
            with pytest.raises(KeyError):
                verb("category", missing)
    assert db.hdict("category") == {"item": 1}


def test_setdefault_gives_what_is_there(store: Any) -> None:
    db, other = store(), store()
    assert db.setdefault("key", [1]) == [1]
    assert other.setdefault("key", [2]) == [1]
    assert other.setdefault("none") is None
    assert db["none"] is None


def test_pop_gives_the_last_value_once(store: Any) -> None:
    db, other = store(), store()
    db["key"] = 1
    assert other["key"] == 1
    db["key"] = 2
    assert other.pop("key") == 2
    assert db.pop("key", "default") == "default"
    with pytest.raises(KeyError):
        db.pop("key")


def test_popitem_takes_each_item_once(store: Any) -> None:
    db, other = store(), store()
    items = {f"folder {number % 3}/{number}": number for number in range(30)}
    db.update(items)
    taken = dict((db if number % 2 else other).popitem() for number in range(30))
    assert taken == items
    with pytest.raises(KeyError):
        other.popitem()


def test_update_takes_what_a_dict_takes(db: PickleShareDB) -> None:
    db.update({"a": 1})
    db.update([("b", 2), ("c", 3)])
    db.update(d=4, e=5)
    db.update({"a": 6}, a=7)
    db.update()
    assert dict(db) == {"a": 7, "b": 2, "c": 3, "d": 4, "e": 5}


def test_clear_leaves_nothing_but_the_store(store: Any) -> None:
    db, other = store(), store()
    db.update({"a": 1, "b/c/d": 2})
    db.hset("category", "item", 3)
    db.hcompress("category")
    db.hset("category", "other", 4)
    assert other["a"] == 1 and other.hget("category", "other") == 4
    db.clear()
    for handle in (db, other, store()):
        assert handle.keys() == [] and dict(handle) == {} and len(handle) == 0
        assert handle.hdict("category") == {}
        assert handle.hget("category", "other", None, fast_only=False) is None
        assert "a" not in handle and handle.get("a") is None
    db["a"] = 5
    db.hset("category", "item", 6)
    assert other["a"] == 5 and other.hdict("category") == {"item": 6}


def test_hcompress_of_a_folder_that_is_no_category_leaves_it_alone(store: Any) -> None:
    db = store()
    db["folder/plain"] = 1
    db.hcompress("folder")
    assert db.keys() == ["folder/plain"]


def test_keys_len_and_iter_agree(db: PickleShareDB) -> None:
    names = [f"{folder}{number}" for folder in ("", "f/", "f/g/", "h h/") for number in range(5)]
    for name in names:
        db[name] = name
    assert sorted(db.keys()) == sorted(db) == sorted(names)
    assert len(db) == len(names)
    assert sorted(db.values()) == sorted(names)
    assert dict(db.items()) == {name: name for name in names}
    assert all(name in db for name in names)
    assert "f" not in db and "f/g" not in db and "f/" not in db


def test_iterating_bears_changes(db: PickleShareDB) -> None:
    db.update({str(number): number for number in range(20)})
    seen = []
    for key in db:
        seen.append(key)
        db.pop(key)
        db["new " + key] = 1
    assert set(seen) >= {str(number) for number in range(20)}
    assert set(db.keys()) >= {f"new {number}" for number in range(20)}
    assert [value for value in db.values() if value is None] == []


def test_items_bear_keys_that_vanish(store: Any) -> None:
    """Beside a rival that deletes, some of the items come, and no error."""
    db, rival = store(), store()
    stop = threading.Event()
    wrong: list[Any] = []

    def churn() -> None:
        while not stop.is_set():
            for number in range(20):
                rival[f"k{number}"] = number
            for number in range(20):
                rival.pop(f"k{number}", None)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end and not wrong:
            wrong += [item for item in db.items() if item[0] != f"k{item[1]}"]
            wrong += [value for value in db.values() if value not in range(20)]
    finally:
        stop.set()
        thread.join()
    assert wrong == []


def test_a_glob_finds_keys_in_their_folders(db: PickleShareDB) -> None:
    db.update({"a.log": 1, "runs/1/a.log": 2, "runs/1/b.txt": 3, "runs/2/a.log": 4})
    assert db.keys("*.log") == ["a.log"]
    assert sorted(db.keys("runs/*/a.log")) == ["runs/1/a.log", "runs/2/a.log"]
    assert sorted(db.keys("**/*.log")) == ["a.log", "runs/1/a.log", "runs/2/a.log"]
    assert sorted(db.keys("runs/**")) == ["runs/1/a.log", "runs/1/b.txt", "runs/2/a.log"]
    assert db.keys("nothing/*") == []


def test_buckets_are_keys_as_in_pickleshare(db: PickleShareDB) -> None:
    db.hset("category", "a", 1)
    assert db.keys() == db.keys("category/*") == ["category/43"]
    assert db["category/43"] == {"a": 1}
    db.hcompress("category")
    assert db.keys() == ["category/xx"]
    assert db["category/xx"] == {"a": 1}
    db.hset("category", "a", 2)
    assert sorted(db.keys()) == ["category/43", "category/xx"]
    assert db.hdict("category") == {"a": 2}


def test_psyncs_own_names_are_no_keys(store: Any) -> None:
    db = store()
    db["key"] = 1
    db.hset("category", "item", 1)
    db.hcompress("category")
    with pytest.raises(WaitTimeout):
        db.waitget("none", 0.01)
    for handle in (db, store()):
        assert [key for key in handle if ".psync" in key] == []
        for pattern in ("*", "**", ".*", ".psync/*", "**/*"):
            assert [key for key in handle.keys(pattern) if ".psync" in key] == []
        assert len(handle) == 2


def test_add_has_one_winner(store: Any) -> None:
    db, other = store(), store()
    assert [handle.add("key", name) for handle, name in ((db, "db"), (other, "other"), (db, "db"))] == [
        True,
        False,
        False,
    ]
    assert other["key"] == "db"
    del other["key"]
    assert db.add("key", "again")
    assert [db.hadd("h", "key", 1), other.hadd("h", "key", 2)] == [True, False]
    db.hcompress("h")
    assert not other.hadd("h", "key", 3)
    db.hdel("h", "key")
    assert other.hadd("h", "key", 4)


def test_hadd_knows_what_another_handle_folded_away_or_took_out_again_meanwhile(store: Any) -> None:
    db, other = store(), store()
    alike = [key for key in map(str, range(3000)) if gethashfile(key) == gethashfile("0")]
    assert all(db.hadd("h", key, 1) for key in alike[:3])
    other.hcompress("h")
    assert not any(db.hadd("h", key, 2) for key in alike[:3])
    assert db.hadd("h", alike[3], 3)
    assert other.hpop("h", alike[0]) == 1
    assert db.hadd("h", alike[0], 4)
    other.hcompress("h")
    assert not db.hadd("h", alike[0], 5)
    assert db.hget("h", alike[0], fast_only=False) == 4


def test_threads_never_lose_an_increment(store: Any) -> None:
    def count(db: PickleShareDB) -> None:
        for _ in range(100):
            db.modify("count", lambda old: old + 1, default=0)  # the default is what was there

    threads = [threading.Thread(target=count, args=(handle,)) for handle in (store(), store()) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store()["count"] == 400


# -- hashed categories -----------------------------------------------------------------------------


def test_a_fast_hget_does_not_look_into_what_was_compressed(store: Any) -> None:
    db, other = store(), store()
    db.hset("category", "old", 1)
    db.hcompress("category")
    for handle in (db, other, store()):
        with pytest.raises(KeyError):
            handle.hget("category", "old")
        assert handle.hget("category", "old", "default") == "default"
        assert handle.hget("category", "old", fast_only=False) == 1
        assert handle.hdict("category") == {"old": 1}
    other.hset("category", "old", 2)
    assert db.hget("category", "old") == 2
    assert db.hdict("category") == {"old": 2}


def test_what_was_removed_does_not_come_back(store: Any) -> None:
    """Neither from what was compressed before nor from what is compressed after."""
    db, other = store(), store()
    db.hset("category", "key", "first")
    db.hcompress("category")
    other.hset("category", "key", "second")
    assert db.hpop("category", "key") == "second"
    assert db.hdict("category") == {}
    other.hcompress("category")
    for handle in (db, other, store()):
        assert handle.hdict("category") == {}
        assert handle.hget("category", "key", None, fast_only=False) is None
        with pytest.raises(KeyError):
            handle.hdel("category", "key")


def test_hupdate_sets_all_items(store: Any) -> None:
    db = store()
    items = {**{f"key {number}": number for number in range(300)}, 1: "one", (2, "x"): None}
    db.hset("category", "key 5", "old")
    db.hupdate("category", items)
    for handle in (db, store()):
        assert handle.hdict("category") == items
        assert handle.hget("category", "key 5") == 5
        assert handle.hget("category", 1.0) == "one"
    db.hupdate("category", {})
    assert db.hdict("category") == items


def test_categories_do_not_mix(db: PickleShareDB) -> None:
    for name in ("a", "a/b", "a/b/c", "b"):
        db.hset(name, "key", name)
    assert {name: db.hdict(name) for name in ("a", "a/b", "a/b/c", "b")} == {
        name: {"key": name} for name in ("a", "a/b", "a/b/c", "b")
    }
    db.hcompress("a")
    assert db.hdict("a/b") == {"key": "a/b"}
    assert db.hget("a/b", "key") == "a/b"


def test_a_category_of_a_thousand_items(store: Any) -> None:
    db = store()
    for number in range(1000):
        db.hset("category", f"key {number}", {"number": number})
    expected = {f"key {number}": {"number": number} for number in range(1000)}
    assert db.hdict("category") == store().hdict("category") == expected
    assert len(db.keys("category/*")) <= 256
    db.hcompress("category")
    assert db.keys("category/*") == ["category/xx"]
    assert db.hdict("category") == store().hdict("category") == expected


# -- the cache -------------------------------------------------------------------------------------


def test_the_cache_never_serves_a_value_that_another_handle_replaced(store: Any) -> None:
    db, other = store(), store()
    for number in range(300):
        value = [number] * (number % 2 * 1000)
        db["key"] = value
        assert other["key"] == db["key"] == value


def test_uncache_forgets_and_harms_nothing(db: PickleShareDB) -> None:
    db.update({"a": [1], "b": [2]})
    db.hset("category", "item", 3)
    assert db["a"] == [1] and db["b"] == [2]
    db.uncache("a", "never/there")
    assert "a" not in db.cache
    assert dict(db) == {"a": [1], "b": [2], **{key: db[key] for key in db.keys("category/*")}}
    db.uncache()
    assert len(db.cache) == 0
    assert db["a"] == [1] and db.hget("category", "item") == 3


def test_a_long_lived_cache_does_not_grow_without_end(db: PickleShareDB) -> None:
    for number in range(200):
        db[f"key {number}"] = b"x" * 1_000_000
        assert len(db[f"key {number}"]) == 1_000_000
        db.pop(f"key {number}")
    assert len(db.cache) < 200


# -- handles ---------------------------------------------------------------------------------------


def test_leaving_a_with_block_closes_and_the_store_opens_again(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["key"] = 1
        db.hset("category", "item", 2)
    assert db["key"] == 1  # a closed handle opens what it needs again
    assert db.hget("category", "item") == 2
    db.close()
    db.close()


def test_a_handle_pickles_by_its_place(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["key"] = 1
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            with pickle.loads(pickle.dumps(db, protocol)) as again:
                assert again["key"] == 1
                assert again.root == db.root
                assert repr(again) == repr(db)
                again["key"] = 1
        with copy.copy(db) as twin, copy.deepcopy(db) as other:
            twin["key"] = 2
            assert db["key"] == other["key"] == 2


@files
def test_a_handle_keeps_its_options_when_it_is_pickled(root: Path) -> None:
    with PickleShareDB(root, durability="file", wakeups="poll") as db, pickle.loads(pickle.dumps(db)) as again:
        assert isinstance(again.engine, DirectoryEngine)
        assert again.engine.durability == "file"
        assert again.engine.wakeups == "poll"


def _post(db: PickleShareDB, key: str) -> None:
    db[key] = db["question"] + 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_handle_travels_to_a_process(root: Path, method: str) -> None:
    with PickleShareDB(root) as db:
        db["question"] = 41
        process = multiprocessing.get_context(method).Process(target=_post, args=(db, "answer"))
        process.start()
        assert db.waitget("answer", 20) == 42
        process.join()
        assert process.exitcode == 0
        process.close()


def test_two_handles_of_one_engine_are_one_store() -> None:
    engine = MemoryEngine()
    with PickleShareDB(engine) as db, PickleShareDB(engine) as other:
        db["key"] = 1
        assert other["key"] == 1
        assert db.engine is other.engine is engine
