"""Makes the golden store of this version: `python -m tests.format.make_golden` writes ``golden/version-<n>.tar.gz``.

To be run once for each `FORMAT_VERSION`, by the psync that brings it, and never again: every later psync opens the
store (`test_golden`), so what is in the archive must stay as that psync wrote it. The files are copied while a process
is at work. No name, path or process of the machine that made them is in them.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

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
    WorkQueue,
)
from psync.engine.contract.report import Identity
from psync.engine.directory.layout import FORMAT_VERSION
from psync.engine.system import boot_time

GOLDEN = Path(__file__).parent / "golden"
BOOT = 0x60D60D
"""The boot of the host that made it, in the 24 bits that stand in files."""
IDENTITY = Identity("golden", 1, 1, 1, "golden", 0.0)
"""The process that made it: one of a boot that no host has."""
KEY = b"the key of a golden store is no secret"
LARGE = "x" * 70_000
VALUES: dict[str, Any] = {
    "small": 7,
    "none": None,
    "a/nested/key": {"list": [1, 2.5, "three"], "set": {4}},
    "large": LARGE,
    "n" * 250: "a long name",
    "ä key with = and %": b"bytes",
}
ITEMS = {f"item {number}": {"number": number} for number in range(20)}
FAR = 1_000_000.0
"""Seconds of a delay that does not end while it is looked at."""


def make(root: Path) -> None:
    """A store of all kinds below `root`. What it does is what `test_golden` expects."""
    with PickleShareDB(root / "plain") as db:
        fill(db)
        half_done(db)
        take_whole(root / "plain", root / "taken")
    with PickleShareDB(root / "sealed", key=KEY) as db:
        fill(db)
        WorkQueue(db, "jobs").put_many(["first", "second"])
        Counter(db, "count").add(42)
    with PickleShareDB(root / "json", serializer="json") as db:
        db["small"] = {"number": 7}
        db.hset("category", "item", [1, 2])
        WorkQueue(db, "jobs").put_many(["first", "second"])
        Counter(db, "count").add(42)


def fill(db: PickleShareDB) -> None:
    db.update(VALUES)
    db["large"] = LARGE  # written once more: another file
    for key in list(ITEMS)[:10]:
        db.hset("compressed", key, "old")
        db.hset("compressed", key, ITEMS[key])
    db.hcompress("compressed")
    db.hupdate("compressed", {key: ITEMS[key] for key in list(ITEMS)[10:]})
    db.hupdate("category", ITEMS)
    db.hdel("category", "item 3")


def half_done(db: PickleShareDB) -> None:
    """Each primitive in a state that it was not born in; some of them held, by a process that will be gone."""
    Event(db, "ready").set()
    Counter(db, "count").add(42)
    Latch(db, "latch", 3).count_down()
    barrier = Barrier(db, "barrier", 1)
    for _ in range(3):
        barrier.wait()
    Barrier(db, "broken", 2).abort()
    DoubleBarrier(db, "step", 1).enter()
    lock = Lock(db, "lock")
    for _ in range(3):
        lock.acquire()
        lock.release()
    lock.acquire()
    RLock(db, "rlock").acquire()
    ReadWriteLock(db, "rw").reader.acquire()
    Semaphore(db, "semaphore", 3).acquire()
    BoundedSemaphore(db, "bounded", 2).acquire()
    condition = Condition(db, "condition")
    with condition:
        condition.wait(timeout=0)
    Election(db, "election").campaign()
    Group(db, "group").join("information")
    box = Mailbox(db, "mail")
    for number in range(12):
        box.post(number, f"letter {number}")
    box.take(11)
    db.engine.register(".psync/thing/large").update(lambda old: b"y" * 20_000)

    queue = WorkQueue(db, "jobs", max_attempts=2)
    queue.put_many([f"task {number}" for number in range(6)])
    queue.put("by name", id="mine")
    queue.put("urgent", priority=9)
    queue.put("late", delay=FAR)
    queue.get().done("urgent!")
    queue.get().done("first!")
    queue.get().done()
    queue.get().fail("no good")
    queue.get().retry("try again")
    queue.get()  # and is gone
    closed = WorkQueue(db, "closed")
    closed.put("last")
    closed.close()
    durable = WorkQueue(db, "durable", durability="power")
    durable.put_many(["one", "two"])
    durable.get().done("one!")


def take_whole(root: Path, to: Path) -> None:
    """A copy of all files now, while the process holds what it holds."""
    shutil.copytree(root, to)


def pack(root: Path) -> bytes:
    """The files, without what depends on the machine or the moment."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            entry = archive.gettarinfo(path, str(path.relative_to(root)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = 0
            entry.mode = 0o700 if path.is_dir() else 0o600
            archive.addfile(entry, None if path.is_dir() else io.BytesIO(path.read_bytes()))
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def main() -> None:
    target = GOLDEN / f"version-{FORMAT_VERSION}.tar.gz"
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(boot_time, "_boot", lambda: BOOT),
        mock.patch("psync.engine.directory.liveness.registry.myself", lambda since: IDENTITY),
    ):
        make(Path(folder))
        shutil.rmtree(Path(folder) / "plain")
        target.write_bytes(pack(Path(folder)))
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
