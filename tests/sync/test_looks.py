"""A look leaves the list of files and folders as it was, whether what it looks at is there or not."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Counter,
    DoubleBarrier,
    Election,
    Event,
    Group,
    Latch,
    Lock,
    Mailbox,
    PickleShareDB,
    ReadWriteLock,
    RLock,
    Semaphore,
    WaitTimeout,
    WorkQueue,
)
from psync.cli.main import main
from tests.cli.shell import ENVIRON
from tests.support import files

pytestmark = files

KINDS: dict[str, Callable[[Any, str], Any]] = {
    "Barrier": lambda db, name: Barrier(db, name, 2),
    "BoundedSemaphore": lambda db, name: BoundedSemaphore(db, name, 2),
    "Condition": Condition,
    "Counter": Counter,
    "DoubleBarrier": lambda db, name: DoubleBarrier(db, name, 2),
    "Election": Election,
    "Event": Event,
    "Group": Group,
    "Latch": lambda db, name: Latch(db, name, 2),
    "Lock": Lock,
    "Mailbox": Mailbox,
    "RLock": RLock,
    "ReadWriteLock": ReadWriteLock,
    "Semaphore": lambda db, name: Semaphore(db, name, 2),
    "WorkQueue": WorkQueue,
}


def vain(wait: Callable[[], Any]) -> None:
    """A wait without patience: one look."""
    with pytest.raises((WaitTimeout, TimeoutError)):
        wait()


LOOKS: dict[str, Callable[[Any, str], Any]] = {
    "a missing key": lambda db, name: (db.get(name + "/none"), name + "/none" in db),
    "a value": lambda db, name: db.get(name),
    "in": lambda db, name: name in db,
    "len": lambda db, name: len(db),
    "keys": lambda db, name: (db.keys(), db.keys("*"), list(db)),
    "items": lambda db, name: (list(db.items()), list(db.values())),
    "hget": lambda db, name: db.hget("category", name, None, fast_only=False),
    "hdict": lambda db, name: (db.hdict("category"), db.hdict("none")),
    "getlink": lambda db, name: dir(db.getlink("folder")),
    "repr of a store": lambda db, name: (repr(db), db.root, db.cache),
    "waitget": lambda db, name: vain(lambda: db.waitget("none", 0)),
    "waitany": lambda db, name: vain(lambda: db.waitany(["none", "nor this"], 0)),
    "hwait": lambda db, name: vain(lambda: db.hwait("category", "none", 0)),
    "waitgone": lambda db, name: db.waitgone("none", 0),
    **{f"repr of {kind}": lambda db, name, make=make: repr(make(db, name)) for kind, make in KINDS.items()},  # type: ignore[misc]
    **{
        f"statistics of {kind}": lambda db, name, make=make: make(db, name).statistics()  # type: ignore[misc]
        for kind, make in KINDS.items()
        if kind != "RLock"
    },
    "is_set": lambda db, name: (Event(db, name).is_set(), Event(db, name).wait(0)),
    "value": lambda db, name: (Counter(db, name).value, Semaphore(db, name, 2).get_value(), Latch(db, name, 2).count),
    "wait for a value": lambda db, name: vain(lambda: Counter(db, name).wait_for(99, timeout=0)),
    "locked": lambda db, name: (
        Lock(db, name).locked(),
        ReadWriteLock(db, name).reader.locked(),
        ReadWriteLock(db, name).writer.locked(),
        Semaphore(db, name, 2).locked(),
    ),
    "barrier": lambda db, name: (Barrier(db, name, 2).n_waiting, Barrier(db, name, 2).broken),
    "leader": lambda db, name: (Election(db, name).leader(), Election(db, name).is_leader),
    "members": lambda db, name: (Group(db, name).members(), len(Group(db, name))),
    "mailbox": lambda db, name: (
        len(Mailbox(db, name)),
        "a" in Mailbox(db, name),
        Mailbox(db, name).addresses(),
        list(Mailbox(db, name).collect(timeout=0)),
    ),
    "a letter": lambda db, name: vain(lambda: Mailbox(db, name).get("none", 0)),
    "letters": lambda db, name: vain(lambda: list(Mailbox(db, name).collect(["none", "nor this"], 0))),
    "queue": lambda db, name: (
        WorkQueue(db, name).qsize(),
        WorkQueue(db, name).empty(),
        WorkQueue(db, name).full(),
        WorkQueue(db, name).dead(),
        WorkQueue(db, name).state("none"),
        WorkQueue(db, name).state("id"),
        WorkQueue(db, name).history("id"),
    ),
    "results": lambda db, name: (
        len(WorkQueue(db, name).results),
        WorkQueue(db, name).results.addresses(),
        list(WorkQueue(db, name).results.collect(timeout=0)),
        "id" in WorkQueue(db, name).results,
    ),
    "facts": lambda db, name: (db.engine.facts("a"), db.engine.is_used(), list(db.engine.walk(".psync"))),
    "processes": lambda db, name: (db.engine.processes(), db.engine.mutexes()),
}
COMMANDS = {
    "get": ["get", "{}", "used"],
    "get of what is missing": ["get", "{}", "none"],
    "ls": ["ls", "{}"],
    "ls -l": ["ls", "-l", "{}", "*"],
    "results": ["results", "{}", "used"],
    "results of a task": ["results", "{}", "used", "id"],
    "results --json": ["results", "--json", "{}", "used"],
    "results of no queue": ["results", "{}", "none"],
    "results of no call": ["results", "--calls", "{}", "none"],
    "status": ["status", "{}"],
    "status --json": ["status", "--json", "{}"],
    "doctor": ["doctor", "{}"],
    "dump": ["dump", "{}"],
}


def names(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*")}


def fill(db: PickleShareDB) -> None:
    """One thing of each kind, with the name "used"."""
    db["used"] = db["folder/a"] = 1
    db.hset("category", "used", 1)
    Event(db, "used").set()
    Counter(db, "used").add()
    Lock(db, "used").acquire()
    Lock(db, "used").release()
    Mailbox(db, "used").post("a", 1)
    tasks = WorkQueue(db, "used")
    tasks.put(1, id="id")
    tasks.get().done("result")
    tasks.put(2)
    Barrier(db, "used", 1).wait()


@pytest.mark.parametrize("name", ["used", "unused"])
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_makes_no_file(root: Path, look: str, name: str) -> None:
    with PickleShareDB(root) as db:
        if name == "used":
            fill(db)
    with PickleShareDB(root) as db:
        before = names(root)
        LOOKS[look](db, name)
        assert names(root) - before == set()
        assert before - names(root) == set()


@pytest.mark.parametrize("variable", ["PSYNC_SERIALIZER", "PSYNC_KEY_FILE"])
@pytest.mark.parametrize("look", ["get of what is missing", "ls", "results of no queue", "dump"])
def test_a_store_that_is_not_begun_yet_is_not_begun_by_a_look(
    root: Path, look: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("6b" * 32)
    key.chmod(0o600)
    monkeypatch.setenv(variable, {"PSYNC_SERIALIZER": "json", "PSYNC_KEY_FILE": str(key)}[variable])
    missing = f"psync get: there is no key 'none' in {root}\n"
    assert command(root, look) == {"get of what is missing": missing, "dump": "[]\n"}.get(look, "")
    assert names(root) == set()


def command(root: Path, look: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main([each.format(root) for each in COMMANDS[look]])
    return out.getvalue()


@pytest.mark.parametrize("place", ["a store", "an empty directory", "what PickleShare wrote"])
@pytest.mark.parametrize("look", COMMANDS)
def test_a_command_that_looks_makes_no_file(root: Path, look: str, place: str) -> None:
    if place == "a store":
        with PickleShareDB(root) as db:
            fill(db)
    elif place == "what PickleShare wrote":
        (root / "used").write_bytes(b"\x80\x02K\x01.")
    before = names(root)
    out = command(root, look)
    assert names(root) == before
    assert "Read-only" not in out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("look", COMMANDS)
def test_a_look_works_on_a_read_only_mount(root: Path, look: str) -> None:
    with PickleShareDB(root) as db:
        fill(db)
    arguments = [each.format(root) for each in COMMANDS[look]]
    plain = subprocess.run(
        [sys.executable, "-m", "psync", *arguments], env=ENVIRON, check=False, capture_output=True, text=True
    )
    script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"'
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", str(root), sys.executable, "-m", "psync", *arguments],
        env=ENVIRON, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if look == "doctor":
        assert ran.returncode == 1 and "reading only" in ran.stdout
    else:
        assert (ran.returncode, ran.stdout, ran.stderr) == (plain.returncode, plain.stdout, plain.stderr)


# -- waiters ---------------------------------------------------------------------------------------------

WAITS: dict[str, Callable[[PickleShareDB], Any]] = {
    "waitget": lambda db: vain(lambda: db.waitget("none", 0.01)),
    "waitany": lambda db: vain(lambda: db.waitany([f"none {number}" for number in range(9)], 0.01)),
    "hwait": lambda db: vain(lambda: db.hwait("category", "none", 0.01)),
    "an event": lambda db: Event(db, "none").wait(0.01),
    "a value": lambda db: vain(lambda: Counter(db, "none").wait_for(9, 0.01)),
    "a letter": lambda db: vain(lambda: Mailbox(db, "box").get("a", 0.01)),
    "letters": lambda db: vain(lambda: list(Mailbox(db, "box").collect(range(9), 0.01))),
    "all letters": lambda db: list(Mailbox(db, "box").collect(timeout=0.01)),
    "results": lambda db: vain(lambda: list(WorkQueue(db, "none").results.collect(["a", "b"], 0.01))),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_waiter_makes_one_file_at_most_and_takes_it_away_at_the_end(root: Path, wait: str) -> None:
    PickleShareDB(root).close()
    before = names(root)
    with PickleShareDB(root) as db:
        WAITS[wait](db)
        assert len({name for name in names(root) - before if Path(name).is_file()}) <= 1
    assert names(root) == before


def test_a_waiter_for_several_names_is_woken_whoever_else_waits(root: Path) -> None:
    """By a writer that finds a file for the name, or none; and also when the file was made, or removed, meanwhile."""
    with PickleShareDB(root) as db, PickleShareDB(root, durability="file") as other:
        woken: queue.Queue[Any] = queue.Queue()
        for number in range(30):
            keys = [f"{number} {letter}" for letter in "abcdefgh"]
            threads = [threading.Thread(target=lambda: woken.put(db.waitany(keys, 60)))]  # noqa: B023
            if number % 3:
                threads.append(threading.Thread(target=lambda: woken.put(other.waitget(keys[3], 60))))  # noqa: B023
            for thread in threads:
                thread.start()
            if number % 2:
                time.sleep(0.01)  # so that they sleep
            if number % 5 == 0:
                for path in (root / ".psync/wake").iterdir():
                    if path.name != "armed":
                        path.unlink()
            begun = time.monotonic()
            db[keys[3]] = number
            for thread in threads:
                thread.join()
            took = time.monotonic() - begun
            for _ in threads:
                assert woken.get(timeout=0) in (number, (keys[3], number))
            assert took < 60
