"""Whom a directory trusts: who could write to it, to its parents or its files is trusted, or it is not opened."""

from __future__ import annotations

import errno
import grp
import multiprocessing
import os
import pickle
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import Barrier, PickleShareDB, UnsafeStore, WorkQueue
from psync.engine.directory.admin.read_only import ReadOnlyEngine
from psync.engine.directory.fs import permissions

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


def refused(root: Path, **options: Any) -> UnsafeStore:
    """The error with which the directory is not opened, neither to work in nor to look at."""
    with pytest.raises(UnsafeStore) as caught:
        PickleShareDB(root, **options)
    with pytest.raises(UnsafeStore):
        ReadOnlyEngine(root, **options)
    assert isinstance(caught.value, PermissionError)
    assert "Remedy: " in str(caught.value) and str(caught.value.path) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path, again.reason) == (str(caught.value), caught.value.path, caught.value.reason)
    return caught.value


def opens(root: Path, **options: Any) -> None:
    with PickleShareDB(root, **options) as db:
        db["folder/key"] = 1
        assert db["folder/key"] == 1


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757, 0o702])
def test_a_directory_that_everybody_can_write_to_is_refused(root: Path, mode: int) -> None:
    root.chmod(mode)
    error = refused(root)
    assert error.path == str(root) and f"chmod o-w '{root}'" in str(error)
    assert not (root / ".psync").exists()
    root.chmod(mode & ~0o022)
    opens(root)


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o711, 0o500 | 0o200])
def test_a_directory_that_others_can_only_read_is_opened(root: Path, mode: int) -> None:
    root.chmod(mode)
    opens(root)


@as_root
@pytest.mark.parametrize("mode", [0o770, 0o775, 0o2770])
def test_a_directory_that_a_group_can_write_to_is_refused(root: Path, mode: int) -> None:
    os.chown(root, 0, 12345)
    root.chmod(mode)
    text = str(refused(root))
    assert f"chmod g-w '{root}'" in text and "trust_group=True" not in text  # root is in no such group
    root.chmod(mode & ~0o020)
    opens(root)


@as_root
def test_a_directory_of_somebody_else_is_refused(root: Path) -> None:
    os.chown(root, NOBODY, -1)
    assert "who could put anything there" in str(refused(root))


@as_root
@pytest.mark.parametrize("how", ["owner", "mode", "group"])
def test_a_parent_that_others_can_write_to_is_refused(root: Path, how: str) -> None:
    store = root / "parent" / "between" / "store"
    store.mkdir(parents=True, mode=0o700)
    parent = root / "parent"
    if how == "owner":
        os.chown(parent, NOBODY, -1)
    elif how == "group":
        os.chown(parent, 0, 12345)
    parent.chmod(0o777 if how == "mode" else 0o775)
    assert refused(store).path == str(parent)
    refused(store / "not" / "yet" / "there")
    assert not (store / "not").exists()
    if how == "mode":
        parent.chmod(0o1777)
        opens(store)


@as_root
def test_in_a_sticky_parent_what_is_somebody_elses_is_refused(root: Path) -> None:
    root.chmod(0o1777)
    (root / "store").mkdir(mode=0o700)
    os.chown(root / "store", NOBODY, -1)
    refused(root / "store")
    (root / "mine").mkdir(mode=0o700)
    (root / "link").symlink_to("mine")
    opens(root / "link")
    os.lchown(root / "link", NOBODY, -1)
    error = refused(root / "link")
    assert error.path == str(root / "link") and "could let it lead elsewhere" in str(error)


def test_a_link_to_a_directory_is_judged_by_where_it_leads(root: Path) -> None:
    for name, mode in (("open", 0o777), ("closed", 0o700)):
        (root / name).mkdir()
        (root / name).chmod(mode)
        (root / name / "store").mkdir(mode=0o700)
        (root / f"to {name}").symlink_to(f"{name}/store")
    opens(root / "to closed")
    assert refused(root / "to open").path == str(root / "open")
    refused(root / "closed" / ".." / "open" / "store")


