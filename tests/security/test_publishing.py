"""Sharing on purpose: with `umask=` others read what is published, and wait for it; they never write."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import (
    Barrier,
    Condition,
    Counter,
    Election,
    Event,
    Group,
    Latch,
    Lock,
    Mailbox,
    PickleShareDB,
    ReadWriteLock,
    Semaphore,
    StoreFailed,
    UnsafeStore,
    WorkQueue,
)
from psync.cli.main import main
from psync.engine import Sharing
from tests.security.test_directories import ANN, BOB, TEAM, as_user, use
from tests.support import files

pytestmark = files
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

READS: dict[str, Callable[[Any], Any]] = {
    "[]": lambda db: db["value"],
    "get": lambda db: (db.get("value"), db.get("none", "-"), "value" in db, len(db) > 3),
    "keys": lambda db: sorted(db.keys()),
    "items": lambda db: sorted(map(repr, db.items())),
    "a large value": lambda db: len(db["large"]),
    "hget": lambda db: db.hget("category", "item", fast_only=False),
    "hdict": lambda db: sorted(map(str, db.hdict("category"))),
    "hwait": lambda db: db.hwait("category", "item", 5),
    "waitget": lambda db: db.waitget("value", 5),
    "waitany": lambda db: db.waitany(["none", "value"], 5),
    "result": lambda db: WorkQueue(db, "jobs").results.get("done", 0),
    "results": lambda db: list(WorkQueue(db, "jobs").results.collect(timeout=0)),
    "task": lambda db: [WorkQueue(db, "jobs").state(id) for id in ("done", "dead", "waiting", "none")],
    "history": lambda db: [each.error for each in WorkQueue(db, "jobs").history("dead")],
    "dead": lambda db: [each.value for each in WorkQueue(db, "jobs").dead()],
    "queue": lambda db: (WorkQueue(db, "jobs").qsize(), WorkQueue(db, "jobs").statistics().put),
    "a queue that is finished": lambda db: WorkQueue(db, "finished").join(5),
    "letter": lambda db: Mailbox(db, "box").get("a", 5),
    "letters": lambda db: (list(Mailbox(db, "box").collect(timeout=0)), Mailbox(db, "box").addresses()),
    "event": lambda db: (Event(db, "set").is_set(), Event(db, "set").wait(5), Event(db, "clear").wait(0.01)),
    "counter": lambda db: (Counter(db, "hits").value, Counter(db, "hits").wait_for(3, 5)),
    "latch": lambda db: Latch(db, "latch", 2).count,
    "semaphore": lambda db: Semaphore(db, "permits", 3).get_value(),
    "lock": lambda db: (Lock(db, "lock").locked(), ReadWriteLock(db, "book").writer.locked()),
    "barrier": lambda db: [repr(gate := Barrier(db, "gate", 1)), gate.broken, gate.n_waiting],
    "group": lambda db: len(Group(db, "crew").members()),
    "leader": lambda db: Election(db, "chief").leader() is not None,
}
CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda db: db.__setitem__("value", 2),
    "add": lambda db: db.add("new", 2),
    "del": lambda db: db.__delitem__("value"),
    "pop": lambda db: db.pop("value"),
    "modify": lambda db: db.modify("value", lambda old: [old]),
    "hset": lambda db: db.hset("category", "new", 2),
    "hpop": lambda db: db.hpop("category", "item"),
    "hupdate": lambda db: db.hupdate("category", {"a": 1, "b": 2}),
    "hcompress": lambda db: db.hcompress("category"),
    "put": lambda db: WorkQueue(db, "jobs").put(1),
    "put an id": lambda db: WorkQueue(db, "jobs").put(1, id="new"),
    "get a task": lambda db: WorkQueue(db, "jobs").get(timeout=0),
    "close": lambda db: WorkQueue(db, "jobs").close(),
    "put into a new queue": lambda db: WorkQueue(db, "new").put(1),
    "post": lambda db: Mailbox(db, "box").post("new", 1),
    "take": lambda db: Mailbox(db, "box").take("a"),
    "event": lambda db: Event(db, "clear").set(),
    "a new event": lambda db: Event(db, "new").set(),
    "counter": lambda db: Counter(db, "hits").add(),
    "latch": lambda db: Latch(db, "latch", 2).count_down(),
    "lock": lambda db: Lock(db, "lock").acquire(timeout=0),
    "semaphore": lambda db: Semaphore(db, "permits", 3).acquire(timeout=0),
    "barrier": lambda db: Barrier(db, "gate", 1).wait(0),
    "group": lambda db: Group(db, "crew").join(),
    "election": lambda db: Election(db, "chief").campaign(timeout=0),
    "condition": lambda db: Condition(db, "c").acquire(timeout=0),
}
COMMANDS = {
    "get": ["get", "{}", "value"],
    "ls": ["ls", "-l", "{}"],
    "wait": ["wait", "{}", "value"],
    "results": ["results", "{}", "jobs"],
    "results of ids": ["results", "{}", "jobs", "done"],
    "results --wait": ["results", "--wait", "{}", "finished"],
    "results --wait of ids": ["results", "--wait", "{}", "jobs", "done"],
    "results --timeout": ["results", "--timeout", "0.05", "{}", "jobs"],
    "status": ["status", "{}"],
    "status --json": ["status", "--json", "{}"],
    "dump": ["dump", "{}"],
}


def publish(db: PickleShareDB) -> None:
    db["value"], db["folder/value"], db["large"] = 1, 2, "x" * 10_000
    db.hset("category", "item", 3)
    db.hupdate("category", {number: number for number in range(9)})
    db.hcompress("category")
    db.hset("category", "later", 4)
    jobs = WorkQueue(db, "jobs", max_attempts=1)
    for id in ("done", "dead", "waiting"):
        jobs.put(id, id=id)
    jobs.get().done("result")
    jobs.get().fail("no good")
    jobs.put("later", delay=0.01)
    finished = WorkQueue(db, "finished")
    finished.put(1)
    finished.get().done("well")
    Mailbox(db, "box").post("a", "letter")
    Event(db, "set").set()
    Event(db, "clear").clear()
    Counter(db, "hits").add(3)
    Latch(db, "latch", 2).count_down()
    Barrier(db, "gate", 1).wait()
    Semaphore(db, "permits", 3).acquire()
    Lock(db, "lock").acquire()
    Election(db, "chief").campaign()
    Group(db, "crew").join()


@pytest.fixture
def published(root: Path) -> Iterator[Path]:
    """A store of root's that all may read."""
    root.chmod(0o755)
    with PickleShareDB(root, umask=0o022) as db:
        publish(db)
        yield root


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o026, 0o077])
@pytest.mark.parametrize("of_process", [0, 0o022, 0o077])
def test_what_is_made_has_the_modes_that_were_asked_for(root: Path, umask: int, of_process: int) -> None:
    before = os.umask(of_process)
    try:
        with PickleShareDB(root / "new" / "store", umask=umask) as db:
            use(db)
            publish(db)
            assert os.umask(of_process) == of_process
            modes = {stat.S_IMODE(path.stat().st_mode) for path in [*root.rglob("*")] if path.is_file()}
            folders = {stat.S_IMODE(path.stat().st_mode) for path in [*root.rglob("*")] if path.is_dir()}
    finally:
        os.umask(before)
    assert (modes, folders) == ({0o666 & ~umask}, {0o777 & ~umask})


