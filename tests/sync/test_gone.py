"""A directory that is gone: every verb says so, instead of working in files that nobody else sees."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import psync
from psync.engine.directory.fs.nfs_files import NfsFiles
from psync.engine.directory.fs.presence import LOOK_INTERVAL_S
from tests.support import combined

WINDOW_S = 0.01
"""More than the time after which a process that has made many looks makes one more."""
TOLD_S = 5.0
"""A waiter is told within this time."""


# -- the ways of being gone ----------------------------------------------------------------------------


def removed(root: Path) -> None:
    shutil.rmtree(root)


def moved_away(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def replaced(root: Path) -> None:
    moved_away(root)
    root.mkdir(mode=0o700)


def replaced_by_a_store(root: Path) -> None:
    moved_away(root)
    subprocess.run([sys.executable, "-c", OTHER_STORE, str(root)], check=True)


OTHER_STORE = "import psync, sys; psync.PickleShareDB(sys.argv[1])['value'] = 'of another store'"


def link_switched(root: Path) -> None:
    """`root` is a link to a directory."""
    other = root.with_name("other")
    other.mkdir(mode=0o700)
    new = root.with_name("new link")
    new.symlink_to(other)
    os.replace(new, root)


def replaced_by_a_file(root: Path) -> None:
    moved_away(root)
    root.write_text("no directory")


WHOLE = [removed, moved_away, replaced, replaced_by_a_store, link_switched, replaced_by_a_file]


def purged(root: Path) -> None:
    """As a cleaner of old files does: the folders stay."""
    for path in sorted((root / ".psync").rglob("*")):
        if path.is_file():
            path.unlink()


def purged_whole(root: Path) -> None:
    shutil.rmtree(root / ".psync")


# -- the verbs -----------------------------------------------------------------------------------------


class Verb(NamedTuple):
    """What is done before the directory goes, and what has to raise afterwards."""

    name: str
    ready: Callable[[psync.PickleShareDB], Callable[[], object]]
    own: bool = True
    """Whether its state is a file of psync's, of which it would not know that it is lost."""

    def __str__(self) -> str:
        return self.name


def on(make: Callable[[psync.PickleShareDB], Any], act: Callable[[Any], object]) -> Callable[..., Any]:
    """Make a handle, use it once, and return what uses it again."""

    def ready(db: psync.PickleShareDB) -> Callable[[], object]:
        handle = make(db)
        act(handle)
        return lambda: act(handle)

    return ready


def stored(act: Callable[[psync.PickleShareDB], object]) -> Callable[..., Any]:
    def ready(db: psync.PickleShareDB) -> Callable[[], object]:
        db["value"] = db["other"] = db["number"] = 1
        db.hupdate("items", {"a": 1, "b": 2})
        return lambda: act(db)

    return ready


def claimed(act: Callable[[psync.Task], object]) -> Callable[..., Any]:
    def ready(db: psync.PickleShareDB) -> Callable[[], object]:
        jobs = psync.WorkQueue(db, "jobs")
        jobs.put("work")
        task = jobs.get()
        return lambda: act(task)

    return ready


def held(kind: Any, act: Callable[[Any], object]) -> Callable[..., Any]:
    def ready(db: psync.PickleShareDB) -> Callable[[], object]:
        lock = kind(db, "held")
        assert lock.acquire()
        return lambda: act(lock)

    return ready


def both(lock: Any) -> None:
    lock.acquire()
    lock.release()


def queue(db: psync.PickleShareDB) -> psync.WorkQueue:
    jobs = psync.WorkQueue(db, "jobs")
    jobs.put_many(range(20))
    return jobs


def led(db: psync.PickleShareDB) -> psync.Election:
    election = psync.Election(db, "boss")
    election.campaign()
    return election


def _posted(db: psync.PickleShareDB) -> psync.Mailbox:
    box = psync.Mailbox(db, "m")
    box.post(1, 1)
    return box