@pytest.mark.parametrize("name", [".psync", ".psync/tmp", ".psync/quarantine"])
def test_a_link_in_place_of_psyncs_own_folders_is_refused(root: Path, name: str) -> None:
    outside = root / "outside"
    outside.mkdir()
    store = root / "store"
    (store / name).parent.mkdir(parents=True, mode=0o700)
    (store / ".psync").parent.chmod(0o700)
    (store / name).symlink_to(outside)
    refused(store)
    assert list(outside.iterdir()) == []


def test_new_folders_and_files_are_the_users_alone_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        with PickleShareDB(root / "new" / "store") as db:
            use(db)
            modes = {stat.S_IMODE(path.stat().st_mode) for path in (root / "new").rglob("*") if path.is_dir()}
            assert modes == {0o700}
            assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()} == {0o600}
            assert os.umask(0) == 0
    finally:
        os.umask(before)


def use(db: PickleShareDB) -> None:
    """Make a file of every kind."""
    db["folder/small"], db["large"] = 1, "x" * 10_000
    db.hset("category", "item", 1)
    db.hupdate("category", {number: number for number in range(9)})
    db.hcompress("category")
    queue = WorkQueue(db, "queue")
    queue.put(1, delay=3600)
    queue.put(2, priority=1)
    queue.get().retry()
    queue.get().done(3)
    Barrier(db, "barrier", 1).wait()
    with db.engine.watch(["folder/small"]) as watch:
        watch.pause(0)


# -- private groups ------------------------------------------------------------------------------------


class People:
    """A user, his primary group, and who else is in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, members: list[str], primary: list[tuple[str, int]]) -> None:
        class Entry:
            def __init__(self, **facts: Any) -> None:
                self.__dict__.update(facts)

        users = [Entry(pw_name=name, pw_uid=1000 + number, pw_gid=gid) for number, (name, gid) in enumerate(primary)]
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: {user.pw_uid: user for user in users}[uid])  # type: ignore[attr-defined]
        monkeypatch.setattr(pwd, "getpwall", lambda: users)
        monkeypatch.setattr(grp, "getgrgid", lambda gid: Entry(gr_mem=members, gr_name="the group"))
        permissions.is_private_group.cache_clear()


@pytest.mark.parametrize(
    ("members", "primary", "private"),
    [
        ([], [("ann", 1000)], True),
        (["ann"], [("ann", 1000), ("bob", 1001)], True),
        (["bob"], [("ann", 1000)], False),
        ([], [("ann", 1000), ("bob", 1000)], False),
        ([], [("ann", 100)], False),
        ([], [], False),
    ],
)
def test_a_group_is_private_if_nobody_else_is_in_it(
    monkeypatch: pytest.MonkeyPatch, members: list[str], primary: list[tuple[str, int]], private: bool
) -> None:
    People(monkeypatch, members, primary)
    try:
        assert permissions.is_private_group(1000, 1000) is private
    finally:
        permissions.is_private_group.cache_clear()


@as_root
def test_folders_and_files_that_ones_private_group_can_write_to_are_safe(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with umask 002, which many systems have."""
    os.chown(root, 0, 12345)
    root.chmod(0o775)
    (root / "old").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    os.chown(root / "old", 0, 12345)
    (root / "old").chmod(0o664)
    refused(root)
    monkeypatch.setattr(permissions, "is_private_group", lambda gid, uid: (gid, uid) == (12345, 0))
    with PickleShareDB(root) as db:
        assert db["old"] == {"a": 1}
        db["old"] = 2
        assert db["old"] == 2


# -- files -----------------------------------------------------------------------------------------------


READS: dict[str, Callable[[PickleShareDB], Any]] = {
    "[]": lambda db: db["key"],
    "get": lambda db: db.get("key"),
    "pop": lambda db: db.pop("key", None),
    "modify": lambda db: db.modify("key", lambda old: old),
    "items": lambda db: list(db.items()),
    "waitget": lambda db: db.waitget("key", 0),
    "hget": lambda db: db.hget("category", "item"),
    "hdict": lambda db: db.hdict("category"),
    "hset": lambda db: db.hset("category", "item", 2),
    "hcompress": lambda db: db.hcompress("category"),
    "set": lambda db: db.__setitem__("key", 2),
}


