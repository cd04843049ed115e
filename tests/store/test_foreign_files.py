"""Files that psync never wrote lie in the directory: no look moves them, listings pass over them and name them once."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.engine.admin import diagnosed, looking_engine
from psync.errors import CorruptValue
from psync.pickleshare import PickleShareDB as OldPickleShareDB
from psync.store.key_hash import gethashfile
from psync.work.admin.copy_store import copy_store
from tests.cli.shell import psync
from tests.store.test_corruption import quarantined
from tests.support import files

pytestmark = files

FOREIGN: dict[str, bytes] = {
    "README.txt": b"what these runs are",
    ".DS_Store": b"\0\0\0\1Bud1",
    "b.part": b"\x80\x05",
    "a (conflicted copy).pkl": b"half of it",
    ".syncthing.a.tmp": bytes(5000),
    ".a.swp": b"b0VIM 9.0\0" + bytes(200),
    "a~": b"# an old version\n",
    "empty": b"",
    "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "plain.pkl.part": pickle.dumps({"a": [1] * 100}, protocol=2)[:-20],
    "half.part": pickle.dumps({"a": "x" * 5000}, protocol=5)[:400],
    "old style.pkl": pickle.dumps([1, 2], protocol=0),
    "runs/notes.md": b"# Notes\n",
    "large.bin": b"\x7fELF" + bytes(300_000),
    "Makefile": b"all:\n\ttrue\n",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "local": {},
    "network": {"sharing": "network"},
    "power": {"durability": "power"},
    "signed": {"key": b"a key of the tests"},
    "json": {"serializer": "json"},
}


@pytest.fixture(params=OPTIONS)
def opened(request: pytest.FixtureRequest, root: Path) -> Iterator[Callable[[], PickleShareDB]]:
    """Opens handles of a store in `root`."""
    handles: list[PickleShareDB] = []

    def handle() -> PickleShareDB:
        handles.append(PickleShareDB(root, **OPTIONS[request.param]))
        return handles[-1]

    yield handle
    for each in handles:
        each.close()


def put(root: Path, only: str | None = None) -> None:
    for name, data in FOREIGN.items():
        if only in (None, name):
            (root / name).parent.mkdir(exist_ok=True, mode=0o700)
            (root / name).write_bytes(data)


def still_there(root: Path) -> bool:
    return quarantined(root) == [] and all((root / name).read_bytes() == data for name, data in FOREIGN.items())


def all_named(warned: Any) -> None:
    (one,) = warned
    assert one.category is RuntimeWarning
    assert one.filename == __file__
    assert f"{len(FOREIGN)} files are not psync's" in str(one.message)


LISTINGS: dict[str, tuple[Callable[[PickleShareDB], Any], Any]] = {
    "items": (lambda db: sorted(db.items()), [("a", 1), ("runs/1", 2)]),
    "values": (lambda db: sorted(db.values()), [1, 2]),
}


@pytest.mark.parametrize("verb", LISTINGS)
def test_a_listing_gives_the_others_and_tells_of_all_at_once(opened: Any, root: Path, verb: str) -> None:
    db = opened()
    db.update({"a": 1, "runs/1": 2})
    put(root)
    listed, expected = LISTINGS[verb]
    for handle in (db, opened()):
        for _ in range(2):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                assert listed(handle) == expected
            all_named(told)
    assert still_there(root)


def test_reading_one_says_so_each_time_and_it_stays(opened: Any, root: Path) -> None:
    put(root)
    db = opened()
    for name in FOREIGN:
        for read in (db.__getitem__, db.get, db.pop, lambda name: db.setdefault(name, 1),
                     lambda name: db.modify(name, lambda old: old), lambda name: db.waitget(name, 0)):  # fmt: skip
            with pytest.raises(CorruptValue, match="psync did not write it") as caught:
                read(name)
            assert caught.value.foreign and caught.value.key == name and caught.value.quarantine is None
        assert not db.add(name, 1)
    assert still_there(root)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("size", [10, 70_000], ids=["in place", "a new file"])
def test_what_is_assigned_takes_its_place_and_its_bytes_are_kept(opened: Any, root: Path, name: str, size: int) -> None:
    put(root, name)
    db = opened()
    db[name] = "x" * size
    assert db[name] == opened()[name] == "x" * size
    assert quarantined(root) == [FOREIGN[name]] * bool(FOREIGN[name])
    db[name] = "again"
    assert opened()[name] == "again"
    assert len(quarantined(root)) == bool(FOREIGN[name])


def test_popitem_and_clear_leave_them(opened: Any, root: Path) -> None:
    db = opened()
    db.update({"a": 1, "runs/1": 2})
    put(root)
    assert sorted(db.popitem() for _ in range(2)) == [("a", 1), ("runs/1", 2)]
    with pytest.raises(KeyError, match="empty"):
        db.popitem()
    db.update({"a": 1, "runs/1": 2})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        db.clear()
    all_named(told)
    assert still_there(root)
    assert sorted(db) == sorted(FOREIGN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        db.clear(foreign=True)
    assert db.keys() == [] and quarantined(root) == []


def test_one_is_deleted_by_its_name(opened: Any, root: Path) -> None:
    put(root)
    db = opened()
    for name in FOREIGN:
        del db[name]
    assert db.keys() == []


def test_what_bears_the_frame_and_is_damaged_is_set_aside_as_ever(opened: Any, root: Path) -> None:
    db = opened()
    db.update({"a": 1, "b": 2})
    put(root)
    damaged = (root / "a").read_bytes()[:-1]
    (root / "a").write_bytes(damaged)
    with pytest.raises(CorruptValue) as caught:
        db["a"]
    assert not caught.value.foreign
    assert quarantined(root) == [damaged]


def test_links_pipes_and_folders_are_passed_over(opened: Any, root: Path) -> None:
    db = opened()
    db["a"] = 1
    (root / "link").symlink_to(root / "a")
    os.mkfifo(root / "pipe")
    (root / "folder" / "inner").mkdir(parents=True, mode=0o700)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dict(db.items()) == {"a": 1}
        db.clear()
    assert sorted(path.name for path in root.iterdir() if path.name != ".psync")[-2:] == ["link", "pipe"]


@pytest.mark.parametrize("name", [".nfs000000000012ab34000000f1", ".psync-new-a"])
def test_what_nfs_leaves_is_no_key_at_all(root: Path, name: str) -> None:
    with PickleShareDB(root) as db:
        db["a"] = 1
        (root / name).write_bytes(b"whatever")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert db.keys() == ["a"] and dict(db.items()) == {"a": 1}


# -- in a category -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket", ["00", gethashfile("k"), "xx"])
@pytest.mark.parametrize("data", [data for data in FOREIGN.values() if data], ids=lambda data: repr(data[:12]))
def test_hdict_passes_over_a_file_at_the_name_of_a_bucket(opened: Any, root: Path, bucket: str, data: bytes) -> None:
    db = opened()
    db.hset("cat", "other", 1)
    (root / "cat" / bucket).write_bytes(data)
    handle = opened()
    for _ in range(2):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert handle.hdict("cat") == {"other": 1}
        (one,) = told
        assert f"1 file is not psync's, and still at the same place: 'cat/{bucket}'" in str(one.message)
    assert handle.hget("cat", "other") == 1
    if bucket != "00":
        with pytest.raises(CorruptValue, match="psync did not write it"):
            handle.hget("cat", "k")
    assert (root / "cat" / bucket).read_bytes() == data and quarantined(root) == []
    handle.hset("cat", "k", 2)
    assert opened().hget("cat", "k") == 2
    assert quarantined(root) == [data] * (bucket == gethashfile("k"))
    handle.hcompress("cat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert opened().hdict("cat") == {"other": 1, "k": 2}
    assert quarantined(root) == [data] * (bucket != "00")


@pytest.mark.parametrize("verb", ["hset", "hadd", "hupdate"])
def test_an_item_that_is_set_takes_its_place(opened: Any, root: Path, verb: str) -> None:
    (root / "cat").mkdir(mode=0o700)
    (root / "cat" / gethashfile("k")).write_bytes(b"noise")
    {
        "hset": lambda: opened().hset("cat", "k", 1),
        "hadd": lambda: opened().hadd("cat", "k", 1),
        "hupdate": lambda: opened().hupdate("cat", {"k": 1, "l": 1}),
    }[verb]()
    assert opened().hget("cat", "k") == 1
    assert quarantined(root) == [b"noise"]


# -- the commands, the doctor, the drop-in -----------------------------------------------------------


def test_a_store_with_a_key_or_with_json_can_be_begun_beside_them(root: Path) -> None:
    for name, options in {"signed": OPTIONS["signed"], "json": OPTIONS["json"]}.items():
        (root / name).mkdir(mode=0o700)
        put(root / name)
        with PickleShareDB(root / name, **options) as db:
            db["a"] = 1
            assert db["a"] == 1


def test_dump_and_load_name_them_and_leave_them(root: Path) -> None:
    with PickleShareDB(root) as db:
        db.update({"a": 1, "gone": 2})
    put(root)
    dumped = psync("dump", root)
    assert (dumped.code, dumped.out) == (0, "[('a', 1),\n ('gone', 2)]\n")
    assert dumped.err.count("\n") == 1
    assert f"{len(FOREIGN)} files are not psync's" in dumped.err
    loaded = psync("load", root, typed="[('a', 5)]")
    assert (loaded.code, loaded.out) == (0, "1 stored, 1 removed\n")
    assert f"{len(FOREIGN)} files are not psync's" in loaded.err
    assert still_there(root)


def test_copy_leaves_them_out(root: Path, tmp_path: Path) -> None:
    with PickleShareDB(root) as db, PickleShareDB(tmp_path / "copy") as copy:
        db.update({"a": 1, "runs/1": 2})
        put(root)
        with pytest.warns(RuntimeWarning, match=f"{len(FOREIGN)} files are not psync's"):
            assert copy_store(db, copy).differences == ()
        assert dict(copy) == {"a": 1, "runs/1": 2}
    assert still_there(root)


def test_the_doctor_has_a_note_for_them(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["a"] = 1
        db.hset("cat", "k", 1)
        db["plain"] = [1]
    (root / "plain").write_bytes(pickle.dumps([1], protocol=2))
    put(root)
    found = {finding.what: finding for finding in diagnosed(str(root), trust_group=False)}
    assert found["foreign files"].state == "note"
    assert found["foreign files"].says.startswith(f"{len(FOREIGN)} files are not psync's")
    assert still_there(root)
    with PickleShareDB(root) as db:
        db["README.txt"] = 1
    states = [finding.state for finding in diagnosed(str(root), trust_group=False) if finding.what == "quarantine"]
    assert states == ["note"]


def test_who_only_looks_sees_the_same(root: Path) -> None:
    with PickleShareDB(root) as db:
        db.update({"a": 1, "runs/1": 2})
    put(root)
    with PickleShareDB(looking_engine(str(root))) as db:
        with pytest.warns(RuntimeWarning, match=f"{len(FOREIGN)} files are not psync's"):
            assert dict(db.items()) == {"a": 1, "runs/1": 2}
        with pytest.raises(CorruptValue, match="psync did not write it"):
            db["README.txt"]
    assert still_there(root)


def test_the_drop_in_keeps_its_habits(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OldPickleShareDB(root) as db:
        db["a"] = 1
        db.hset("cat", "k", 1)
        put(root)
        (root / "cat" / "00").write_bytes(b"noise")
        for name in FOREIGN:
            assert db.get(name, 7) == 7
        assert quarantined(root) == []
        assert db.hdict("cat") == {"k": 1}
        assert "Corrupt cat/00 kept at" in capsys.readouterr().out
        assert quarantined(root) == [b"noise"]
