"""``psync status DIR`` tells what is there and who is at it, and changes nothing by looking."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from psync import (
    Barrier,
    BoundedSemaphore,
    Counter,
    Election,
    Event,
    Group,
    Lock,
    PickleShareDB,
    ReadWriteLock,
    RLock,
    Semaphore,
    WorkQueue,
)
from psync.engine.directory.admin.read_only import ReadOnlyEngine
from psync.errors import StoreFailed
from psync.work.admin.overview import Observer
from tests.cli.shell import ENVIRON, psync
from tests.support import files

OTHERS = """
import sys, threading, time
from psync import Barrier, Lock, WorkQueue
root = sys.argv[1]
barrier = Barrier(root, "epoch", parties=2)
barrier.wait(60)  # with the test
task = WorkQueue(root, "jobs/small").get()
assert task.value == "first"
Lock(root, "a/door").acquire()
print("ready", flush=True)
time.sleep(600)
"""


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every file with its bytes, and when it was changed; every folder with when its entries did."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns, path.stat().st_ctime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def prepared(root: Path) -> Iterator[tuple[Path, int]]:
    """A directory in which much goes on, in this process and in another one, whose pid comes with it."""
    with PickleShareDB(root) as db:
        db["value"] = 1
        queue = WorkQueue(db, "jobs/small")
        queue.put("first", id="my id")
        queue.put_many(["second", "third"])
        queue.put("later", delay=600)
        queue.put("urgent", priority=-5)
        dead = WorkQueue(db, "old")
        dead.put("bad")
        dead.get().fail("no good")
        dead.put("good")
        dead.get().done("well")
        dead.close()
        other = subprocess.Popen([sys.executable, "-c", OTHERS, str(root)], env=ENVIRON, stdout=subprocess.PIPE)
        try:
            barrier = Barrier(db, "epoch", parties=2)
            barrier.wait(60)
            assert other.stdout is not None
            assert other.stdout.readline() == b"ready\n"
            with (
                Election(db, "chief"),
                RLock(db, "mine"),
                Semaphore(db, "seats", 3),
                BoundedSemaphore(db, "permits", 1),
                ReadWriteLock(db, "book").reader,
            ):
                Group(db, "crew").join({"role": "cook"})
                Event(db, "ready").set()
                Counter(db, "hits").add(3)
                Lock(db, "free").acquire()
                Lock(db, "free").release()
                yield root, other.pid
        finally:
            other.kill()
            other.communicate()


@files
def test_everything_is_shown_and_nothing_is_changed(prepared: tuple[Path, int]) -> None:
    root, other = prepared
    before = snapshot(root)
    ran, told = psync("status", root), psync("status", root, "--json")
    assert snapshot(root) == before
    assert (ran.code, ran.err) == (0, "")
    shown = json.loads(told.out)
    me, they = f"pid {os.getpid()} on ", f"pid {other} on "

    queues = {queue["name"]: queue for queue in shown["queues"]}
    assert {*queues} == {"jobs/small", "old"}
    small, old = queues["jobs/small"], queues["old"]
    assert [small[each] for each in ("put", "waiting", "delayed", "running", "dead", "workers")] == [5, 3, 1, 1, 0, 1]
    assert [old[each] for each in ("put", "waiting", "running", "dead", "workers", "closed")] == [2, 0, 0, 1, 1, True]
    [claim] = small["claims"]
    assert (claim["id"], claim["attempt"], claim["begun"]) == ("my id", 1, True)
    assert claim["who"].startswith(they)

    [barrier] = shown["barriers"]
    assert (barrier["name"], barrier["round"], barrier["parties"], barrier["waiting"]) == ("epoch", 1, 2, [])
    assert sorted(who.split(",")[0].split(" on")[0] for who in barrier["missing"]) == sorted(
        [f"pid {os.getpid()}", f"pid {other}"]
    )
    held = {(each["kind"], each["name"]): each["who"] for each in shown["held"]}
    assert {*held} == {("lock", "a/door"), ("election", "chief"), ("rlock", "mine")}
    assert held["lock", "a/door"].startswith(they)
    assert held["election", "chief"].startswith(me)
    assert {each["name"]: each["value"] for each in shown["semaphores"]} == {"seats": 2, "permits": 0}
    [crew] = shown["groups"]
    assert crew["members"][0]["information"] == {"role": "cook"}
    others = {each["kind"]: each for each in shown["others"]}
    assert (others["counter"]["value"], others["event"]["is_set"]) == (3, True)
    assert others["rwlock"]["readers"][0].startswith(me)
    processes = {each["pid"]: each for each in shown["processes"]}
    assert {*processes} == {os.getpid(), other}
    assert all(each["alive"] == "yes" and each["memory"] > 1e6 for each in processes.values())

    for words in ("jobs/small", "my id", "a/door", they, "epoch", "chief", "crew", "'role': 'cook'", "lives"):
        assert words in ran.out
    assert max(map(len, ran.out.splitlines())) < 250


@files
def test_what_a_killed_process_had_is_shown_as_the_deads(root: Path) -> None:
    text = OTHERS.replace("barrier.wait(60)", "")
    WorkQueue(root, "jobs/small").put("first")
    other = subprocess.Popen([sys.executable, "-c", text, str(root)], env=ENVIRON, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    other.kill()
    other.communicate()
    before = snapshot(root)
    shown = json.loads(psync("status", root, "--json").out)
    assert snapshot(root) == before
    assert shown["held"] == []
    [queue] = shown["queues"]
    assert queue["workers"] == 0
    assert queue["claims"][0]["who"].endswith("(dead)")
    assert [each["alive"] for each in shown["processes"] if each["pid"] == other.pid] == ["no"]


HOLDS = """
import os, signal, sys, psync
for kind, name, value, count in (("Semaphore", "many", 10, 3), ("BoundedSemaphore", "bound", 4, 4)):
    semaphore = getattr(psync, kind)(sys.argv[1], name, value)
    for _ in range(count):
        semaphore.acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""