VERBS = [
    Verb("set", stored(lambda db: db.__setitem__("value", 2)), own=False),
    Verb("set new", stored(lambda db: db.__setitem__("folder/new", 2)), own=False),
    Verb("set large", stored(lambda db: db.__setitem__("value", "x" * 10_000)), own=False),
    Verb("add", stored(lambda db: db.add("new", 1)), own=False),
    Verb("modify", stored(lambda db: db.modify("number", lambda n: n + 1)), own=False),
    Verb("delete", stored(lambda db: db.__delitem__("value")), own=False),
    Verb("pop", stored(lambda db: db.pop("value")), own=False),
    Verb("setdefault", stored(lambda db: db.setdefault("new", 1)), own=False),
    Verb("hset", stored(lambda db: db.hset("items", "a", 3)), own=False),
    Verb("hset new", stored(lambda db: db.hset("others", "a", 3)), own=False),
    Verb("hupdate", stored(lambda db: db.hupdate("items", {"a": 3, "c": 4})), own=False),
    Verb("hdel", stored(lambda db: db.hdel("items", "a")), own=False),
    Verb("hpop", stored(lambda db: db.hpop("items", "a")), own=False),
    Verb("hadd", stored(lambda db: db.hadd("items", "z", 1)), own=False),
    Verb("hcompress", stored(lambda db: db.hcompress("items")), own=False),
    Verb("put", on(queue, lambda jobs: jobs.put("more"))),
    Verb("put_many", on(queue, lambda jobs: jobs.put_many([1, 2]))),
    Verb("put with an id", on(queue, lambda jobs: jobs.put("more", id="known"))),
    Verb("put with a priority", on(queue, lambda jobs: jobs.put("more", priority=1))),
    Verb("put with a delay", on(queue, lambda jobs: jobs.put("more", delay=100))),
    Verb("get", on(queue, lambda jobs: jobs.get(timeout=0))),
    Verb("get_many", on(queue, lambda jobs: jobs.get_many(2))),
    Verb("close a queue", on(queue, lambda jobs: jobs.close())),
    Verb("done", claimed(lambda task: task.done())),
    Verb("done with a result", claimed(lambda task: task.done(1))),
    Verb("retry", claimed(lambda task: task.retry())),
    Verb("fail", claimed(lambda task: task.fail("broken"))),
    Verb("touch", claimed(lambda task: task.touch())),
    Verb("acquire", on(lambda db: psync.Lock(db, "door"), both)),
    Verb("acquire in time", on(lambda db: psync.Lock(db, "door"), lambda it: it.acquire(timeout=1) and it.release())),
    Verb("release", held(psync.Lock, lambda lock: lock.release())),
    Verb("token", held(psync.Lock, lambda lock: lock.token)),
    Verb("rlock", held(psync.RLock, lambda lock: lock.release())),
    Verb("lead", on(led, lambda election: (election.resign(), election.campaign()))),
    Verb("token of a lead", on(led, lambda election: election.token)),
    Verb("semaphore", on(lambda db: psync.Semaphore(db, "s", 2), both)),
    Verb("release a semaphore", held(lambda db, n: psync.Semaphore(db, n, 2), lambda it: it.release())),
    Verb("read lock", on(lambda db: psync.ReadWriteLock(db, "rw"), lambda it: both(it.reader))),
    Verb("set an event", on(lambda db: psync.Event(db, "e"), lambda it: (it.set(), it.clear()))),
    Verb("is_set", on(lambda db: psync.Event(db, "e"), lambda it: (it.is_set(), it.set()))),
    Verb("counter", on(lambda db: psync.Counter(db, "c"), lambda it: it.add())),
    Verb("latch", on(lambda db: psync.Latch(db, "l", 100), lambda it: it.count_down())),
    Verb("barrier", on(lambda db: psync.Barrier(db, "b", 1), lambda it: it.wait(1))),
    Verb("abort a barrier", on(lambda db: psync.Barrier(db, "b", 2), lambda it: (it.abort(), it.reset()))),
    Verb("join a group", on(lambda db: psync.Group(db, "g"), lambda it: (it.join(), it.leave()))),
    Verb("post", on(lambda db: psync.Mailbox(db, "m"), lambda it: it.post(time.monotonic(), 1)), own=False),
    Verb("take", on(_posted, lambda it: (it.take(1), it.post(1, 1))), own=False),
]