@pytest.mark.parametrize("umask", [0, 0o002, 0o020, 0o122, 0o777, -1, 0o1022, "022", 18.0])
def test_a_umask_that_lets_others_write_or_keeps_the_owner_out_is_refused(root: Path, umask: Any) -> None:
    with pytest.raises(ValueError, match="umask must be from 0o022"):
        PickleShareDB(root / "store", umask=umask)
    assert list(root.iterdir()) == []


def test_the_environment_says_it_for_all_stores_opened_without_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSYNC_UMASK", "027")
    Event(root, "by path").set()
    assert main(["set", str(root), "by command", "1"]) == 0
    PickleShareDB(root, umask=0o022)["by option"] = 1
    found = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("by command", "by option", ".psync")}
    assert found == {"by command": 0o640, "by option": 0o644, ".psync": 0o750}
    monkeypatch.setenv("PSYNC_UMASK", "rw-r--r--")
    assert main(["get", str(root), "by command"]) == 2
    with pytest.raises(ValueError, match="PSYNC_UMASK must be an octal number"):
        PickleShareDB(root)
    monkeypatch.setenv("PSYNC_UMASK", "000")
    with pytest.raises(ValueError, match="umask must be"):
        PickleShareDB(root)


def test_an_engine_that_travels_keeps_it(root: Path) -> None:
    import pickle

    with PickleShareDB(root, umask=0o022) as db, pickle.loads(pickle.dumps(db)) as again:
        again["a"] = 1
        db.engine.at("file").write("b", b"\x80\x05N.")
    assert {stat.S_IMODE((root / name).stat().st_mode) for name in "ab"} == {0o644}


