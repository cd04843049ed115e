"""A value and a category that want one name: neither destroys, empties or quarantines the other."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import Mailbox, PickleShareDB
from psync.cli.load import store as load
from psync.engine import MemoryEngine
from psync.engine.encoding.framing import frame
from psync.errors import InvalidKey
from psync.pickleshare import PickleShareDB as OldPickleShareDB
from psync.store.key_hash import gethashfile
from psync.work.admin.copy_store import copy_store
from tests.redis_server import SERVERS, RedisServer
from tests.support import about_files, combined, scaled

KINDS = ["directory", "network", "power", "signed", "json", "memory", *SERVERS]
BUCKET = gethashfile("k")
_prefixes = itertools.count()


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path, servers: Any) -> Iterator[Callable[[], PickleShareDB]]:
    """Opens handles of one store."""
    if request.param in SERVERS:
        if os.environ.get("PSYNC_TEST_REDIS") not in ("all", request.param):
            pytest.skip("on a server only when asked for, with PSYNC_TEST_REDIS=redis, or all: tox -e redis")
        server: RedisServer = servers(request.param)
        place: Any = server.url(f"names{next(_prefixes)}")
    else:
        place = MemoryEngine() if request.param == "memory" else tmp_path / "store"
    options: dict[str, dict[str, Any]] = {
        "network": {"sharing": "network"},
        "power": {"durability": "power"},
        "signed": {"key": b"a key of the tests"},
        "json": {"serializer": "json"},
    }
    handles: list[PickleShareDB] = []

    def handle() -> PickleShareDB:
        handles.append(PickleShareDB(place, **options.get(request.param, {})))
        return handles[-1]

    yield handle
    for each in handles:
        each.close()


def everything(db: PickleShareDB) -> dict[str, Any]:
    """What the store has, but for an ``xx`` without items."""
    return {key: db[key] for key in db.keys() if not key.endswith("/xx") or db[key]}


def names_in_quarantine(db: PickleShareDB) -> list[str]:
    return [name for name in db.engine.list(".psync/quarantine", hidden=True) if not name.endswith(".why")]


CATEGORY_VERBS: dict[str, Callable[[PickleShareDB], object]] = {
    "hset": lambda db: db.hset("days", "k", 1),
    "hadd": lambda db: db.hadd("days", "k", 1),
    "hget": lambda db: db.hget("days", "k"),
    "hget with a default": lambda db: db.hget("days", "k", 0),
    "slow hget": lambda db: db.hget("days", "k", 0, fast_only=False),
    "hdel": lambda db: db.hdel("days", "k"),
    "hpop": lambda db: db.hpop("days", "k", 0),
    "hupdate": lambda db: db.hupdate("days", {"k": 1, "l": 2}),
    "hdict": lambda db: db.hdict("days"),
    "hcompress": lambda db: db.hcompress("days"),
    "hwait": lambda db: db.hwait("days", "k", 0),
}
VALUES: list[Any] = [42, "text", None, [1, 2], [["k", 1]], "x" * 10_000]


@pytest.mark.parametrize("verb", CATEGORY_VERBS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:12])
def test_a_category_verb_that_meets_a_value_says_so_and_leaves_it(opened: Any, verb: str, value: Any) -> None:
    db = opened()
    db[f"days/{BUCKET}"] = value
    for handle in (db, opened()):
        for _ in range(2):
            with pytest.raises(InvalidKey, match=f"'days/{BUCKET}' is a value, the category 'days' keeps a bucket"):
                CATEGORY_VERBS[verb](handle)
            assert everything(handle) == {f"days/{BUCKET}": value}
    assert names_in_quarantine(db) == []
    del db[f"days/{BUCKET}"]
    db.hset("days", "k", 1)
    assert db.hdict("days") == {"k": 1}


@pytest.mark.parametrize("verb", [verb for verb in CATEGORY_VERBS if verb not in ("hget", "hget with a default")])
def test_a_value_at_xx_is_no_compressed_category(opened: Any, verb: str) -> None:
    db = opened()
    db["days/xx"] = 42
    handle = opened()
    if verb == "hcompress":
        handle.hcompress("days")  # there is no bucket to fold
    else:
        with pytest.raises(InvalidKey, match="'days/xx' is a value"):
            CATEGORY_VERBS[verb](handle)
    assert everything(db) == {"days/xx": 42}
    assert names_in_quarantine(db) == []


@pytest.mark.parametrize("data", [pickle.dumps(42, protocol=2), frame(pickle.dumps([1]))], ids=["plain", "framed"])
@pytest.mark.parametrize("kind", [PickleShareDB, OldPickleShareDB])
def test_whoever_wrote_the_value_it_stays(root: Any, data: bytes, kind: type[PickleShareDB]) -> None:
    about_files()
    (root / "days").mkdir(mode=0o700)
    (root / "days" / BUCKET).write_bytes(data)
    with kind(root) as db:
        for verb in ("hset", "hdict", "hcompress", "hpop"):
            with pytest.raises(InvalidKey, match="is a value"):
                CATEGORY_VERBS[verb](db)
            assert (root / "days" / BUCKET).read_bytes() == data
        assert db.keys() == [f"days/{BUCKET}"]


def test_a_value_that_came_while_the_category_was_in_use_is_no_damage(opened: Any) -> None:
    """What a race leaves: the value came to a name that the category had not used yet."""
    db = opened()
    db.hset("days", "other", 1)
    db.engine.write(f"days/{BUCKET}", db.codec.dumps(42))
    for verb in ("hset", "hadd", "hget", "hpop", "hupdate", "hdict", "hcompress"):
        with pytest.raises(InvalidKey, match="is a value"):
            CATEGORY_VERBS[verb](db)
    assert db[f"days/{BUCKET}"] == 42
    assert db.hget("days", "other") == 1
    del db[f"days/{BUCKET}"]
    db.hset("days", "k", 2)
    assert db.hdict("days") == {"other": 1, "k": 2}


ASSIGNMENTS: dict[str, Callable[[PickleShareDB, str, Any], object]] = {
    "[]=": lambda db, key, value: db.__setitem__(key, value),
    "update": lambda db, key, value: db.update({key: value}),
    "modify": lambda db, key, value: db.modify(key, lambda old: value, default=None),
    "link": lambda db, key, value: setattr(db.getlink(key.rpartition("/")[0]), key.rpartition("/")[2], value),
}


@pytest.mark.parametrize(
    ("verb", "value", "compressed"), combined(ASSIGNMENTS, VALUES, [False, True]), ids=lambda value: repr(value)[:12]
)
def test_only_a_dict_takes_the_place_of_a_bucket(opened: Any, verb: str, value: Any, compressed: bool) -> None:
    db = opened()
    items = {str(number): number for number in range(20)}
    db.hupdate("days", items)
    if compressed:
        db.hcompress("days")
    for key in db.keys():
        for handle in (db, opened()):
            with pytest.raises(InvalidKey, match=f"'{key}' can't hold a value: it is a bucket of the category 'days'"):
                ASSIGNMENTS[verb](handle, key, value)
            assert handle.hdict("days") == items
    assert not db.add(key, value)
    assert db.setdefault(key, value) == db[key]
    assert opened().hdict("days") == items


@pytest.mark.parametrize("verb", [*ASSIGNMENTS, "add", "setdefault"])
@pytest.mark.parametrize("compressed", [False, True], ids=["bucket", "xx"])
def test_no_value_comes_to_a_name_at_which_a_category_may_keep_a_bucket(
    opened: Any, verb: str, compressed: bool
) -> None:
    db = opened()
    db.hset("days", "k", 1)
    if compressed:
        db.hcompress("days")
    verbs = {**ASSIGNMENTS, "add": PickleShareDB.add, "setdefault": PickleShareDB.setdefault}
    for name in ("00", "ff", "xx", "5d"):
        if f"days/{name}" in db:
            continue
        with pytest.raises(InvalidKey, match=f"'days/{name}' can't hold a value: the category 'days' may keep"):
            verbs[verb](opened(), f"days/{name}", 42)
    assert opened().hdict("days") == {"k": 1}
    for name in ("FF", "0", "000", "zz", "x", "5d.bak", "05/1"):  # no bucket has such a name
        verbs[verb](db, f"days/{name}", 42)
        assert db[f"days/{name}"] == 42
    assert opened().hdict("days") == {"k": 1}


def test_a_dict_that_is_assigned_stays_a_bucket(opened: Any) -> None:
    db = opened()
    for number in range(20):
        db.hset("days", str(number), number)
    dumped = {key: db[key] for key in db.keys()}
    copy = opened()
    copy.clear()
    copy.update(dumped)
    assert copy.hdict("days") == {str(number): number for number in range(20)}
    assert copy.hget("days", "7") == 7
    copy.hset("days", "7", "new")
    assert db.hdict("days") == {str(number): number for number in range(20)} | {"7": "new"}
    db.hset("more", "k", 1)
    db[f"more/{BUCKET}"] = {"k": 2, "m": 3}
    assert db.hdict("more") == {"k": 2, "m": 3}
    for verb in ("hupdate", "hadd"):
        db[f"more/{BUCKET}"] = {"k": 2, "m": 3}
        CATEGORY_VERBS[verb.replace("hadd", "hset")](db)
        db[f"more/{BUCKET}"] = {"m": 3}
        assert db.hadd("more", "k", 9) == (verb == "hadd" or db.hget("more", "k", fast_only=False) == 9)


def test_a_folder_of_values_is_no_category(opened: Any) -> None:
    """Days of the month, any types, set again and again: none of it meets a bucket."""
    db = opened()
    days: dict[str, Any] = {}
    for turn, value in enumerate([1, "one", {"k": 1}, None, {}, [2]]):
        for day in range(1, 32):
            days[f"days/{day:02}"] = value
            db[f"days/{day:02}"] = value
            if turn == 3:
                assert db.modify(f"days/{day:02}", lambda old: old) == value
    assert everything(opened()) == days


PAIRS: dict[str, tuple[Callable[[PickleShareDB], object], Callable[[PickleShareDB], object]]] = {
    "a value, then one below it": (lambda db: db.__setitem__("a", 1), lambda db: db.__setitem__("a/b", 2)),
    "a value, then one far below it": (lambda db: db.__setitem__("a", 1), lambda db: db.__setitem__("a/b/c", 2)),
    "a folder, then a value of its name": (lambda db: db.__setitem__("a/b", 1), lambda db: db.__setitem__("a", 2)),
    "a value, then a category of its name": (lambda db: db.__setitem__("a", 1), lambda db: db.hset("a", "k", 2)),
    "a category, then a value of its name": (lambda db: db.hset("a", "k", 1), lambda db: db.__setitem__("a", 2)),
    "a category, then one below a bucket": (
        lambda db: db.hset("a", "k", 1), lambda db: db.__setitem__(f"a/{BUCKET}/b", 2),
    ),
    "a value below a name, then a bucket there": (
        lambda db: db.__setitem__(f"a/{BUCKET}/b", 1), lambda db: db.hset("a", "k", 2),
    ),
    "a value below a name, then many items": (
        lambda db: db.__setitem__(f"a/{BUCKET}/b", 1), lambda db: db.hupdate("a", {"k": 2}),
    ),
    "a category, then one in its bucket": (lambda db: db.hset("a", "k", 1), lambda db: db.hset(f"a/{BUCKET}", "k", 2)),
    "a value, then a dict of its folder": (lambda db: db.__setitem__("a/b", 1), lambda db: db.__setitem__("a", {})),
    "a value, then what is modified below it": (
        lambda db: db.__setitem__("a", 1), lambda db: db.modify("a/b", lambda old: 2, default=0),
    ),
    "a folder, then what is added at its name": (lambda db: db.__setitem__("a/b", 1), lambda db: db.add("a", 2)),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_of_a_value_and_a_folder_the_second_is_refused(opened: Any, pair: str) -> None:
    db = opened()
    first, second = PAIRS[pair]
    first(db)
    before = everything(db)
    for handle in (db, opened()):
        with pytest.raises(InvalidKey, match=r"can't hold a value: .*(folder|below)"):
            second(handle)
        assert everything(handle) == before
    assert names_in_quarantine(db) == []


def test_a_mailbox_is_not_reached_by_any_key(opened: Any) -> None:
    db = opened()
    box = Mailbox(db, "letters")
    box.post("k", 1)
    for key in (f".psync/mailbox/letters/{BUCKET}", ".psync/mailbox/letters", ".psync"):
        with pytest.raises(InvalidKey, match="psync's own"):
            db[key] = 42
    with pytest.raises(InvalidKey, match="psync's own"):
        db.hset(".psync/mailbox/letters", "k", 2)
    assert list(box.collect(["k"], timeout=0)) == [("k", 1)]


RESERVED = [".psync", ".psync/x", ".psync-new-a", ".psync-now-a", "a/.psync-new-b", "a/.psync-now~0f", ".nfs00000012"]


@pytest.mark.parametrize("key", RESERVED)
def test_no_key_is_the_name_of_a_file_of_psyncs_own(opened: Any, key: str) -> None:
    db = opened()
    for verb in (lambda: db.__setitem__(key, 1), lambda: db.hset(key, "k", 1), lambda: db.add(key, 1)):
        with pytest.raises(InvalidKey, match=r"psync|NFS"):
            verb()
    assert db.keys() == []


# -- load and copy ---------------------------------------------------------------------------------


def test_load_takes_categories_out_of_the_way_of_values(opened: Any) -> None:
    db = opened()
    db.hupdate("days", {str(number): number for number in range(30)})
    db.hset("kept", "k", 1)
    wanted = {"days/01": 1, "days/02": {"k": 2}, f"days/{gethashfile('7')}": "seven", f"kept/{BUCKET}": {"k": 3}}
    load(db, wanted, keep=False)
    assert everything(db) == wanted
    assert db.hdict("kept") == {"k": 3}
    load(db, {"days/01": 2}, keep=True)
    assert everything(db) == wanted | {"days/01": 2}


def test_copy_carries_what_a_race_has_left(opened: Any, tmp_path: Path) -> None:
    db = opened()
    db.hset("days", "other", 1)
    db.engine.write(f"days/{BUCKET}", db.codec.dumps(42))
    with PickleShareDB(tmp_path / "copy", serializer="pickle" if db.codec.objects else "json") as copy:
        assert copy_store(db, copy).differences == ()
        assert copy[f"days/{BUCKET}"] == 42
        assert copy.hget("days", "other") == 1


# -- races -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [scaled(60)])
def test_of_an_assignment_and_an_item_at_one_moment_one_is_refused(opened: Any, turns: int) -> None:
    """Whichever comes second is refused, and what was there first is whole."""
    setting, assigning = opened(), opened()
    for turn in range(turns):
        name, start, outcomes = f"c{turn}", threading.Barrier(2), {}

        def run(what: str, verb: Callable[[], object]) -> None:
            start.wait()  # noqa: B023
            try:
                verb()
                outcomes[what] = True  # noqa: B023
            except InvalidKey:
                outcomes[what] = False  # noqa: B023

        both = [
            threading.Thread(target=run, args=("item", lambda: setting.hset(name, "k", turn))),  # noqa: B023
            threading.Thread(target=run, args=("value", lambda: assigning.__setitem__(f"{name}/{BUCKET}", 42))),  # noqa: B023
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert sorted(outcomes.values()) == [False, True], outcomes
        if outcomes["item"]:
            assert setting.hdict(name) == {"k": turn}
        else:
            assert assigning[f"{name}/{BUCKET}"] == 42
    assert names_in_quarantine(setting) == []


def test_nothing_of_it_warns(opened: Any) -> None:
    db = opened()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        db[f"days/{BUCKET}"] = 42
        for verb in CATEGORY_VERBS.values():
            with pytest.raises(InvalidKey):
                verb(db)