SOME = "set", "hset", "put", "get", "release", "post", "done", "counter"


@pytest.fixture
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The path of a store to be; a link to it where that is what is to change."""
    tmp_path.chmod(0o700)
    path = tmp_path / "store"
    if request.node.callspec.params.get("way") is link_switched:
        (tmp_path / "real").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "real")
    return path


@pytest.fixture(params=["directory", "polling", "signed", "durable", "network"])
def db(request: pytest.FixtureRequest, root: Path) -> Iterator[psync.PickleShareDB]:
    options: dict[str, Any] = {
        "directory": {},
        "polling": {"wakeups": "poll"},
        "signed": {"key": b"a key of the tests"},
        "durable": {"durability": "power"},
        "network": {"sharing": "network"},
    }[request.param]
    yield psync.PickleShareDB(root, **options)
    request.node.funcargs.pop("db", None)  # the last reference: what is held, too, is given back


def window(db: psync.PickleShareDB) -> None:
    """On a network file system a look counts for a second. Else the next call says it."""
    if db.engine.remote:
        time.sleep(1.1)


def named(value: object) -> str:
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize(("verb", "way"), combined(VERBS, WHOLE), ids=named)
@pytest.mark.parametrize("db", ["directory", "signed"], indirect=True)
def test_every_verb_says_that_the_directory_is_gone(
    verb: Verb, way: Callable[[Path], None], db: psync.PickleShareDB, root: Path
) -> None:
    act = verb.ready(db)
    way(root)
    window(db)
    before = _files(root)
    with pytest.raises(psync.StoreFailed) as raised:
        act()
    assert isinstance(raised.value, psync.DirectoryGone) and isinstance(raised.value, FileNotFoundError)
    assert raised.value.directory == str(root) and str(root) in str(raised.value)
    with contextlib.suppress(psync.StoreFailed, RuntimeError):
        act()  # it goes on saying so, or that nothing is held any more
    assert _files(root) == before, "nothing is made, neither the directory nor in the new one"


def _files(root: Path) -> list[str]:
    return sorted(map(str, root.rglob("*"))) if root.exists() else ["nothing"]


@pytest.mark.parametrize(
    ("verb", "way"), combined([verb for verb in VERBS if str(verb) in SOME], [removed, replaced]), ids=named
)
@pytest.mark.parametrize("db", ["polling", "durable", "network"], indirect=True)
def test_so_it_does_on_other_engines(
    verb: Verb, way: Callable[[Path], None], db: psync.PickleShareDB, root: Path
) -> None:
    act = verb.ready(db)
    way(root)
    window(db)
    with pytest.raises(psync.DirectoryGone):
        act()


@pytest.mark.parametrize(
    ("verb", "way"), combined([verb for verb in VERBS if verb.own], [purged, purged_whole]), ids=named
)
@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_verb_says_that_a_file_of_psyncs_was_taken_from_it(
    verb: Verb, way: Callable[[Path], None], db: psync.PickleShareDB, root: Path
) -> None:
    act = verb.ready(db)
    way(root)
    # the end of a claim opens no file of which it could see that: psync looks at the others once a second
    time.sleep(1.1 if str(verb) in ("done", "done with a result", "fail", "touch") else WINDOW_S)
    with pytest.raises(psync.DirectoryGone, match=r"\.psync"):
        act()


@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_after_that_was_said_the_primitives_begin_anew(db: psync.PickleShareDB, root: Path) -> None:
    lock, event, counter = psync.Lock(db, "l"), psync.Event(db, "e"), psync.Counter(db, "c")
    jobs = psync.WorkQueue(db, "q")
    lock.acquire(), event.set(), counter.add(5), jobs.put("lost")
    purged(root)
    window(db)
    for act in (lock.release, event.set, counter.add, lambda: jobs.put("lost, too")):
        with pytest.raises(psync.DirectoryGone):
            act()
    window(db)
    for act in (lambda: both(lock), event.set, counter.add, lambda: jobs.put("kept")):
        with contextlib.suppress(psync.DirectoryGone):  # it counted as dead, too
            act()
        act()
    assert counter.value >= 1 and event.is_set() and not lock.locked()
    assert "kept" in [task.value for task in jobs.get_many(5)]


@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_loop_of_verbs_shares_its_looks_and_ends_soon(db: psync.PickleShareDB, root: Path) -> None:
    lock, event, jobs = psync.Lock(db, "l"), psync.Event(db, "e"), psync.WorkQueue(db, "q")

    def act(number: int) -> None:
        both(lock)
        event.set()
        event.clear()
        jobs.put(number)
        jobs.get().done()
        db["value"] = number
        db.hset("items", number % 10, number)

    looks: list[str] = []
    for number in range(300):
        act(number)
    with pytest.MonkeyPatch.context() as patched:
        stat, lstat = os.stat, os.lstat
        patched.setattr(os, "stat", lambda path, *a, **k: looks.append("stat") or stat(path, *a, **k))
        patched.setattr(os, "lstat", lambda path, *a, **k: looks.append("lstat") or lstat(path, *a, **k))
        begun = time.monotonic()
        for number in range(300):
            act(number)
        took = time.monotonic() - begun
    assert len(looks) < 10 + took / LOOK_INTERVAL_S * 2 < 300 * 9
    removed(root)
    time.sleep(WINDOW_S)
    with pytest.raises(psync.DirectoryGone):
        act(0)


# -- looks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WHOLE)
@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_lost_lock_is_not_locked_any_more(way: Callable[[Path], None], db: psync.PickleShareDB, root: Path) -> None:
    lock = psync.Lock(db, "held")
    lock.acquire()
    way(root)
    window(db)
    for look in (lock.locked, lock.holder):
        try:
            assert not look()
        except psync.DirectoryGone:
            pass
    with pytest.raises(psync.DirectoryGone):
        _ = lock.token
    with pytest.raises(psync.DirectoryGone):
        lock.release()
    assert not lock._mutex.token


LOOKS: dict[str, Callable[[psync.PickleShareDB], Callable[[], object]]] = {
    "get": stored(lambda db: db.get("missing")),
    "keys": stored(lambda db: db.keys()),
    "hget": stored(lambda db: db.hget("items", "a")),
    "hdict": stored(lambda db: db.hdict("items")),
    "qsize": on(queue, lambda jobs: jobs.qsize()),
    "is_set": on(lambda db: psync.Event(db, "e"), lambda event: event.is_set()),
    "value": on(lambda db: psync.Counter(db, "c"), lambda counter: counter.value),
    "get a message": on(_posted, lambda box: box.get(1, timeout=0)),
}


@pytest.mark.parametrize("way", [removed, moved_away])
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_look_says_it_too(look: str, way: Callable[[Path], None], db: psync.PickleShareDB, root: Path) -> None:
    act = LOOKS[look](db)
    psync.Event(db, "e").set()
    psync.Counter(db, "c").add()
    act()
    way(root)
    window(db)
    with pytest.raises(psync.DirectoryGone):
        act()


@pytest.mark.parametrize("db", ["directory"], indirect=True)
@pytest.mark.parametrize("way", [replaced_by_a_store])
def test_a_value_is_that_of_the_new_directory(way: Callable[[Path], None], db: psync.PickleShareDB, root: Path) -> None:
    db["value"] = "of the old store"
    assert db["value"] == "of the old store"
    way(root)
    assert db["value"] == "of another store"


# -- waiters -------------------------------------------------------------------------------------------


def wait_for_event(db: psync.PickleShareDB) -> None:
    psync.Event(db, "never").wait(60)


def wait_for_set_event(db: psync.PickleShareDB) -> None:
    event = psync.Event(db, "once")
    event.set()
    event.clear()
    event.wait(60)


def wait_for_task(db: psync.PickleShareDB) -> None:
    psync.WorkQueue(db, "empty").get(timeout=60)


def wait_for_end_of_queue(db: psync.PickleShareDB) -> None:
    jobs = psync.WorkQueue(db, "unfinished")
    jobs.put(1)
    jobs.join(timeout=60)


def wait_for_value(db: psync.PickleShareDB) -> None:
    db.waitget("never", maxwaittime=60)


def wait_for_item(db: psync.PickleShareDB) -> None:
    db.hwait("never", "a", maxwaittime=60)


def wait_for_message(db: psync.PickleShareDB) -> None:
    psync.Mailbox(db, "empty").get("never", timeout=60)


def wait_for_parties(db: psync.PickleShareDB) -> None:
    psync.Barrier(db, "never", 2).wait(60)


def wait_for_count(db: psync.PickleShareDB) -> None:
    psync.Counter(db, "never").wait_for(5, timeout=60)


def wait_for_lock(db: psync.PickleShareDB) -> None:
    other = psync.Lock(psync.PickleShareDB(db.root), "held")
    assert psync.Lock(db, "held").acquire()
    other.acquire(timeout=60)


def wait_for_thread(db: psync.PickleShareDB) -> None:
    """Without a timeout, for a lock that another thread of this process holds."""
    lock = psync.Lock(db, "held")
    threading.Thread(target=lock.acquire).start()
    time.sleep(0.1)
    lock.acquire()


def wait_for_semaphore(db: psync.PickleShareDB) -> None:
    slots = psync.Semaphore(db, "taken", 1)
    slots.acquire()
    slots.acquire(timeout=60)


WAITS = [wait_for_task, wait_for_event, wait_for_set_event, wait_for_end_of_queue, wait_for_value, wait_for_item,
         wait_for_message, wait_for_parties, wait_for_count, wait_for_lock, wait_for_thread,
         wait_for_semaphore]  # fmt: skip


COMING = wait_for_value, wait_for_item, wait_for_message, wait_for_event, wait_for_count, wait_for_thread


@pytest.mark.parametrize(("wait", "way"), combined(WAITS, [*WHOLE, purged_whole]), ids=named)
@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_waiter_is_told(wait: Any, way: Callable[[Path], None], db: psync.PickleShareDB, root: Path) -> None:
    if way is purged_whole and wait in COMING:
        pytest.skip("what it waits for may still come")
    _told(wait, way, db, root)


@pytest.mark.parametrize(
    ("wait", "way"),
    combined([wait_for_task, wait_for_event, wait_for_value, wait_for_lock], [removed, replaced]),
    ids=named,
)
@pytest.mark.parametrize("db", ["polling", "network"], indirect=True)
def test_so_it_is_on_other_engines(wait: Any, way: Callable[[Path], None], db: psync.PickleShareDB, root: Path) -> None:
    _told(wait, way, db, root)


def _told(wait: Any, way: Callable[[Path], None], db: psync.PickleShareDB, root: Path) -> None:
    told: list[BaseException | None] = []

    def work() -> None:
        try:
            wait(db)
        except BaseException as error:
            told.append(error)
        else:
            told.append(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert not told
    way(root)
    thread.join(TOLD_S)
    assert [type(error) for error in told] == [psync.DirectoryGone]


# -- opening anew --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [removed, moved_away, replaced, link_switched])
@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_store_that_is_opened_anew_works(way: Callable[[Path], None], db: psync.PickleShareDB, root: Path) -> None:
    """So does a primitive that is given the path, for which this process shares an engine."""
    shared = psync.WorkQueue(root, "jobs")
    shared.put("before")
    psync.Event(root, "ready").set()
    db["value"] = 1
    way(root)
    new = psync.PickleShareDB(root)
    assert "value" not in new
    new["value"] = 2
    jobs = psync.WorkQueue(root, "jobs")
    assert jobs.qsize() == 0 and not psync.Event(root, "ready").is_set()
    jobs.put("after")
    assert jobs.get(timeout=1).value == "after"
    psync.Event(root, "ready").set()
    assert psync.Event(str(root), "ready").wait(1)
    window(db)
    with pytest.raises(psync.DirectoryGone):
        shared.put("lost")
    with pytest.raises(psync.DirectoryGone):
        db["value"] = 3
    assert new["value"] == 2


@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_waiter_in_the_new_directory_is_woken_at_once(db: psync.PickleShareDB, root: Path) -> None:
    """The kernel's watches lead to the files of the new directory, not to those of the same name in the old one."""
    with contextlib.suppress(psync.WaitTimeout):
        db.waitget("later", maxwaittime=0.05)
    moved_away(root)
    new = psync.PickleShareDB(root)
    threading.Timer(0.2, new.__setitem__, ("later", 1)).start()
    begun = time.monotonic()
    assert new.waitget("later", maxwaittime=30) == 1
    assert time.monotonic() - begun < 1.9  # else it reads by itself, every two seconds


