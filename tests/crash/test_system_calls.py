"""No hot path makes more system calls than its docstring says, nor says another floor than the plain adapter has.

The docstring has, for instance: "6 system calls over a value (open flock stat pwrite flock close), floor 5". The calls
are those the tracer counts for handles that were used before; the floor is the same done by `benchmarks.peers.plain`.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import psync
from benchmarks.peers import plain
from psync.sync.queue.task import Task
from tests.crash import ptrace

pytestmark = pytest.mark.crash
VALUE = b"v" * 100
SETTLED = 0.1
LONG_AGO = 2.1
"""Seconds after which a file can be trusted to be what its time stamp says: at once, and even without a lock."""
CALLED = {"openat": "open", "newfstatat": "stat", "pwrite64": "pwrite", "pread64": "pread", "utimensat": "utime",
          "linkat": "link"}  # fmt: skip


class Hot(NamedTuple):
    """One hot path: where it is documented, what it is called there, and how both sides do it."""

    function: Callable[..., Any]
    what: str
    ready: Callable[[str], Any]
    act: Callable[[Any], object]
    floor_ready: Callable[[str], Any]
    floor_act: Callable[[Any], object]

    def __str__(self) -> str:
        return f"{self.function.__qualname__} {self.what}".strip().replace(" ", "_")


# -- what was used before ----------------------------------------------------------------------


def store(folder: str) -> psync.PickleShareDB:
    db = psync.PickleShareDB(folder)
    db["known"] = db["other"] = VALUE
    return db


def read_before(folder: str) -> psync.PickleShareDB:
    db = store(folder)
    time.sleep(SETTLED)
    db["known"]
    return db


def written_long_ago(folder: str) -> psync.PickleShareDB:
    db = store(folder)
    time.sleep(LONG_AGO)
    return db


def number(folder: str) -> psync.PickleShareDB:
    db = psync.PickleShareDB(folder)
    db["number"] = 0
    return db


def category(folder: str) -> psync.PickleShareDB:
    db = psync.PickleShareDB(folder)
    for _ in range(2):
        db.hset("items", "known", VALUE)
    time.sleep(SETTLED)
    db.hget("items", "known")
    return db


def waited_before(folder: str) -> psync.PickleShareDB:
    db = store(folder)
    with pytest.raises(psync.WaitTimeout):
        db.waitget("later", maxwaittime=0.01)
    return db


def queue(folder: str) -> psync.WorkQueue:
    jobs = psync.WorkQueue(folder, "jobs")
    for _ in range(10):
        jobs.put(VALUE)
    for _ in range(5):
        jobs.get().done()
    return jobs


def claimed(folder: str) -> psync.Task:
    return queue(folder).get()


def lock(folder: str) -> psync.Lock:
    lock = psync.Lock(folder, "door")
    for _ in range(2):
        lock.acquire()
        lock.release()
    return lock


def held(folder: str) -> psync.Lock:
    mine = lock(folder)
    mine.acquire()
    return mine


def semaphore(folder: str) -> psync.Semaphore:
    slots = psync.Semaphore(folder, "seats", 3)
    for _ in range(2):
        slots.acquire()
        slots.release()
    return slots


def event(folder: str) -> psync.Event:
    flag = psync.Event(folder, "ready")
    flag.set()
    flag.clear()
    return flag


def waited_for(folder: str) -> psync.Event:
    flag = event(folder)
    flag.wait(0.01)
    return flag


def counter(folder: str) -> psync.Counter:
    hits = psync.Counter(folder, "hits")
    hits.add()
    return hits


def mailbox(folder: str) -> tuple[psync.Mailbox, list[str]]:
    """A mailbox, and addresses without a letter whose bucket was posted to before."""
    box = psync.Mailbox(folder, "letters")
    alike = [name for name in map(str, range(3000)) if psync.gethashfile(name) == psync.gethashfile("0")]
    for address in alike[:4]:
        box.post(address, VALUE)
    time.sleep(SETTLED)
    box.get("0")
    return box, alike[4:]


def barrier(folder: str) -> psync.Barrier:
    """It has been waited at, and the other party came when this one slept."""
    barrier, other = psync.Barrier(folder, "epoch", 2), psync.Barrier(folder, "epoch", 2)

    def arrive() -> None:
        while not other.n_waiting:
            time.sleep(0.001)
        time.sleep(0.05)
        other.wait()

    beside = threading.Thread(target=arrive)
    beside.start()
    barrier.wait()
    beside.join()
    return barrier


# -- the same without psync --------------------------------------------------------------------


def plain_store(folder: str) -> plain.Store:
    db = plain.Store(folder)
    db.set("known", VALUE)
    return db


def plain_read_before(folder: str) -> plain.Store:
    db = plain_store(folder)
    db.get("known")
    return db


def plain_number_in_a_file(folder: str) -> plain.Store:
    db = plain.Store(folder)
    db.incr("number")
    return db


def plain_category(folder: str) -> plain.Category:
    category = plain.Category(folder)
    category.hset("items", "known", VALUE)
    return category


def opened(kind: Callable[..., Any], *arguments: Any) -> Callable[[str], Any]:
    def ready(folder: str) -> Any:
        made = kind(folder, *arguments)
        made.open()
        return made

    return ready


def plain_queue(folder: str) -> plain.Queue:
    jobs: plain.Queue = opened(plain.Queue)(folder)
    jobs.fill([VALUE] * 10)
    return jobs


def plain_number(folder: str) -> plain.Flag:
    return opened(plain.Flag)(folder)


HOT = [
    Hot(psync.PickleShareDB.__setitem__, "over a value", store, lambda db: db.__setitem__("known", VALUE),
          plain_store, lambda db: db.set("known", VALUE)),
    Hot(psync.PickleShareDB.__setitem__, "for a new one", store, lambda db: db.__setitem__("new", VALUE),
          plain_store, lambda db: db.set("new", VALUE)),
    Hot(psync.PickleShareDB.__getitem__, "for one not read before", written_long_ago, lambda db: db["other"],
          plain_store, lambda db: db.get("known")),
    Hot(psync.PickleShareDB.__getitem__, "for one that did not change", read_before, lambda db: db["known"],
          plain_read_before, lambda db: db.get("known")),
    Hot(psync.PickleShareDB.modify, "", number, lambda db: db.modify("number", lambda n: n + 1),
          plain_number_in_a_file, lambda db: db.incr("number")),
    Hot(psync.PickleShareDB.hset, "", category, lambda db: db.hset("items", "known", VALUE),
          plain_category, lambda items: items.hset("items", "known", VALUE)),
    Hot(psync.WorkQueue.put, "", queue, lambda jobs: jobs.put(VALUE),
          plain_queue, lambda jobs: jobs.put(VALUE)),
    Hot(psync.WorkQueue.get, "and `done`", queue, lambda jobs: jobs.get().done(),
          plain_queue, lambda jobs: jobs.take()),
    Hot(psync.Lock.acquire, "", lock, lambda lock: lock.acquire(),
          opened(plain.Lock), lambda lock: lock.acquire()),
    Hot(psync.Lock.release, "", held, lambda lock: lock.release(),
          opened(plain.Lock), lambda lock: lock.release()),
    Hot(psync.Semaphore.acquire, "", semaphore, lambda slots: slots.acquire(),
          plain_number, lambda number: number.lower()),
    Hot(psync.Event.set, "", event, lambda flag: flag.set(),
          plain_number, lambda number: number.send(0)),
    Hot(psync.Counter.add, "", counter, lambda hits: hits.add(),
          plain_number, lambda number: number.lower()),
]  # fmt: skip


def counted(act: Callable[[Any], object], ready: Callable[[str], Any], folder: Path) -> list[str]:
    """The calls of `act`: the fewest of three runs, because a tick of something else may fall into one."""
    seen = []
    for turn in range(3):
        home = folder / str(turn)
        home.mkdir(mode=0o700, parents=True)
        run = ptrace.run(act, ready=lambda home=home: ready(str(home)))
        assert run.error is None
        seen.append([CALLED.get(name, name) for name in (call.partition("(")[0] for call in run.calls)])
    return min(seen, key=len)


def documented(function: Callable[..., Any], calls: list[str], what: str, end: str = "") -> None:
    doc = " ".join((inspect.getdoc(function) or "").split())
    number = f"{len(calls) or 'no'} system call{'s' * (len(calls) > 1)}"
    sentence = " ".join(filter(None, [number, what, f"({' '.join(calls)})" if calls else ""])) + end
    assert sentence in doc, f"the docstring of {function.__qualname__} must say: {sentence}"


@pytest.mark.parametrize("path", HOT, ids=str)
def test_a_hot_path_makes_the_system_calls_that_its_docstring_names(path: Hot, tmp_path: Path) -> None:
    calls = counted(path.act, path.ready, tmp_path / "psync")
    floor = counted(path.floor_act, path.floor_ready, tmp_path / "plain")
    documented(path.function, calls, path.what, f", floor {len(floor)}")


@pytest.mark.parametrize(
    ("function", "what", "ready", "act"),
    [
        (psync.PickleShareDB.hget, "for an item in memory", category, lambda db: db.hget("items", "known")),
        (psync.PickleShareDB.add, "", store, lambda db: db.add("new", VALUE)),
        (psync.PickleShareDB.__delitem__, "", store, lambda db: db.__delitem__("known")),
        (psync.Mailbox.post, "", mailbox, lambda it: it[0].post(it[1][0], VALUE)),
        (psync.Mailbox.get, "for a message in memory", mailbox, lambda it: it[0].get("0")),
        (Task.done, "for the claim itself", claimed, lambda task: task.done()),
    ],
    ids=["hget", "add", "del", "post", "get", "done"],
)
def test_so_does_one_without_a_plain_counterpart(
    function: Callable[..., Any], what: str, ready: Any, act: Any, tmp_path: Path
) -> None:
    documented(function, counted(act, ready, tmp_path), what)


def woken(ready: Callable[[str], Any], act: Callable[[Any], object], other: Callable[[str], Any], folder: Path) -> Any:
    """The calls of who waits, and is woken by what ``other(folder)`` returns, called when the waiter sleeps."""
    home = str(folder)
    wake = other(home)
    rung: list[bool] = []

    def ring() -> None:
        if not rung:
            rung.append(True)
            wake()

    run = ptrace.run(act, ready=lambda: ready(home), asleep=ring)
    assert run.error is None
    return [CALLED.get(name, name) for name in (call.partition("(")[0] for call in run.calls)]


@pytest.mark.parametrize(
    ("function", "ready", "act", "other"),
    [
        (psync.PickleShareDB.waitget, waited_before, lambda db: db.waitget("later"),
         lambda home: lambda: psync.PickleShareDB(home).__setitem__("later", VALUE)),
        (psync.Event.wait, waited_for, lambda flag: flag.wait(),
         lambda home: psync.Event(home, "ready").set),
        (psync.Barrier.wait, barrier, lambda barrier: barrier.wait(),
         lambda home: lambda: psync.Barrier(home, "epoch", 2).wait(20)),
    ],
    ids=["waitget", "event", "barrier"],
)  # fmt: skip
def test_a_wait_makes_the_system_calls_that_its_docstring_names(
    function: Callable[..., Any], ready: Any, act: Any, other: Any, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    seen = []
    for turn in range(3):
        home = tmp_path / str(turn)
        home.mkdir(mode=0o700)
        seen.append(woken(ready, act, other, home))
    documented(function, min(seen, key=len), "for a waiter that is woken")