@files
def test_what_dead_holders_held_of_a_semaphore_counts_as_free(root: Path) -> None:
    with PickleShareDB(root) as db:
        many, bound = Semaphore(db, "many", 10), BoundedSemaphore(db, "bound", 4)
        many.acquire()
        assert subprocess.run([sys.executable, "-c", HOLDS, str(root)], env=ENVIRON, check=False).returncode == -9
        before = snapshot(root)
        shown = json.loads(psync("status", root, "--json").out)["semaphores"]
        plain = psync("status", root).out
        assert snapshot(root) == before
        assert {each["name"]: each["value"] for each in shown} == {"many": 9, "bound": 4}
        assert [len(each["holders"]) for each in shown] == [1, 0]
        assert re.search(r"^  many +9 +pid", plain, re.M) and re.search(r"^  bound +4 +-", plain, re.M)
        assert (many.get_value(), bound.get_value()) == (9, 4)


@files
def test_what_is_damaged_is_named_stays_and_hides_nothing_else(root: Path) -> None:
    with PickleShareDB(root) as db:
        Counter(db, "good").add(7)
        Counter(db, "bad").add(1)
        queue = WorkQueue(db, "jobs")
        queue.put(1)
        queue.get().fail("no")
    (root / ".psync/counter/bad").write_bytes(b"x" * 4096)
    [grave] = (root / ".psync/queue/jobs/dead").iterdir()
    grave.write_bytes(grave.read_bytes()[:-20] + b"y" * 20)
    before = snapshot(root)
    ran = psync("status", root)
    assert snapshot(root) == before
    assert ran.code == 1
    assert "psync status: counter bad: " in ran.err and "psync status: queue jobs: " in ran.err
    assert "value 7" in ran.out


def test_a_name_with_escape_sequences_is_shown_without_them(root: Path) -> None:
    Counter(root, "\x1b[31mred").add()
    assert "\x1b" not in psync("status", root).out
    assert json.loads(psync("status", root, "--json").out)["others"][0]["name"] == "\x1b[31mred"


def test_where_nothing_goes_on_it_says_so(root: Path) -> None:
    PickleShareDB(root)["a"] = 1
    assert psync("status", root) == (0, f"{root}: nothing goes on here\n", "")


@files
@pytest.mark.parametrize("command", ["status", "top"])
def test_a_directory_without_psync_is_said_to_be_one_and_left_alone(root: Path, command: str) -> None:
    ran = psync(command, root)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"psync {command}: {root} holds nothing of psync's")
    assert list(root.iterdir()) == []
    ran = psync(command, root / "none")
    assert (ran.code, ran.err) == (1, f"psync {command}: {root}/none is not a directory\n")
    assert psync(command).code == psync(command, root, "more").code == 2


@files
def test_who_only_looks_can_not_change_anything(root: Path) -> None:
    PickleShareDB(root)["a"] = 1
    engine = ReadOnlyEngine(root)
    db = PickleShareDB(engine)
    assert db["a"] == 1
    for change in (
        lambda: db.__setitem__("a", 2),
        lambda: db.pop("a"),
        lambda: db.hupdate("h", {1: 1}),
        lambda: WorkQueue(db, "q").get(block=False),
        engine.owner,
    ):
        with pytest.raises(StoreFailed):
            change()
    assert db["a"] == 1


def test_who_looks_again_and_again_sees_what_was_not_there_at_first(root: Path) -> None:
    queue = WorkQueue(root, "jobs")
    queue.put_many(range(3))
    observer = Observer(str(root))
    try:
        assert observer.look().queues[0].counts.waiting == 3
        task = queue.get()
        queue.put(3, delay=600)
        seen = observer.look()
        assert seen.troubles == ()
        (jobs,) = seen.queues
        assert (jobs.counts.waiting, jobs.counts.running, jobs.counts.delayed) == (2, 1, 1)
        assert [claim.id for claim in jobs.claims] == [task.id]
        task.done()
    finally:
        observer.close()