@pytest.mark.parametrize("db", ["directory"], indirect=True)
def test_a_directory_that_was_put_back_is_used_on(db: psync.PickleShareDB, root: Path) -> None:
    jobs = psync.WorkQueue(db, "jobs")
    jobs.put("before")
    moved_away(root)
    window(db)
    with pytest.raises(psync.DirectoryGone):
        jobs.put("lost")
    root.with_name("elsewhere").rename(root)
    jobs.put("after")
    assert [task.value for task in jobs.get_many(5)] == ["before", "after"]


def test_a_file_that_another_thread_makes_meanwhile_was_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = psync.PickleShareDB(tmp_path / "store", sharing="network")
    queue = psync.WorkQueue(db, "jobs")
    opened, real = [], NfsFiles.open

    def open_late(files: NfsFiles, path: str, flags: int) -> int:
        try:
            return real(files, path, flags)
        except FileNotFoundError:
            if path.endswith("/tail") and not opened:
                opened.append(path)
                other = threading.Thread(target=queue.put, args=(1,))  # which makes the file, and opens it
                other.start()
                other.join(10)
            raise

    monkeypatch.setattr(NfsFiles, "open", open_late)
    queue.put(2)
    assert opened and sorted(task.value for task in queue.get_many(3)) == [1, 2]


