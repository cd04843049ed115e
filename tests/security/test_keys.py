"""Keys: what one sealed is read by who has it and by nobody else, and a wrong one loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import pickletools
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import Barrier, Event, Executor, Lock, Mailbox, MemoryEngine, PickleShareDB, UnsafeStore, WorkQueue
from psync.engine.admin import paired
from psync.engine.directory import DirectoryEngine
from psync.engine.environment import KEY_FILE as FILE
from psync.engine.signed.keys import Keys
from tests.security.test_directories import as_root
from tests.store.test_corruption import quarantined

KEY, OTHER = b"the key of these tests", b"another key, as good as it"
VALUES: dict[str, Any] = {"small": 1, "folder/medium": {"run": list(range(300))}, "large": "x" * 200_000, "none": None}


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and "wake" not in path.parts}


def fill(db: PickleShareDB) -> None:
    db.update(VALUES)
    for number in range(30):
        db.hset("category", number, [number])
    db.hcompress("category")
    db.hupdate("category", {"a": 1, "b": 2})
    Mailbox(db, "box").post("monday", "rain")
    queue = WorkQueue(db, "queue")
    queue.put("first", id="mine")
    queue.put("second", priority=2)
    Event(db, "ready").set()


def check(db: PickleShareDB) -> None:
    assert {key: db[key] for key in VALUES} == VALUES
    assert db.hdict("category") == {**{number: [number] for number in range(30)}, "a": 1, "b": 2}
    assert db.hget("category", 7, fast_only=False) == [7]
    assert Mailbox(db, "box").get("monday", 0) == "rain"
    assert Event(db, "ready").is_set()
    queue = WorkQueue(db, "queue")
    with db.engine.log(queue._where).held():
        assert (queue.qsize(), queue.state("mine")) == (2, "waiting")


def test_all_that_was_sealed_is_read_with_the_key(root: Path) -> None:
    with PickleShareDB(root, key=KEY) as db:
        fill(db)
        check(db)
    with PickleShareDB(root, key=KEY) as db:
        check(db)
        queue = WorkQueue(db, "queue")
        tasks = [queue.get(), queue.get()]
        assert [task.value for task in tasks] == ["second", "first"]
        tasks[0].done("its result")
        tasks[1].fail("no")
        assert queue.results.get(tasks[0].id, 0) == "its result"
        assert [dead.value for dead in queue.dead()] == ["first"] and queue.revive() == ["mine"]
        assert queue.get().value == "first"
        assert db.pop("small") == 1 and db.modify("none", lambda old: [old]) == [None]
        assert sorted(key for key, _ in db.items()) == sorted(db.keys())
    assert quarantined(root) == []


@pytest.mark.parametrize("options", [{"key": KEY}, {"serializer": "json"}], ids=["key", "json"])
def test_a_directory_that_was_only_tried_out_by_hosts_may_become_any_store(root: Path, options: Any) -> None:
    with pytest.raises(TimeoutError):
        list(paired(root, 0.1))  # nobody else comes
    assert not (root / ".psync/pair").exists()
    DirectoryEngine(root).create(".psync/pair/first", b"\x80\x05N.")  # as a killed one leaves it
    with PickleShareDB(root, **options) as db:
        db["a"] = 1
    with PickleShareDB(root, **options) as db:
        assert db["a"] == 1


def test_no_file_of_a_sealed_store_says_what_is_in_it_to_an_unpickler(root: Path) -> None:
    """Whoever unpickles one finds bytes, or nothing: no opcode in it can look up a class."""
    with PickleShareDB(root, key=KEY) as db:
        db["value"] = Path("a")
        db.hset("category", "item", Path("b"))
    paths = [root / "value", *(root / "category").iterdir()]
    for path in paths:
        data = path.read_bytes()
        assert not {op.name for op, _, _ in pickletools.genops(data)} & {"GLOBAL", "STACK_GLOBAL", "INST", "REDUCE"}
        assert isinstance(pickle.loads(data), bytes) or pickle.loads(data) == {}


@pytest.mark.parametrize("given", [None, OTHER, [OTHER], KEY[:-1]], ids=["no key", "another", "a list", "a part of it"])
def test_a_sealed_store_is_not_opened_with_the_wrong_key(root: Path, given: Any) -> None:
    with PickleShareDB(root, key=KEY) as db:
        fill(db)
    before = files(root)
    with pytest.raises(UnsafeStore) as caught:
        PickleShareDB(root, key=given)
    told = str(caught.value)
    assert str(root) in told and "Remedy: " in told and "Nothing was changed" in told
    assert KEY.decode() not in told
    assert files(root) == before
    with PickleShareDB(root, key=KEY) as db:
        check(db)


def test_a_store_that_was_made_without_a_key_is_not_opened_with_one(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["a"] = 1
    before = files(root)
    with pytest.raises(UnsafeStore, match="made without a key") as caught:
        PickleShareDB(root, key=KEY)
    assert "psync dump" in str(caught.value)
    assert files(root) == before
    with PickleShareDB(root) as db:
        assert db["a"] == 1


def test_an_old_directory_is_not_opened_with_a_key(root: Path) -> None:
    (root / "old").write_bytes(pickle.dumps(1, protocol=2))
    with pytest.raises(UnsafeStore, match="made without a key"):
        PickleShareDB(root, key=KEY)
    assert (root / "old").read_bytes() == pickle.dumps(1, protocol=2)


def test_a_store_in_which_nothing_was_stored_yet_can_become_a_sealed_one(root: Path) -> None:
    with PickleShareDB(root) as db, Lock(db, "lock"):
        pass
    with PickleShareDB(root, key=KEY) as db:
        db["a"] = 1
    with pytest.raises(UnsafeStore):
        PickleShareDB(root)


def test_a_key_is_replaced_by_putting_the_new_one_first(root: Path) -> None:
    with PickleShareDB(root, key=KEY) as db:
        fill(db)
        register = db.engine.register(".psync/event/ready")
        assert register.read()
    with PickleShareDB(root, key=[OTHER, KEY]) as db:
        check(db)
        db["new"] = "sealed with the other"
        with PickleShareDB(root, key=KEY) as old, pytest.raises(UnsafeStore, match="sealed with the key") as caught:
            old["new"]
        assert "key=[the new one, the old one]" in str(caught.value)
        with PickleShareDB(root, key=[KEY, OTHER]) as old:
            assert old["new"] == "sealed with the other"
    with PickleShareDB(root, key=OTHER) as db:
        assert db["new"] == "sealed with the other"
        for key in VALUES:
            with pytest.raises(UnsafeStore, match=Keys(KEY).names[0].hex()):
                db[key]
        queue = WorkQueue(db, "queue")
        with pytest.raises(UnsafeStore):
            queue.get()
        assert queue._log.counts().waiting == 1  # it waits for somebody who has the key
    with PickleShareDB(root, key=[OTHER, KEY]) as db:
        check(db)
        for key in VALUES:
            db[key] = db[key]
    with PickleShareDB(root, key=OTHER) as db:
        assert {key: db[key] for key in VALUES} == VALUES
    assert quarantined(root) == []


@pytest.mark.parametrize("wrong", [b"", b"short", [], [KEY, b"short"], "a text that is long enough", [1], {}])
def test_what_can_be_no_key_is_refused(root: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match="key"):
        PickleShareDB(root / "store", key=wrong)
    assert not (root / "store").exists()


def test_nothing_of_a_key_shows_or_is_stored(root: Path) -> None:
    with PickleShareDB(root, key=[KEY, OTHER]) as db:
        fill(db)
        shown = repr(db) + repr(db.engine) + repr(vars(db.engine)["keys"])
        assert KEY.decode() not in shown and OTHER.decode() not in shown
        for data in (*files(root).values(), pickle.dumps(db), pickle.dumps(db.engine)):
            assert KEY not in data and OTHER not in data


def test_an_engine_in_memory_is_sealed_the_same_way() -> None:
    engine = MemoryEngine()
    db = PickleShareDB(engine, key=KEY)
    fill(db)
    check(db)
    raw = engine.read("small")
    assert raw is not None and isinstance(pickle.loads(raw.payload), bytes)
    with pytest.raises(UnsafeStore):
        PickleShareDB(engine, key=OTHER)
    assert PickleShareDB(engine, key=KEY)["small"] == 1
    with pytest.raises(ValueError, match="other keys"):
        PickleShareDB(db.engine, key=OTHER)
    db.close()


# -- the key file ------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = root / "the key"
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)
    monkeypatch.setenv(FILE, str(path))
    yield path


def test_the_key_file_is_used_for_every_directory_that_is_named(root: Path, key_file: Path) -> None:
    store = root / "store"
    with PickleShareDB(store) as db:
        fill(db)
    barrier = Barrier(store, "b", 1)
    barrier.wait()
    assert Event(str(store), "ready").is_set()
    with PickleShareDB(store, key=KEY) as db:
        check(db)
    assert type(barrier.engine).__name__ == "SignedEngine"
    barrier.engine.close()


def test_the_first_line_of_a_key_file_seals_and_all_of_them_read(root: Path, key_file: Path) -> None:
    with PickleShareDB(root / "store", key=KEY) as db:
        db["old"] = 1
    key_file.write_bytes(OTHER + b"\r\n\n" + KEY + b"\n")
    with PickleShareDB(root / "store") as db:
        db["new"] = db["old"]
    with PickleShareDB(root / "store", key=OTHER) as db:
        assert db["new"] == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o622])
def test_a_key_file_that_others_can_use_is_refused(root: Path, key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(UnsafeStore, match="chmod 600"):
        PickleShareDB(root / "store")
    assert not (root / "store").exists()


@as_root
def test_a_key_file_of_somebody_else_is_refused(root: Path, key_file: Path) -> None:
    os.chown(key_file, 65534, -1)
    with pytest.raises(UnsafeStore, match="who knows the key"):
        PickleShareDB(root / "store")


@pytest.mark.parametrize("how", ["plainly", "by a link to it", "by a link to the store", "in a folder"])
def test_a_key_file_that_lies_in_the_store_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    store = root / "store"
    (store / "folder").mkdir(parents=True, mode=0o700)
    store.chmod(0o700)
    inside = store / ("folder/key" if how == "in a folder" else "key")
    inside.write_bytes(KEY)
    inside.chmod(0o600)
    (root / "link").symlink_to(inside)
    (root / "store link").symlink_to(store)
    monkeypatch.setenv(FILE, str(root / "link" if how == "by a link to it" else inside))
    with pytest.raises(UnsafeStore, match="lies in the store"):
        PickleShareDB(root / "store link" if how == "by a link to the store" else store)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"short\n", KEY + b"\nshort\n"])
def test_a_key_file_without_keys_is_refused(root: Path, key_file: Path, content: bytes) -> None:
    key_file.write_bytes(content)
    with pytest.raises(UnsafeStore, match="does not hold keys") as caught:
        PickleShareDB(root / "store")
    assert "secrets.token_hex" in str(caught.value)


@pytest.mark.parametrize("kind", ["none", "folder", "FIFO"])
def test_what_is_no_key_file_is_refused(root: Path, key_file: Path, kind: str) -> None:
    key_file.unlink()
    if kind == "folder":
        key_file.mkdir()
    elif kind == "FIFO":
        os.mkfifo(key_file, 0o600)
    with pytest.raises(UnsafeStore, match="the key file"):
        PickleShareDB(root / "store")


def test_every_command_uses_the_key_file(root: Path, key_file: Path) -> None:
    def psync(*args: str, given: str = "", code: int = 0, key: bool = True) -> str:
        environment = {name: value for name, value in os.environ.items() if key or name != FILE}
        command = [sys.executable, "-m", "psync", *args]
        told = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
        assert told.returncode == code, told.stderr
        return told.stdout if code == 0 else told.stderr

    store = str(root / "store")
    psync("set", store, "greeting", "hello")
    assert psync("get", store, "greeting") == "hello\n"
    assert "is sealed, and no key was given" in psync("get", store, "greeting", code=1, key=False)
    psync("put", store, "queue", "one")
    psync("run", store, "--", "echo", "{}", given="a line\n")
    for shown in (psync("status", store), psync("top", store)):
        assert [line.split()[:2] for line in shown.splitlines() if " queue " in line] == [["queue", "1"]]
    assert "is sealed" in psync("status", store, code=1, key=False)
    assert "'greeting': 'hello'" in psync("dump", store) or "'greeting', 'hello'" in psync("dump", store)
    psync("worker", store, "-j", "1", "--drain")
    assert "all is well" in psync("doctor", store)


# -- travelling --------------------------------------------------------------------------------------------


def answer(db: PickleShareDB) -> None:
    with db:
        db["answer"] = db["question"] + 1


def test_a_handle_takes_its_key_along_to_a_process_that_is_spawned(root: Path) -> None:
    with PickleShareDB(root, key=KEY) as db:
        db["question"] = 41
        process = multiprocessing.get_context("spawn").Process(target=answer, args=(db,))
        process.start()
        process.join()
        assert process.exitcode == 0
        process.close()
        assert db["answer"] == 42


def test_a_handle_that_was_stored_finds_its_key_where_that_is_known_only(root: Path) -> None:
    key = secrets.token_bytes(32)
    with PickleShareDB(root, key=key) as db:
        db["question"] = 1
        stored = pickle.dumps(db)
        with pickle.loads(stored) as again:
            assert again["question"] == 1
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())['question'])"
    told = subprocess.run([sys.executable, "-c", code], input=stored, capture_output=True, check=False)
    assert told.returncode == 1 and b"UnsafeStore" in told.stderr and b"keys don't travel" in told.stderr
    assert key not in told.stderr


def test_calls_are_sealed_too(root: Path) -> None:
    with (
        PickleShareDB(root, key=KEY) as db,
        Executor(db, max_workers=1, mp_context=multiprocessing.get_context("spawn")) as executor,
    ):
        assert executor.submit(pow, 2, 8).result(timeout=60) == 256
    with pytest.raises(UnsafeStore):
        PickleShareDB(root)
