"""The habits of pickleshare that its old callers lean on, kept by psync.pickleshare."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import psync
from psync import pickleshare
from psync.pickleshare import PickleShareDB
from tests.cli.shell import ENVIRON
from tests.cli.shell import psync as psync_command

MODULE = "psync.pickleshare"
GARBAGE = b"this is not a pickle"
GONE_CLASS = b"\x80\x02cno_such_module\nKind\n."


@pytest.fixture
def db(root: Path) -> Iterator[PickleShareDB]:
    with PickleShareDB(root) as db:
        yield db


# -- names -----------------------------------------------------------------------------------------


def test_the_names_old_code_imports_are_there() -> None:
    names: dict[str, Any] = {}
    exec("from psync.pickleshare import *", names)
    for name in ("PickleShareDB", "PickleShareLink", "gethashfile", "main"):
        assert names[name] is getattr(pickleshare, name)
    assert pickleshare.__version__.split(".")[0].isdecimal()


def test_it_is_psyncs_own_store_with_other_habits(db: PickleShareDB) -> None:
    assert issubclass(PickleShareDB, psync.PickleShareDB)
    db["hello"] = 15
    with psync.PickleShareDB(db.root) as other:
        assert other["hello"] == 15


def test_root_is_a_path_equal_to_the_one_that_was_given(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.chdir(root)
    for given, expected in ((root / "a", root / "a"), (str(root), root), ("b/../c", root / "c"), ("~/d", root / "d")):
        with PickleShareDB(given) as db:
            assert isinstance(db.root, Path)
            assert db.root == expected
            assert expected.is_dir()
            assert repr(db) == f"PickleShareDB('{expected}')"


# -- keys ------------------------------------------------------------------------------------------


def test_keys_are_normalised_as_pathlib_does(db: PickleShareDB) -> None:
    db["a//b/./c"] = 1
    assert db.keys() == ["a/b/c"]
    assert db["a/b/c"] == db["a/b//c/"] == db["./a/b/c"] == 1
    assert db.get("a//b/c") == 1
    assert "a//b/c" in db
    del db["a/b/./c"]
    assert len(db) == 0


def test_keys_may_be_paths(db: PickleShareDB) -> None:
    db[db.root / "h" / "ab"] = {"x": 1}
    assert db["h/ab"] == {"x": 1}
    assert db.get(db.root / "h" / "ab") == {"x": 1}
    assert db[Path("h/ab")] == db[str(db.root / "h/ab")] == {"x": 1}
    assert db.get(db.root / "no", 5) == 5
    assert db.setdefault(db.root / "s", 1) == 1
    assert db.waitget(db.root / "s", 1) == 1
    assert db.pop(db.root / "s") == 1
    del db[db.root / "h" / "ab"]
    assert db.keys() == []


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../outside", ".psync/x", "a\0b", ""])
def test_a_key_outside_the_root_is_a_key_error(db: PickleShareDB, key: str) -> None:
    (db.root.parent / "outside").unlink(missing_ok=True)
    with pytest.raises(KeyError):
        db[key]
    with pytest.raises(KeyError):
        db[key] = 1
    assert key not in db
    assert db.get(key, 7) == 7
    assert not (db.root.parent / "outside").exists()


# -- the same object -------------------------------------------------------------------------------


def test_a_value_that_was_set_or_read_is_the_same_object_again(db: PickleShareDB) -> None:
    value = [1, 2]
    db["k"] = value
    assert db["k"] is value
    assert db.get("k") is db["k"] is db[db.root / "k"] is dict(db.items())["k"]
    value.append(3)
    assert db["k"] == [1, 2, 3], "the object is shared, though what is stored is not changed"
    db.uncache()
    again = db["k"]
    assert again == [1, 2]
    assert again is not value
    assert db["k"] is again


def test_what_another_process_wrote_is_another_object(db: PickleShareDB) -> None:
    db["k"] = mine = [1, 2]
    with psync.PickleShareDB(db.root) as other:
        for turn in range(20):
            other["k"] = [1, turn]
            assert db["k"] == [1, turn]
            assert db["k"] is not mine
            assert db["k"] is db["k"]
        del other["k"]
    with pytest.raises(KeyError):
        db["k"]


def test_a_file_replaced_by_another_program_is_read_anew(db: PickleShareDB) -> None:
    db["k"] = [1]
    assert db["k"] == [1]
    (db.root / "k").write_bytes(b"\x80\x02]q\x00K\x02a.")
    assert db["k"] == [2]


# -- the cache -------------------------------------------------------------------------------------


def test_cache_answers_to_absolute_paths(db: PickleShareDB) -> None:
    assert db.cache == {}
    db["a"] = 1
    db["b/c"] = 2
    assert len(db.cache) == 2
    assert db.root / "a" in db.cache
    assert db.root / "b/c" in db.cache
    assert db.root / "x" not in db.cache
    assert set(db.cache) == {db.root / "a", db.root / "b/c"}
    assert db.cache[db.root / "a"][0] == 1
    del db["a"]
    assert db.root / "a" not in db.cache


def test_uncache_takes_paths_and_forgives_the_unknown(db: PickleShareDB) -> None:
    for key in "abc":
        db[key] = key
    db.uncache(db.root / "a")
    db.uncache("b", "never seen", "../no key at all", None)
    assert db.root / "a" not in db.cache
    assert db.root / "c" in db.cache
    assert db["a"] == "a"
    db.uncache()
    assert db.cache == {}
    assert len(db.cache) == 0


# -- deleting --------------------------------------------------------------------------------------


def test_deleting_what_is_not_there_is_silent(db: PickleShareDB) -> None:
    del db["never"]
    del db[db.root / "never"]
    db["k"] = 1
    del db["k"]
    del db["k"]
    assert "k" not in db


# -- what can't be read ----------------------------------------------------------------------------


@pytest.mark.parametrize("data", [GARBAGE, GONE_CLASS, b"", b"\x80\x02]q\x00"])
def test_a_file_that_can_not_be_read_is_a_key_error_and_stays_where_it_is(db: PickleShareDB, data: bytes) -> None:
    (db.root / "corrupt").write_bytes(data)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            db["corrupt"]
        assert caught.value.args == ("corrupt",) or "corrupt" in str(caught.value)
        assert db.get("corrupt", 7) == 7
        assert "corrupt" not in db
        assert db.keys() == ["corrupt"]
    assert (db.root / "corrupt").read_bytes() == data


def test_a_file_that_can_not_be_read_is_replaced_by_setting_it(db: PickleShareDB) -> None:
    (db.root / "corrupt").write_bytes(GARBAGE)
    with pytest.raises(KeyError):
        db["corrupt"]
    db["corrupt"] = 1
    assert db["corrupt"] == 1


def test_a_file_that_can_not_be_read_can_be_deleted(db: PickleShareDB) -> None:
    (db.root / "corrupt").write_bytes(GARBAGE)
    del db["corrupt"]
    assert db.keys() == []


def test_waiting_for_a_file_that_can_not_be_read_yet_gets_its_next_value(db: PickleShareDB) -> None:
    (db.root / "k").write_bytes(GARBAGE)
    writer = f"import time, psync; time.sleep(0.3); psync.PickleShareDB({str(db.root)!r})['k'] = 5"
    with subprocess.Popen([sys.executable, "-c", writer], env=ENVIRON):
        assert db.waitget("k", 20) == 5


def test_a_folder_is_no_value(db: PickleShareDB) -> None:
    db["folder/key"] = 1
    with pytest.raises(KeyError):
        db["folder"]
    assert db.get("folder", 7) == 7
    del db["folder"]
    assert db.keys() == ["folder/key"]


# -- categories ------------------------------------------------------------------------------------


def test_hdict_says_what_is_corrupt_and_sets_it_aside(db: PickleShareDB, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        db.hset("hash", number, [number])
    (db.root / "hash" / "aa").write_bytes(GARBAGE)
    (db.root / "hash" / "02").write_bytes(b"\x80\x05" + GARBAGE)
    assert db.hdict("hash") == {0: [0], 1: [1], 3: [3]}
    said = capsys.readouterr().out
    assert "Corrupt hash/aa" in said
    assert "Corrupt hash/02" in said
    assert sorted(db.keys("hash/*")) == ["hash/00", "hash/01", "hash/03"]
    kept = [path.read_bytes() for path in db.root.rglob("*") if path.is_file()]
    assert GARBAGE in kept
    assert b"\x80\x05" + GARBAGE in kept
    assert db.hdict("hash") == {0: [0], 1: [1], 3: [3]}
    assert "Corrupt" not in capsys.readouterr().out


def test_hget_of_a_corrupt_bucket_is_a_key_error_or_the_default(db: PickleShareDB) -> None:
    (db.root / "hash").mkdir()
    (db.root / "hash" / "01").write_bytes(GARBAGE)
    with pytest.raises(KeyError):
        db.hget("hash", 1)
    assert db.hget("hash", 1, 5) == 5
    assert GARBAGE in [path.read_bytes() for path in db.root.rglob("*") if path.is_file()]


def test_hset_into_a_corrupt_bucket_begins_a_new_one(db: PickleShareDB) -> None:
    (db.root / "hash").mkdir()
    (db.root / "hash" / "01").write_bytes(GARBAGE)
    db.hset("hash", 1, "new")
    assert db.hget("hash", 1) == "new"
    assert db.hdict("hash") == {1: "new"}
    assert GARBAGE in [path.read_bytes() for path in db.root.rglob("*") if path.is_file()]


def test_the_bucket_files_are_values_too(db: PickleShareDB) -> None:
    db.hset("hash", 1, "one")
    db.hset("hash", 257, "two")
    assert db.keys("hash/*") == ["hash/01"]
    assert db["hash/01"] == {1: "one", 257: "two"}
    assert db.get(db.root / "hash" / pickleshare.gethashfile(1)) == {1: "one", 257: "two"}


# -- waiting and links -----------------------------------------------------------------------------


def test_waitget_gives_up_with_a_key_error(db: PickleShareDB) -> None:
    begin = time.monotonic()
    with pytest.raises(KeyError):
        db.waitget("never", 0.2)
    assert 0.15 < time.monotonic() - begin < 2


def test_links_are_short_hands(db: PickleShareDB) -> None:
    link = db.getlink("myobjects/test")
    assert isinstance(link, pickleshare.PickleShareLink)
    link.foo = 2
    link.bar = link.foo + 5
    assert (link.bar, db["myobjects/test/bar"]) == (7, 7)
    assert repr(link) == "<PickleShareLink 'myobjects/test': bar;foo>"
    with pytest.raises((AttributeError, KeyError)):
        link.missing


# -- the command -----------------------------------------------------------------------------------


def test_the_command_without_arguments_prints_its_usage() -> None:
    ran = psync_command(module=MODULE)
    assert (ran.code, ran.err) == (0, "")
    for command in ("dump", "load", "test"):
        assert f"pickleshare {command} /path/to/db" in ran.out


def test_what_the_command_dumps_it_loads(db: PickleShareDB, root: Path) -> None:
    db.update({"hello": 15, "aku ankka": [1, 2, 313]})
    dumped = psync_command("dump", root, module=MODULE)
    assert dumped.out == "[('aku ankka', [1, 2, 313]),\n ('hello', 15)]\n"
    loaded = psync_command("load", root / "other", typed=dumped.out, module=MODULE)
    assert (loaded.code, loaded.err) == (0, "")
    with PickleShareDB(root / "other") as other:
        assert dict(other) == {"hello": 15, "aku ankka": [1, 2, 313]}


def test_the_command_tries_out_a_directory(root: Path) -> None:
    ran = psync_command("test", root, module=MODULE)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("all is well\n")


def test_an_unknown_command_is_refused_with_exit_code_2() -> None:
    ran = psync_command("explode", module=MODULE)
    assert ran.code == 2
    assert "explode" in ran.err


def test_compressing_what_can_not_all_be_read_changes_nothing(db: PickleShareDB) -> None:
    db.hset("cat", 1, "one")
    db.hset("cat", 2, "two")
    (db.root / "cat" / "01").write_bytes(b"\x80\x04 damaged")
    for _ in range(2):
        with pytest.raises(KeyError):
            db.hcompress("cat")
        assert sorted(db.keys()) == ["cat/01", "cat/02"]
    assert db.hget("cat", 2) == "two"
    assert (db.root / "cat" / "01").read_bytes() == b"\x80\x04 damaged"


@pytest.mark.parametrize(
    ("bucket", "content"),
    [
        ("own", GARBAGE),
        ("own", b"\x80\x04}\x94"),
        ("own", None),
        ("xx", GARBAGE),
    ],
    ids=["garbage", "a pickle that is cut off", "a flipped bit", "garbage in xx"],
)
def test_hget_leaves_a_damaged_bucket_where_it_is(db: PickleShareDB, bucket: str, content: bytes | None) -> None:
    """PickleShare moves nothing; `hdict` of psync sets it aside, as `db[key]` does, and then goes on."""
    db.hset("cat", "key", 1)
    path = next((db.root / "cat").iterdir()) if bucket == "own" else db.root / "cat" / "xx"
    if content is None:
        whole = bytearray(path.read_bytes())
        whole[-8] ^= 1
        content = bytes(whole)
    path.write_bytes(content)
    wanted = "key" if bucket == "own" else "compressed"
    assert db.hget("cat", wanted, None, fast_only=False) is None
    with pytest.raises(KeyError):
        db.hget("cat", wanted, fast_only=False)
    assert path.read_bytes() == content
    db.hset("cat", "key", 2)
    assert db.hget("cat", "key") == 2


# -- values whose class is not there ---------------------------------------------------------------


def test_a_value_whose_class_is_gone_is_a_key_error_and_hides_no_other(db: PickleShareDB, root: Path) -> None:
    db.update({"a": 1, "c": 3})
    (root / "gone").write_bytes(GONE_CLASS)
    for act in (lambda: db["gone"], lambda: db.pop("gone")):
        with pytest.raises(KeyError):
            act()
    assert db.get("gone", 7) == 7
    with pytest.warns(RuntimeWarning, match=r"the value of 'gone'.*no_such_module\.Kind"):
        assert sorted(db.items()) == [("a", 1), ("c", 3)]
    with pytest.warns(RuntimeWarning, match=r"the value of 'gone'.*no_such_module\.Kind"):
        assert sorted(db.values()) == [1, 3]
    assert (root / "gone").read_bytes() == GONE_CLASS
    db["gone"] = 2
    assert sorted(db.values()) == [1, 2, 3]


def test_an_item_whose_class_is_gone_hides_no_other(
    db: PickleShareDB, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "cat").mkdir(mode=0o700)
    pair = b"\x80\x02}(U\x04gonecno_such_module\nKind\nU\x01aK\x01u."
    (root / "cat" / pickleshare.gethashfile("a")).write_bytes(pair)
    assert db.hget("cat", "a") == 1
    assert db.hget("cat", "gone", 7) == 7
    with pytest.raises(KeyError):
        db.hget("cat", "gone")
    for act in (lambda: None, lambda: db.hcompress("cat"), lambda: db.hset("cat", "b", 2)):
        act()
        with pytest.warns(RuntimeWarning, match=r"the item 'gone' of the category 'cat'.*no_such_module\.Kind"):
            assert {key: value for key, value in db.hdict("cat").items() if key != "b"} == {"a": 1}
    db.hset("cat", "gone", 3)
    assert db.hdict("cat") == {"a": 1, "b": 2, "gone": 3}
    assert capsys.readouterr().out == ""