def test_a_directory_beside_the_one_that_is_gone_is_not_taken_for_it(tmp_path: Path) -> None:
    first, second = psync.PickleShareDB(tmp_path / "run1"), psync.PickleShareDB(tmp_path / "run10")
    second["value"] = 1
    removed(tmp_path / "run1")
    (tmp_path / "run10" / "value").unlink()
    (tmp_path / "run10" / "value").symlink_to("nowhere")
    with pytest.raises(psync.StoreFailed) as raised:
        second.engine.write("value/below", b"")
    assert not isinstance(raised.value, psync.DirectoryGone)
    first.close()


def test_the_error_travels(tmp_path: Path) -> None:
    import pickle

    db = psync.PickleShareDB(tmp_path / "store")
    removed(tmp_path / "store")
    time.sleep(WINDOW_S)
    with pytest.raises(psync.DirectoryGone) as raised:
        db["value"] = 1
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (type(copy), str(copy), copy.directory) == (psync.DirectoryGone, str(raised.value), raised.value.directory)


def test_a_worker_ends_and_a_future_is_told(tmp_path: Path) -> None:
    root = tmp_path / "store"
    executor = psync.Executor(root, max_workers=1, mp_context=multiprocessing.get_context("fork"))
    assert executor.submit(abs, -1).result(30) == 1
    future = executor.submit(time.sleep, 1)
    time.sleep(0.2)
    removed(root)
    with pytest.raises(psync.PsyncError):
        future.result(20)
    with contextlib.suppress(psync.PsyncError):
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def unmounted(root: Path) -> Iterator[None]:
    subprocess.run(["umount", "-l", str(root)], check=True)
    yield


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting needs root")
def test_a_file_system_that_was_mounted_anew_is_another_directory(tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    root.mkdir(mode=0o700)
    mounting = ["mount", "-t", "tmpfs", "-o", "mode=0700", "psync-test", str(root)]
    if subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("no mounting here")
    try:
        jobs = psync.WorkQueue(root, "jobs")
        jobs.put("before")
        with unmounted(root):
            subprocess.run(mounting, check=True)
        time.sleep(WINDOW_S)
        with pytest.raises(psync.DirectoryGone, match="another one"):
            jobs.put("lost")
        jobs._engine.close()
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False, capture_output=True)
