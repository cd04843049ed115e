"""A store of each version that ever was, opened by this psync: all that was in it is there, and work goes on."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

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
    TaskFailed,
    UnsafeStore,
    WorkQueue,
    copy_store,
)
from psync.engine.directory.layout import FORMAT_VERSION
from psync.engine.system import boot_time
from tests.format import make_golden
from tests.format.make_golden import BOOT, GOLDEN, ITEMS, KEY, VALUES
from tests.support import files

pytestmark = files

ARCHIVES = sorted(GOLDEN.glob("*.tar.gz"))
MAX_BYTES = 300_000


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def golden(request: pytest.FixtureRequest, root: Path) -> Path:
    with tarfile.open(request.param) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(params=["the same boot", "after a reboot"])
def rebooted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the host was started anew since the store was made."""
    if request.param == "the same boot":
        monkeypatch.setattr(boot_time, "_boot", lambda: BOOT)
    return request.param == "after a reboot"


def test_this_version_has_a_golden_store_and_it_is_small() -> None:
    assert f"version-{FORMAT_VERSION}.tar.gz" in [path.name for path in ARCHIVES]
    assert all(path.stat().st_size < MAX_BYTES for path in ARCHIVES)


def test_nothing_of_the_machine_that_made_it_is_in_it() -> None:
    wrong = [b"/tmp", b"/home", b"/work", b"/root", b"/dev/shm"]
    for path in ARCHIVES:
        with tarfile.open(path) as archive:
            for entry in archive:
                assert (entry.uid, entry.gid, entry.uname, entry.mtime) == (0, 0, "", 0)
                data = archive.extractfile(entry)
                text = b"" if data is None else data.read()
                assert [word for word in wrong if word in text] == [], entry.name


def test_the_recipe_still_makes_a_store_of_the_same_files(root: Path) -> None:
    """The archive of this version is of the same kind as what this psync writes: else the format has changed."""
    make_golden.make(root)
    with tarfile.open(fileobj=io.BytesIO(make_golden.pack(root))) as made:
        ours = {kind_of(name) for name in made.getnames() if not name.startswith("plain")}
    with tarfile.open(GOLDEN / f"version-{FORMAT_VERSION}.tar.gz") as archive:
        assert {kind_of(name) for name in archive.getnames()} == ours


def kind_of(name: str) -> str:
    """A name without the numbers of processes, slots and moments."""
    folder, _, _ = name.rpartition("/")
    return folder if folder.endswith(("owners", "wake", "holders")) or "/tmp" in name else name


# -- values and categories ----------------------------------------------------------------------------


def check_values(db: PickleShareDB) -> None:
    assert dict(db.items()) == VALUES | {key: db[key] for key in db if key.startswith(("category/", "compressed/"))}
    assert db.hdict("compressed") == ITEMS
    assert db.hdict("category") == {key: value for key, value in ITEMS.items() if key != "item 3"}
    assert db.hget("compressed", "item 0", fast_only=False) == ITEMS["item 0"]
    db["small"] = 8
    db.hset("compressed", "item 0", "new")
    db.hcompress("category")
    assert db["small"] == 8 and db.hdict("compressed") == {**ITEMS, "item 0": "new"}


def test_values_and_categories(golden: Path, rebooted: bool) -> None:
    with PickleShareDB(golden / "taken") as db:
        check_values(db)
    assert not (golden / "taken/.psync/quarantine").exists()


def test_a_sealed_store(golden: Path, rebooted: bool) -> None:
    with pytest.raises(UnsafeStore):
        PickleShareDB(golden / "sealed")
    with PickleShareDB(golden / "sealed", key=KEY) as db:
        check_values(db)
        assert Counter(db, "count").add() == 43
        assert [task.value for task in WorkQueue(db, "jobs").get_many(5, timeout=0)] == ["first", "second"]


def test_a_json_store(golden: Path, rebooted: bool) -> None:
    with PickleShareDB(golden / "json") as db:
        assert db.engine.format is not None and db.engine.format.serializer == "json"
        assert (db["small"], db.hdict("category")) == ({"number": 7}, {"item": [1, 2]})
        assert Counter(db, "count").add() == 43
        assert [task.value for task in WorkQueue(db, "jobs").get_many(5, timeout=0)] == ["first", "second"]


# -- primitives --------------------------------------------------------------------------------------