@pytest.fixture
def planted(root: Path) -> list[Path]:
    """A value and a bucket in a directory that others can enter."""
    root.chmod(0o755)
    with PickleShareDB(root) as db:
        db["key"] = 1
        db.hset("category", "item", 1)
    (root / "category").chmod(0o755)
    return [root / "key", *(root / "category").iterdir()]


@as_root
@pytest.mark.parametrize("read", READS)
def test_a_file_of_somebody_else_is_neither_read_nor_written(root: Path, planted: list[Path], read: str) -> None:
    for path in planted:
        os.chown(path, NOBODY, -1)
    before = [path.read_bytes() for path in planted]
    with PickleShareDB(root) as db, pytest.raises(UnsafeStore, match="belongs to user nobody"):
        READS[read](db)
    assert [path.read_bytes() for path in planted] == before


@pytest.mark.parametrize("read", READS)
def test_a_file_that_everybody_can_write_to_is_neither_read_nor_written(
    root: Path, planted: list[Path], read: str
) -> None:
    for path in planted:
        path.chmod(0o646)
    before = [path.read_bytes() for path in planted]
    with PickleShareDB(root) as db, pytest.raises(UnsafeStore, match="can be written to by everybody"):
        READS[read](db)
    assert [path.read_bytes() for path in planted] == before


def test_in_a_directory_that_nobody_else_can_enter_the_modes_of_files_do_not_matter(
    root: Path, planted: list[Path]
) -> None:
    for path in planted:
        path.chmod(0o666)
    root.chmod(0o700)
    with PickleShareDB(root) as db:
        assert db["key"] == 1 and db.hdict("category") == {"item": 1}
        db["key"] = 2
        assert db["key"] == 2


def test_a_folder_that_everybody_can_write_to_gets_nothing(root: Path) -> None:
    root.chmod(0o755)
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    with PickleShareDB(root) as db:
        for key in ("open/key", "open/below/key", "open/category/00"):
            with pytest.raises(UnsafeStore, match="written to by everybody"):
                db[key] = 1
        with pytest.raises(UnsafeStore):
            db.hset("open/category", "item", 1)
        assert list((root / "open").rglob("*")) == [] or not any(path.is_file() for path in (root / "open").rglob("*"))
        (root / "open").chmod(0o755)
        db["open/key"] = 1
        assert db["open/key"] == 1


@as_root
def test_a_folder_that_is_somebody_elses_link_is_not_written_through(root: Path) -> None:
    outside = root / "outside"
    outside.mkdir(mode=0o700)
    store = root / "store"
    store.mkdir(mode=0o755)
    (store / "link").symlink_to(outside)
    os.lchown(store / "link", NOBODY, -1)
    (outside / "there").write_bytes(b"mine")
    with PickleShareDB(store) as db:
        for key in ("link/new", "link/there"):
            with pytest.raises(UnsafeStore):
                db[key] = 1
    assert [path.read_bytes() for path in outside.iterdir()] == [b"mine"]


def test_a_value_with_another_name_elsewhere_is_replaced_and_not_written_into(root: Path) -> None:
    (root / "mine").write_bytes(pickle.dumps("mine", protocol=2))
    store = root / "store"
    with PickleShareDB(store) as db:
        os.link(root / "mine", store / "key")
        assert db["key"] == "mine"
        db["key"] = "psync's"
        os.link(root / "mine", store / "other")
        db.modify("other", lambda old: old + "!")
        assert (db["key"], db["other"]) == ("psync's", "mine!")
    assert (root / "mine").read_bytes() == pickle.dumps("mine", protocol=2)


def test_a_bucket_or_a_register_with_another_name_elsewhere_is_refused(root: Path) -> None:
    store = root / "store"
    with PickleShareDB(store) as db:
        db.hset("category", "item", 1)
        Barrier(db, "b", 1).wait()
    bucket = next((store / "category").iterdir())
    for number, path in enumerate((bucket, store / ".psync" / "barrier" / "b")):
        os.link(path, root / f"other {number}")
    before = [(root / f"other {number}").read_bytes() for number in range(2)]
    with PickleShareDB(store) as db:
        for change in (lambda: db.hset("category", "item", 2), lambda: Barrier(db, "b", 1).wait(timeout=5)):
            with pytest.raises(UnsafeStore, match="hard link") as caught:
                change()
            assert "cp -p" in str(caught.value)
    assert [(root / f"other {number}").read_bytes() for number in range(2)] == before


