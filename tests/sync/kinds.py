"""The kinds of primitives as a table: how each is made, changed, and looked at by others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
    ReadWriteLock,
    RLock,
    Semaphore,
    WorkQueue,
)
from tests.redis_server import contents


class Kind(NamedTuple):
    """One kind, and one thing to do with it that others can see."""

    name: str
    make: Callable[[Any], Any]
    """From a place."""
    change: Callable[[Any], object]
    look: Callable[[Any], Any]
    before: Any
    """What `look` shows before `change`, and `after` it."""
    after: Any
    says: tuple[str, str]
    """Patterns of what `repr` says, before and after."""


HELD = r"held by pid \d+ on \S+, since [-\d]+ [:\d]+"

KINDS = [
    Kind(
        "Barrier",
        lambda db: Barrier(db, "x", 1),
        lambda barrier: barrier.wait(),
        lambda barrier: barrier.statistics().round,
        0,
        1,
        ("<Barrier 'x' round 0, 0 of 1 waiting>", "<Barrier 'x' round 1, 0 of 1 waiting>"),
    ),
    Kind(
        "Barrier that breaks",
        lambda db: Barrier(db, "y", 2),
        lambda barrier: barrier.abort(),
        lambda barrier: barrier.broken,
        False,
        True,
        ("<Barrier 'y' round 0, 0 of 2 waiting>", r"<Barrier 'y' broken in round 0: it was aborted by pid \d+ on .*>"),
    ),
    Kind(
        "DoubleBarrier",
        lambda db: DoubleBarrier(db, "x", 1),
        lambda step: step.enter(),
        lambda step: step.statistics().round,
        0,
        1,
        ("<DoubleBarrier 'x' round 0, 0 of 1 waiting>", "<DoubleBarrier 'x' round 1, 0 of 1 waiting>"),
    ),
    Kind(
        "Latch",
        lambda db: Latch(db, "x", 2),
        lambda latch: latch.count_down(),
        lambda latch: latch.count,
        2,
        1,
        ("<Latch 'x' 2 of 2 to go>", "<Latch 'x' 1 of 2 to go>"),
    ),
    Kind(
        "Latch that opens",
        lambda db: Latch(db, "y", 1),
        lambda latch: latch.count_down(),
        lambda latch: latch.count,
        1,
        0,
        ("<Latch 'y' 1 of 1 to go>", "<Latch 'y' open>"),
    ),
    Kind(
        "Lock",
        lambda db: Lock(db, "x"),
        lambda lock: lock.acquire(),
        lambda lock: lock.locked(),
        False,
        True,
        ("<Lock 'x' free>", f"<Lock 'x' {HELD}>"),
    ),
    Kind(
        "RLock",
        lambda db: RLock(db, "x"),
        lambda lock: lock.acquire(),
        lambda lock: lock.locked(),
        False,
        True,
        ("<RLock 'x' free>", f"<RLock 'x' {HELD}>"),
    ),
    Kind(
        "reader",
        lambda db: ReadWriteLock(db, "x").reader,
        lambda reader: reader.acquire(),
        lambda reader: reader.locked(),
        False,
        True,
        (
            "<reader of <ReadWriteLock 'x' 0 reading, 0 waiting to write>>",
            "<reader of <ReadWriteLock 'x' 1 reading, 0 waiting to write>>",
        ),
    ),
    Kind(
        "writer",
        lambda db: ReadWriteLock(db, "y").writer,
        lambda writer: writer.acquire(),
        lambda writer: writer.locked(),
        False,
        True,
        (
            "<writer of <ReadWriteLock 'y' 0 reading, 0 waiting to write>>",
            r"<writer of <ReadWriteLock 'y' written by pid \d+ on .*>>",
        ),
    ),
    Kind(
        "Semaphore",
        lambda db: Semaphore(db, "x", 2),
        lambda slots: slots.acquire(),
        lambda slots: slots.get_value(),
        2,
        1,
        ("<Semaphore 'x' 2 free, 0 held>", "<Semaphore 'x' 1 free, 1 held>"),
    ),
    Kind(
        "BoundedSemaphore",
        lambda db: BoundedSemaphore(db, "x", 1),
        lambda slots: slots.acquire(),
        lambda slots: slots.locked(),
        False,
        True,
        ("<BoundedSemaphore 'x' 1 free, 0 held>", "<BoundedSemaphore 'x' 0 free, 1 held>"),
    ),
    Kind(
        "Event",
        lambda db: Event(db, "x"),
        lambda event: event.set(),
        lambda event: event.is_set(),
        False,
        True,
        ("<Event 'x' clear>", "<Event 'x' set>"),
    ),
    Kind(
        "Condition",
        lambda db: Condition(db, "x"),
        lambda changed: changed.acquire(),
        lambda changed: changed.locked(),
        False,
        True,
        ("<Condition 'x' 0 waiting, .*free>>", f"<Condition 'x' 0 waiting, .*{HELD}>>"),
    ),
    Kind(
        "Counter",
        lambda db: Counter(db, "x", 7),
        lambda counter: counter.add(3),
        lambda counter: counter.value,
        7,
        10,
        ("<Counter 'x' at 7>", "<Counter 'x' at 10>"),
    ),
    Kind(
        "Election",
        lambda db: Election(db, "x"),
        lambda election: election.campaign(),
        lambda election: election.leader() is not None,
        False,
        True,
        ("<Election 'x' led by nobody>", r"<Election 'x' led by pid \d+ on .*>"),
    ),
    Kind(
        "Group",
        lambda db: Group(db, "x"),
        lambda crew: crew.join("first"),
        lambda crew: [member.information for member in crew.members()],
        [],
        ["first"],
        ("<Group 'x' 0 members>", "<Group 'x' 1 members?>"),
    ),
    Kind(
        "WorkQueue",
        lambda db: WorkQueue(db, "x"),
        lambda jobs: jobs.put("task"),
        lambda jobs: jobs.qsize(),
        0,
        1,
        ("<WorkQueue 'x'.* 0 waiting.*>", "<WorkQueue 'x'.* 1 waiting.*>"),
    ),
    Kind(
        "Mailbox",
        lambda db: Mailbox(db, "x"),
        lambda box: box.post("a", "letter"),
        len,
        0,
        1,
        ("<Mailbox 'x'.* 0 messages>", "<Mailbox 'x'.* 1 messages?>"),
    ),
]
BY_NAME = {kind.name: kind for kind in KINDS}
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


class Exclusive(NamedTuple):
    """One that keeps all others out: `take` and `give` by any process."""

    name: str
    make: Callable[[Any], Any]
    take: Callable[..., Any] = lambda lock, **terms: lock.acquire(**terms)
    give: Callable[[Any], object] = lambda lock: lock.release()


EXCLUSIVE = [
    Exclusive("Lock", lambda db: Lock(db, "x")),
    Exclusive("RLock", lambda db: RLock(db, "x")),
    Exclusive("Condition", lambda db: Condition(db, "x")),
    Exclusive("writer", lambda db: ReadWriteLock(db, "x").writer),
    Exclusive("Semaphore", lambda db: Semaphore(db, "x")),
    Exclusive("BoundedSemaphore", lambda db: BoundedSemaphore(db, "x")),
    Exclusive(
        "Election",
        lambda db: Election(db, "x"),
        lambda election, **terms: election.campaign(**terms),
        lambda election: election.resign(),
    ),
]
EXCLUSIVE_BY_NAME = {kind.name: kind for kind in EXCLUSIVE}
each_exclusive = pytest.mark.parametrize("kind", EXCLUSIVE, ids=lambda kind: kind.name)


def everything_in(root: Path | str) -> dict[Any, bytes]:
    """Every file below `root` and what is in it; folders too. Of a store on a server, every key."""
    if isinstance(root, str):
        return contents(root)
    found: dict[Any, bytes] = {}
    for folder, _, names in os.walk(root):
        found[folder + "/"] = b""
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[path] = file.read()
    return found
