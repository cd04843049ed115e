"""A level belongs to a handle: of a store, category, queue or mailbox; each verb asks the disk for what it says."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import Mailbox, PickleShareDB, WorkQueue
from psync.engine import DirectoryEngine, MemoryEngine
from tests.crash import ptrace

LEVELS = ["process", "file", "power"]


def asked(act: Callable[[Any], object], ready: Callable[[], Any]) -> list[str]:
    """What the disk is asked for in `act`."""
    if reason := ptrace.unavailable():
        pytest.skip(reason)
    run = ptrace.run(act, ready=ready)
    assert run.error is None, run.error
    return [call for call in run.calls if call.startswith(("fsync(", "fdatasync(", "syncfs("))]


def put_one(db: PickleShareDB) -> WorkQueue:
    jobs = WorkQueue(db, "jobs")
    jobs.put(1)
    return jobs


VERBS: dict[str, tuple[Callable[[PickleShareDB], Any], Callable[[Any], object]]] = {
    "set": (lambda db: db, lambda db: db.__setitem__("a", 1)),
    "overwrite": (lambda db: db.update(a=0) or db, lambda db: db.__setitem__("a", 1)),
    "add": (lambda db: db, lambda db: db.add("a", 1)),
    "modify": (lambda db: db.update(a=0) or db, lambda db: db.modify("a", lambda old: old + 1)),
    "hset": (lambda db: db.hset("cat", "a", 0) or db, lambda db: db.hset("cat", "a", 1)),
    "hupdate": (lambda db: db, lambda db: db.hupdate("cat", dict.fromkeys(range(5)))),
    "hdel": (lambda db: db.hset("cat", "a", 0) or db, lambda db: db.hdel("cat", "a")),
    "put": (lambda db: WorkQueue(db, "jobs"), lambda jobs: jobs.put(1)),
    "put_many": (lambda db: WorkQueue(db, "jobs"), lambda jobs: jobs.put_many([1, 2])),
    "put with a delay": (lambda db: WorkQueue(db, "jobs"), lambda jobs: jobs.put(1, delay=9)),
    "put with an id": (lambda db: WorkQueue(db, "jobs"), lambda jobs: jobs.put(1, id="x")),
    "get": (put_one, lambda jobs: jobs.get()),
    "done": (lambda db: put_one(db).get(), lambda task: task.done()),
    "done with a result": (lambda db: put_one(db).get(), lambda task: task.done(1)),
    "retry": (lambda db: put_one(db).get(), lambda task: task.retry()),
    "post": (lambda db: Mailbox(db, "box"), lambda box: box.post("a", 1)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_durable_verb_asks_the_disk_and_one_of_the_default_level_does_not(verb: str, root: Path) -> None:
    ready, act = VERBS[verb]

    def opened(level: Any) -> Any:
        return lambda: ready(PickleShareDB(root / level, durability=level))

    calls = {level: asked(act, opened(level)) for level in LEVELS}
    own = "cat" if verb in ("hdel", "hupdate") else ""  # these make the new file durable at every level
    assert own or calls["process"] == []
    assert calls["file"]
    assert calls["power"]


@pytest.mark.parametrize("verb", ["hcompress", "hdel"])
def test_what_is_about_to_be_deleted_is_elsewhere_on_the_disk_at_every_level(verb: str, root: Path) -> None:
    def ready() -> PickleShareDB:
        db = PickleShareDB(root)
        db.hupdate("cat", dict.fromkeys("abcdef"))
        return db

    run = ptrace.run(lambda db: db.hcompress("cat") if verb == "hcompress" else db.hdel("cat", "a"), ready=ready)
    names = [call.partition("(")[0] for call in run.calls]
    assert names.index("fsync") < names.index("rename")
    if verb == "hcompress":
        folder = run.calls.index(f"fsync({root}/cat)")
        assert names.index("rename") < folder < names.index("unlink")


def test_a_category_can_have_a_level_of_its_own(root: Path) -> None:
    def ready() -> PickleShareDB:
        db = pickle.loads(pickle.dumps(PickleShareDB(root, categories={"accounts": "power"})))
        db.hset("accounts", "ann", 0)
        db.hset("colours", "ann", "red")
        return db

    assert asked(lambda db: db.hset("accounts", "ann", 1), ready)
    assert not asked(lambda db: db.hset("colours", "ann", "blue"), ready)
    assert not asked(lambda db: db.__setitem__("ann", 1), ready)


@pytest.mark.parametrize("kind", [WorkQueue, Mailbox])
def test_a_queue_and_a_mailbox_can_have_a_level_of_their_own_and_take_it_along(kind: Any, root: Path) -> None:
    db = PickleShareDB(root)
    there = pickle.loads(pickle.dumps(kind(db, "x", durability="file")))
    assert there._engine.durability == "file"
    assert kind(db, "x")._engine is db.engine
    assert kind(db, "x", durability="file")._engine is db.engine.at("file")


def test_handles_of_several_levels_are_one_process(root: Path) -> None:
    engine = DirectoryEngine(root)
    assert engine.at("power").at("file").at("process") is engine.at(None) is engine
    assert engine.at("file").owner() == engine.owner()
    with contextlib.closing(engine.at("file")):
        jobs, durable = WorkQueue(engine, "jobs"), WorkQueue(engine, "jobs", durability="power")
        jobs.put("a")
        durable.put("b")
        jobs.put("c")
        tasks = [jobs.get().value, durable.get().value, jobs.get().value]
    assert tasks == ["a", "b", "c"]


def test_a_level_that_does_not_exist_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="'process', 'file' or 'power', not 'disk'"):
        WorkQueue(root, "jobs", durability="disk")  # type: ignore[arg-type]


def test_where_there_are_no_levels_any_will_do() -> None:
    engine = MemoryEngine()
    assert engine.at("power") is engine