@as_root
@pytest.mark.parametrize("sharing", ["host", "network"])
@pytest.mark.parametrize("read", READS)
def test_a_reader_sees_what_the_publisher_sees(published: Path, read: str, sharing: Sharing) -> None:
    with PickleShareDB(published, sharing=sharing) as db:
        expected = READS[read](db)
    before = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    assert as_user(BOB, [], lambda: READS[read](PickleShareDB(published, sharing=sharing))) == expected
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == before


@as_root
@pytest.mark.parametrize("change", CHANGES)
def test_a_reader_that_changes_something_is_told_what_keeps_him_from_it(
    published: Path, change: str, tmp_path: Path
) -> None:
    def tried() -> Any:
        try:
            return CHANGES[change](PickleShareDB(published))
        except StoreFailed as error:
            return str(error), error.errno, isinstance(error, OSError)

    with contextlib.suppress(queue.Empty), PickleShareDB(tmp_path / "another") as db:
        publish(db)
        CHANGES[change](db)  # so that all is imported that it needs
    text, code, _ = as_user(BOB, [], tried)
    assert code == 13 and "belongs to user root" in text and "refuses user 20002" in text, text


@as_root
@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_may_use_the_commands_that_look(published: Path, command: str) -> None:
    def ran() -> tuple[int, str, str]:
        out, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
            code = main([each.format(published) for each in COMMANDS[command]])
        return code, out.getvalue(), complaints.getvalue()

    expected, found = ran(), as_user(BOB, [], ran)
    if command.startswith("status"):  # what processes use is told of one's own alone
        assert found[0] == expected[0] == 0 and "chief" in found[1]
    else:
        assert found == expected


WAITS: dict[str, tuple[Callable[[Any, float], Any], Callable[[Any], Any]]] = {
    "a value": (lambda db, s: db.waitget("new", s), lambda db: db.__setitem__("new", 9)),
    "one of several": (lambda db, s: db.waitany(["no", "new"], s), lambda db: db.__setitem__("new", 9)),
    "the end of a value": (lambda db, s: db.waitgone("value", s), lambda db: db.__delitem__("value")),
    "an item": (lambda db, s: db.hwait("category", "new", s), lambda db: db.hset("category", "new", 9)),
    "an event": (lambda db, s: Event(db, "clear").wait(s), lambda db: Event(db, "clear").set()),
    "a new event": (lambda db, s: Event(db, "new").wait(s), lambda db: Event(db, "new").set()),
    "a count": (lambda db, s: Counter(db, "hits").wait_for(9, s), lambda db: Counter(db, "hits").add(6)),
    "a letter": (lambda db, s: Mailbox(db, "box").get("new", s), lambda db: Mailbox(db, "box").post("new", 9)),
    "a letter in a new box": (lambda db, s: Mailbox(db, "2").get("new", s), lambda db: Mailbox(db, "2").post("new", 9)),
    "a result": (
        lambda db, s: WorkQueue(db, "jobs").results.get("waiting", s),
        lambda db: next(iter(WorkQueue(db, "jobs"))).done(9),
    ),
    "a queue": (lambda db, s: WorkQueue(db, "jobs").join(s), lambda db: finish(WorkQueue(db, "jobs"))),
}


def finish(jobs: WorkQueue) -> None:
    for task in jobs:
        task.done(9)


@as_root
@pytest.mark.parametrize("what", WAITS)
def test_a_reader_waits_for_what_is_published(published: Path, what: str) -> None:
    wait, change = WAITS[what]
    with PickleShareDB(published, umask=0o022) as db:
        with contextlib.suppress(TimeoutError):
            wait(db, 0.001)  # so that all is imported that it needs
        timer = threading.Timer(0.2, lambda: change(db))
        timer.start()
        assert as_user(BOB, [], lambda: (wait(PickleShareDB(published), 60), "woken")[1]) == "woken"
        timer.join()


@as_root
def test_for_the_group_alone_others_are_told_what_refuses(root: Path) -> None:
    root.chmod(0o755)
    with PickleShareDB(root / "store", umask=0o027) as db:
        db["value"] = 1
    for path in (root / "store", *(root / "store").rglob("*")):
        os.chown(path, 0, TEAM)
    PickleShareDB(root)  # so that all is imported
    assert as_user(BOB, [TEAM], lambda: PickleShareDB(root / "store")["value"]) == 1
    with pytest.raises(
        StoreFailed, match=r"store belongs to user root, group 54321, has mode 0750, and refuses"
    ) as caught:
        as_user(ANN, [], lambda: PickleShareDB(root / "store"))
    assert "umask=0o022" in str(caught.value)