def test_each_primitive_is_in_its_state_and_what_the_dead_held_is_free(golden: Path, rebooted: bool) -> None:
    with PickleShareDB(golden / "taken") as db:
        assert Event(db, "ready").is_set()
        assert Counter(db, "count").value == 42
        assert Latch(db, "latch", 3).count == 2
        barrier = Barrier(db, "barrier", 1)
        assert barrier.statistics().round == 3 and barrier.wait(timeout=5) == 0
        broken = Barrier(db, "broken", 2)
        assert "broken in round 0: it was aborted by pid 1 on golden" in repr(broken)
        assert not broken.broken  # nobody who knew it lives: it begins anew
        assert DoubleBarrier(db, "step", 1).statistics().round == 1
        lock = Lock(db, "lock")
        assert not lock.locked() and lock.acquire(timeout=5) and lock.token == 5
        lock.release()
        rlock = RLock(db, "rlock")
        assert rlock.acquire(timeout=5)
        rlock.release()
        writer = ReadWriteLock(db, "rw").writer
        assert writer.acquire(timeout=5)
        writer.release()
        for semaphore, value in ((Semaphore(db, "semaphore", 3), 3), (BoundedSemaphore(db, "bounded", 2), 2)):
            for _ in range(value):
                assert semaphore.acquire(timeout=5)
            semaphore.release(value)
        condition = Condition(db, "condition")
        with condition:
            assert condition.statistics().waiting == () and not condition.wait(timeout=0)
        election = Election(db, "election")
        assert election.campaign(timeout=5) and election.token == 2
        election.resign()
        group = Group(db, "group")
        assert group.members() == [] and group.join("me").number == 2
        group.leave()
        large = db.engine.register(".psync/thing/large")
        assert large.read() == b"y" * 20_000 and large.update(lambda old: b"z") == large.read() == b"z"


def test_a_mailbox(golden: Path, rebooted: bool) -> None:
    with PickleShareDB(golden / "taken") as db:
        box = Mailbox(db, "mail")
        assert {number: box.get(number, timeout=0) for number in box.addresses()} == {
            number: f"letter {number}" for number in range(11)
        }
        assert not box.post(0, "another") and box.post(12, "letter 12")


# -- queues ------------------------------------------------------------------------------------------


def test_a_half_done_queue(golden: Path, rebooted: bool) -> None:
    with PickleShareDB(golden / "taken") as db:
        queue = WorkQueue(db, "jobs", max_attempts=2)
        queue.recover()
        seen = queue.statistics()
        assert (seen.waiting, seen.delayed, seen.running, seen.dead, seen.closed) == (3, 1, 0, 2, False)
        dead = {task.value: [attempt.error for attempt in task.history] for task in queue.dead()}
        assert dead == {"task 2": ["no good"], "task 3": ["try again", "its worker died"]}
        for task in queue.dead():
            with pytest.raises(TaskFailed):
                queue.results.get(task.id, timeout=0)
        results = [str(queue.results.get(id, timeout=0)) for id in results_of(queue)]
        assert sorted(results) == ["first!", "urgent!"]
        assert queue.put("by name", id="mine") == "mine" and queue.state("mine") == "waiting"
        got = queue.get_many(9, timeout=0)
        assert [(task.value, task.attempt) for task in got] == [("task 4", 1), ("task 5", 1), ("by name", 1)]
        for task in got:
            task.done()
        assert (queue.qsize(), queue.statistics().delayed) == (0, 1)
        assert queue.state(queue.put("new")) == "waiting" and queue.get(timeout=0).value == "new"


def results_of(queue: WorkQueue) -> list[str]:
    return [id for id in queue.results.addresses() if queue.state(id) == "done"]


def test_a_closed_queue_and_one_that_asked_the_disk(golden: Path, rebooted: bool) -> None:
    with PickleShareDB(golden / "taken") as db:
        closed = WorkQueue(db, "closed")
        assert closed.closed and closed.get(timeout=0).value == "last"
        durable = WorkQueue(db, "durable", durability="power")
        assert durable.get(timeout=0).value == "two" and durable.statistics().waiting == 0


def test_a_golden_store_can_be_copied(golden: Path) -> None:
    with PickleShareDB(golden / "copy") as new:
        copied = copy_store(golden / "taken", new)
        assert copied.differences == () and copied.queues == 3
        assert {key: new[key] for key in VALUES} == VALUES
