"""With the last key of a folder its folder goes; who sets a key there at that moment succeeds, and loses nothing."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.cli.main import main
from psync.engine.directory.fs import syscalls
from tests.concurrency.simultaneous import together
from tests.crash.pairs import Pair, Side, stand_still_everywhere
from tests.support import scaled

OPTIONS: dict[str, dict[str, Any]] = {
    "here": {},
    "network": {"sharing": "network"},
    "power": {"durability": "power"},
    "signed": {"key": b"k" * 32},
    "json": {"serializer": "json"},
}
each_store = pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))


def pop_all(db: PickleShareDB) -> None:
    while db:
        db.popitem()


REMOVALS: dict[str, Callable[[PickleShareDB], object]] = {
    "del": lambda db: db.__delitem__("a/b/c"),
    "pop": lambda db: db.pop("a/b/c"),
    "popitem": pop_all,
    "clear": lambda db: db.clear(),
}


def folders(db: PickleShareDB) -> list[str]:
    root = str(db.root)
    found = [os.path.relpath(f"{folder}/{name}", root) for folder, names, _ in os.walk(root) for name in names]
    return sorted(name for name in found if not name.startswith(".psync"))


@each_store
@pytest.mark.parametrize("remove", REMOVALS)
def test_the_folders_of_the_last_key_go_with_it(root: Path, options: dict[str, Any], remove: str) -> None:
    db = PickleShareDB(root, **options)
    db["a/b/c"] = 1
    REMOVALS[remove](db)
    assert folders(db) == [] and db.root.is_dir() and db.keys() == []
    db["a/b/c"] = 2
    assert PickleShareDB(root, **options)["a/b/c"] == 2


@each_store
def test_a_folder_with_anything_in_it_stays(root: Path, options: dict[str, Any]) -> None:
    db = PickleShareDB(root, **options)
    for key in ("a/b/c", "a/b/d", "with/file", "with/folder/x"):
        db[key] = 1
    Path(db.root, "with", "README").touch()
    for key in ("a/b/c", "with/file", "with/folder/x"):
        del db[key]
    assert folders(db) == ["a", "a/b", "with"] and db.keys("a/*") == []
    del db["a/b/d"]
    assert folders(db) == ["with"]


def test_load_leaves_no_empty_folders(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    db, other = PickleShareDB(root), PickleShareDB(tmp_path / "other")
    db["a/b/c"], other["d"] = 1, 2
    assert main(["dump", str(other.root)]) == 0
    dumped = capsys.readouterr().out.encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(dumped)))
    assert main(["load", str(root)]) == 0
    assert folders(db) == [] and db.keys() == ["d"]


def test_a_link_to_a_folder_is_left_alone(root: Path, tmp_path: Path) -> None:
    db = PickleShareDB(root)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    Path(db.root, "link").symlink_to(tmp_path / "elsewhere")
    db["link/key"] = 1
    del db["link/key"]
    assert Path(db.root, "link").is_symlink() and (tmp_path / "elsewhere").is_dir()


def test_a_sweep_removes_what_earlier_versions_left(root: Path) -> None:
    db = PickleShareDB(root)
    db["kept/value"] = 1
    for name in ("old/1", "old/2/3", "kept/empty"):
        Path(db.root, name).mkdir(parents=True)
    Path(db.root, "named").mkdir()
    Path(db.root, "named", ".DS_Store").touch()
    assert db.sweep() == 5 + 0 and folders(db) == ["kept", "named"] and db.keys() == ["kept/value", "named/.DS_Store"]


def test_a_moved_value_and_a_damaged_one_leave_no_empty_folder(root: Path) -> None:
    db = PickleShareDB(root)
    db["a/b"] = 1
    db.engine.move("a/b", "c/d")
    assert folders(db) == ["c"]
    data = Path(db.root, "c/d").read_bytes()
    Path(db.root, "c/d").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Exception, match="quarantine"):
        db["c/d"]
    assert folders(db) == []


# -- at the same time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"sharing": "network"}], ids=["here", "network"])
def test_a_key_that_is_set_while_the_last_one_of_its_folder_is_deleted_is_there(
    root: Path, options: dict[str, Any]
) -> None:
    """Each process has a key of its own in one folder, which comes and goes with them all the time."""
    PickleShareDB(root).close()
    end = time.monotonic() + 0.5 * scaled(1)

    def work(me: int) -> int:
        db, rounds = PickleShareDB(root, **options), 0
        while time.monotonic() < end:
            rounds += 1
            key = f"jobs/of/{me}"
            if me % 2:
                db[key] = rounds
            else:
                assert db.add(key, rounds)
            assert db[key] == rounds
            del db[key]
        return rounds

    rounds = together([lambda me=me: work(me) for me in range(4)])  # type: ignore[misc]
    assert all(rounds) and folders(PickleShareDB(root)) == []


KEY = "jobs/of/mine"


def sets(
    value: Any, verb: Callable[[PickleShareDB, Any], object] = lambda db, value: db.__setitem__(KEY, value)
) -> Side:
    def act(db: PickleShareDB) -> Any:
        verb(db, value)
        return db[KEY] == value

    return Side(lambda stage: PickleShareDB(stage.path), act)


DELETES = Side(lambda stage: PickleShareDB(stage.path), lambda db: db.__delitem__("jobs/of/other"))
SETTERS: dict[str, Side] = {
    "a small value": sets(1),
    "a big value": sets("v" * 9000),
    "add": sets(1, lambda db, value: db.add(KEY, value)),
    "modify": sets(1, lambda db, value: db.modify(KEY, lambda old: value, default=0)),
    "hset": Side(
        lambda stage: PickleShareDB(stage.path),
        lambda db: (db.hset("jobs/of", "mine", 1), db.hget("jobs/of", "mine") == 1)[1],
    ),
}


def before(stage: Any) -> None:
    PickleShareDB(stage.path)["jobs/of/other"] = 0


@pytest.mark.crash
@pytest.mark.parametrize("how", SETTERS)
def test_one_sets_a_key_in_each_moment_of_the_removal_of_its_folder_and_the_other_way_round(
    how: str, root: Path
) -> None:
    pair = Pair(how, SETTERS[how], DELETES, lambda end: end.said == [True, None], prepare=before)
    stood = stand_still_everywhere(pair, root)
    assert stood.points


def test_a_waiter_is_woken_by_a_key_in_a_folder_that_came_again(root: Path) -> None:
    db = PickleShareDB(root)
    db[KEY] = 1
    found: list[Any] = []

    def wait() -> None:
        db.waitgone(KEY, maxwaittime=30)
        found.append(db.waitget(KEY, maxwaittime=30))
        found.append(time.monotonic())

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    del db[KEY]
    assert folders(db) == []
    time.sleep(0.2)
    begun = time.monotonic()
    db[KEY] = 2
    waiter.join(30)
    assert found[0] == 2 and found[1] - begun < 1.5  # else it reads by itself, every two seconds


def test_a_folder_that_comes_again_is_on_the_disk_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has synced the folder's own name must not rely on that after another one made it anew."""
    mine, other = PickleShareDB(root, durability="power"), PickleShareDB(root)
    mine["jobs/1"] = 1
    for folder in (root, Path(root, "jobs")):
        os.utime(folder, (1e9, 1e9))  # long ago, so that it is known what was synced
    mine["jobs/2"] = 2
    synced: list[str] = []
    real = syscalls.sync_folder
    monkeypatch.setattr("psync.engine.directory.fs.atomic.sync_folder", lambda path: (synced.append(path), real(path)))
    mine["jobs/3"] = 3
    assert str(root) not in synced
    for key in mine.keys("jobs/*"):
        del other[key]
    synced.clear()
    mine["jobs/4"] = 4
    assert str(root) in synced


def test_what_is_always_missing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    def missing() -> None:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        syscalls.with_folder(str(tmp_path / "a" / "b"), missing)