# -- a team's folder -------------------------------------------------------------------------------------

TEAM = 54321
ANN, BOB, EVE = 20001, 20002, 20003
FORK = multiprocessing.get_context("fork")


def as_user(uid: int, groups: list[int], job: Callable[[], Any]) -> Any:
    """What `job` returns, or the exception that it raises, in a process of that user."""
    receiver, sender = FORK.Pipe(duplex=False)

    def work() -> None:
        os.setgroups(groups)
        os.setgid(uid)
        os.setuid(uid)
        os.umask(0o077)
        try:
            sender.send(job())
        except Exception as error:
            sender.send(error)

    process = FORK.Process(target=work)
    process.start()
    try:
        assert receiver.poll(30)
        answer = receiver.recv()
    finally:
        process.join()
        process.close()
        receiver.close()
        sender.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def team(root: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can be several users")
    root.chmod(0o755)
    folder = root / "team"
    folder.mkdir()
    os.chown(folder, ANN, TEAM)
    folder.chmod(0o2770)
    return folder


def test_a_team_works_in_its_folder(team: Path) -> None:
    def write() -> None:
        with PickleShareDB(team, trust_group=True) as db:
            use(db)

    def change() -> Any:
        with PickleShareDB(team, trust_group=True) as db:
            db["folder/small"] += 1
            db["folder/new"] = "bob's"
            db.hset("category", "other", 2)
            queue = WorkQueue(db, "queue")
            queue.put("bob's")
            Barrier(db, "barrier", 1).wait()
            return db["folder/small"], sorted(map(str, db.hdict("category"))), queue.qsize()

    as_user(ANN, [TEAM], write)
    small, items, waiting = as_user(BOB, [TEAM], change)
    assert (small, len(items), waiting) == (2, 11, 1)
    assert as_user(ANN, [TEAM], lambda: PickleShareDB(team, trust_group=True)["folder/new"]) == "bob's"
    for path in team.rglob("*"):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o2770 if path.is_dir() else 0o660, TEAM)


def test_a_teams_folder_is_not_trusted_without_being_told(team: Path) -> None:
    with pytest.raises(UnsafeStore, match="trust_group=True"):
        as_user(ANN, [TEAM], lambda: PickleShareDB(team))
    with pytest.raises(UnsafeStore, match="belongs to user 20001"):
        as_user(BOB, [TEAM], lambda: PickleShareDB(team))


def test_who_is_not_in_the_team_is_kept_out(team: Path) -> None:
    with pytest.raises(OSError) as caught:
        as_user(EVE, [], lambda: PickleShareDB(team, trust_group=True))
    assert caught.value.errno == errno.EACCES or isinstance(caught.value, UnsafeStore)
    team.chmod(0o2777)
    with pytest.raises(UnsafeStore, match="everybody"):
        as_user(ANN, [TEAM], lambda: PickleShareDB(team, trust_group=True))


def test_a_folder_without_the_setgid_bit_is_no_teams_folder(team: Path) -> None:
    team.chmod(0o770)
    with pytest.raises(UnsafeStore, match="setgid") as caught:
        as_user(ANN, [TEAM], lambda: PickleShareDB(team, trust_group=True))
    assert "chmod 2770" in str(caught.value)


def test_a_file_that_came_from_outside_the_team_is_refused(team: Path) -> None:
    def write() -> None:
        with PickleShareDB(team, trust_group=True) as db:
            db["key"] = 1

    as_user(ANN, [TEAM], write)
    os.chown(team / "key", EVE, EVE)
    with pytest.raises(UnsafeStore, match="belongs to user 20003"):
        as_user(ANN, [TEAM, EVE], lambda: PickleShareDB(team, trust_group=True)["key"])