@as_root
@pytest.mark.parametrize("name", ["value", ".psync", ".psync/tmp"])
def test_without_the_option_the_error_names_what_refuses_and_the_option(root: Path, name: str) -> None:
    root.chmod(0o755)
    with PickleShareDB(root) as db:
        db["value"] = 1
    (root / ".psync").chmod(0o700 if name == ".psync" else 0o755)
    mode = "0600" if name == "value" else "0700"
    with pytest.raises(StoreFailed) as caught:
        as_user(BOB, [], lambda: PickleShareDB(root)["value"])
    text = str(caught.value)
    if name != ".psync/tmp":  # in which a reader has nothing to look for
        assert f"{root}/{name} belongs to user root, group root, has mode {mode}, and refuses user 20002" in text
    assert "umask=0o022" in text and "PSYNC_UMASK" in text and "chmod -R go+rX" in text


@as_root
def test_what_was_there_before_can_be_read_after_the_remedy(root: Path) -> None:
    root.chmod(0o755)
    PickleShareDB(root)["old"] = 1
    with PickleShareDB(root, umask=0o022) as db:
        db["new"] = 2
        assert os.system(f"chmod -R go+rX '{root}'") == 0
        db["newer"] = 3
    assert as_user(BOB, [], lambda: sorted(PickleShareDB(root).values())) == [1, 2, 3]


@as_root
def test_what_another_user_published_has_to_be_trusted(root: Path) -> None:
    """His values would run as the reader: in a team's folder he is trusted."""
    root.chmod(0o755)
    for name in ("pickles", "team"):
        (root / name).mkdir()
        os.chown(root / name, ANN, TEAM)
        (root / name).chmod(0o2755 if name == "team" else 0o755)
        as_user(ANN, [TEAM], lambda: PickleShareDB(root / name, umask=0o022).__setitem__("a", 1))  # noqa: B023
    with pytest.raises(UnsafeStore, match="belongs to user 20001"):
        as_user(BOB, [TEAM], lambda: PickleShareDB(root / "pickles"))
    with pytest.raises(UnsafeStore, match="belongs to user 20001"):
        as_user(BOB, [TEAM], lambda: PickleShareDB(root / "team"))
    assert as_user(BOB, [TEAM], lambda: PickleShareDB(root / "team", trust_group=True)["a"]) == 1


@as_root
@pytest.mark.parametrize("options", [{"serializer": "json"}, {"key": b"k" * 32}], ids=["json", "key"])
def test_what_another_user_published_as_json_or_sealed_needs_no_trust(root: Path, options: Any) -> None:
    root.chmod(0o755)
    store = root / "store"
    with PickleShareDB(root / "warm", **options) as db:
        db["a"] = 1  # so that all is imported
    store.mkdir()
    os.chown(store, ANN, ANN)

    def publish() -> None:
        with PickleShareDB(store, umask=0o022, **options) as db:
            db["a"] = {"b": [1]}
            Event(db, "done").set()

    def read() -> Any:
        with pytest.warns(RuntimeWarning, match="belongs to user 20001"), PickleShareDB(store, **options) as db:
            return db["a"], Event(db, "done").is_set()

    as_user(ANN, [], publish)
    assert as_user(BOB, [], read) == ({"b": [1]}, True)


@as_root
@pytest.mark.parametrize("command", ["get", "ls", "status", "results", "dump", "del"])
def test_a_command_names_the_parent_that_refuses(root: Path, command: str) -> None:
    root.chmod(0o755)
    store = root / "closed" / "store"
    with PickleShareDB(store) as db:
        db["a"] = 1
        WorkQueue(db, "jobs").put(1)

    def ran() -> tuple[int, str]:
        complaints = io.StringIO()
        more = {"get": ["a"], "del": ["b"], "results": ["jobs"]}.get(command, [])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(complaints):
            return main([command, str(store), *more]), complaints.getvalue()

    ran()  # so that all is imported
    code, text = as_user(BOB, [], ran)
    assert code == 1
    assert f"the folder {root}/closed belongs to user root, group root, has mode 0700, and refuses user 20002" in text
