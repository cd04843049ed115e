"""Stores of every shape, one to damage at a time, and what still has to be so when a file of one was damaged."""

from __future__ import annotations

import contextlib
import os
import queue as stdlib
import random
import resource
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from psync import Barrier, Counter, Event, Lock, PickleShareDB, WorkQueue
from psync.engine.directory.engine import DirectoryEngine
from psync.engine.encoding.framing import Unreadable, committed, frame_text, is_bucket
from psync.errors import CorruptValue, PsyncError, UnsafeStore
from tests.store.memory_limit import ROOM
from tests.store.test_mutations import MUTATIONS

VALUES: dict[str, Any] = {
    "small": 7,
    "runs/medium": {"run": list(range(200)), "name": "seven"},
    "large": "x" * 80_000,
    "none": None,
}
ITEMS = {f"item {number}": {"number": number} for number in range(12)}
KEY = b"a key for what is damaged"


class Damaged(Exception):
    """What must not be: the text says what was done, and what came of it."""


class Kind(NamedTuple):
    """How a store of one shape is made, and looked at: `look` returns whether damage was reported, and raises
    `Damaged` for what must not be."""

    make: Callable[[Path], None]
    look: Callable[[Path], bool]
    files: str = "**/*"
    leave: tuple[str, ...] = ("/wake/", "/tmp/", "/quarantine/")


def expect(right: bool, what: str) -> None:
    if not right:
        raise Damaged(what)


# -- values and categories -----------------------------------------------------------------------------


def make_values(root: Path, **options: Any) -> None:
    with PickleShareDB(root, **options) as db:
        db.update(VALUES)


def look_at_values(root: Path, **options: Any) -> bool:
    reported = False
    with PickleShareDB(root, **options) as db:
        for key, value in VALUES.items():
            try:
                expect(db[key] == value, f"{key!r} is another value")
            except CorruptValue as error:
                reported = True
                place = error.path if error.foreign else error.quarantine
                expect(place is not None and os.path.exists(place), "it was not kept")
                db[key] = value
        expect({key: db[key] for key in VALUES} == VALUES, "what was set again is not there")
    return reported


def make_category(root: Path, **options: Any) -> None:
    with PickleShareDB(root, **options) as db:
        for key in list(ITEMS)[:6]:
            db.hset("category", key, "old")
            db.hset("category", key, ITEMS[key])
        db.hcompress("category")
        db.hupdate("category", {key: ITEMS[key] for key in list(ITEMS)[6:]})


def look_at_category(root: Path, **options: Any) -> bool:
    reported = False
    with PickleShareDB(root, **options) as db:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = db.hdict("category")
        reported = bool(told)
        expect(all(ITEMS.get(key) == value for key, value in found.items()), f"hdict gives {found!r}")
        expect(reported or found == ITEMS, "items are missing and nobody said so")
        for key, value in ITEMS.items():
            got = None
            try:
                got = db.hget("category", key, None, fast_only=False)
            except CorruptValue as error:
                expect(bool(error.foreign), f"{key!r} is damaged still")  # nothing tells it from a file of others
            expect(got == value or (got is None and reported), f"hget gives {got!r} for {key!r}")
            db.hset("category", key, value)
        with contextlib.suppress(KeyError):
            del db["category/xx"]  # which may be such a file
        expect(db.hdict("category") == ITEMS, "what was set again is not there")
    return reported


# -- what primitives keep ----------------------------------------------------------------------------------


def make_registers(root: Path, **options: Any) -> None:
    with PickleShareDB(root, **options) as db:
        Event(db, "ready").set()
        Counter(db, "count").add(41)
        Counter(db, "count").add()
        Barrier(db, "round", 1).wait()
        db.engine.register(".psync/large/one").update(lambda old: b"y" * 20_000)


def look_at_registers(root: Path, **options: Any) -> bool:
    reported = False
    looks: list[tuple[Callable[[PickleShareDB], Any], Any, Any]] = [
        (lambda db: Event(db, "ready").is_set(), True, False),
        (lambda db: Counter(db, "count").value, 42, 0),
        (lambda db: Barrier(db, "round", 1).n_waiting, 0, 0),
        (lambda db: db.engine.register(".psync/large/one").read(), b"y" * 20_000, None),
    ]
    with PickleShareDB(root, **options) as db:
        for look, right, anew in looks:
            try:
                expect(look(db) == right, f"{look(db)!r} instead of {right!r}")
            except CorruptValue as error:
                reported = True
                if error.quarantine is None and "key" not in options:
                    raise Damaged("a damaged register was not kept") from error
                if error.quarantine is not None:
                    expect(look(db) == anew, f"it begins anew with {look(db)!r}")
    return reported


def make_lock(root: Path) -> None:
    with PickleShareDB(root) as db:
        lock = Lock(db, "door")
        for _ in range(3):
            with lock:
                pass


def look_at_lock(root: Path) -> bool:
    with PickleShareDB(root) as db, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lock = Lock(db, "door")
        expect(lock.acquire(timeout=5), "a damaged lock can't be had")
        first = lock.token
        lock.release()
        with lock:
            expect(lock.token > first >= 4, f"the token is {first} after 3")
    return bool(told) or first > 1000


def make_owner(root: Path) -> None:
    """A record of a process that was killed, and a note that it left."""
    with PickleShareDB(root) as db:
        db.hupdate("category", {"a": 1, "b": 2})
        owner = db.engine.owner()
        record = (root / ".psync" / "owners" / f"{owner:016x}").read_bytes()
    (root / ".psync" / "owners" / "000000000000002a").write_bytes(record)
    pending = root / ".psync" / "pending"
    (pending / "00000000000000aa").write_bytes(frame_text(b'{"category/00": [7, 123, 74]}'))


def look_at_owner(root: Path) -> bool:
    with contextlib.closing(DirectoryEngine(root)) as engine:
        expect(engine.alive(42).name == "NO", "a killed process lives")
        expect(isinstance(engine.describe(42), str), "it can't be described")
        engine.sweep()
    with PickleShareDB(root) as db:
        expect(db.hdict("category") == {"a": 1, "b": 2}, "other data was changed")
    return False


# -- queues --------------------------------------------------------------------------------------------------

TASKS = [f"task {number}" * (1 + 40 * (number % 3)) for number in range(14)]
DONE, RETURNED, DEAD = TASKS[:4], TASKS[4:6], TASKS[6]


def make_queue(root: Path, **options: Any) -> None:
    with PickleShareDB(root, **options) as db:
        queue = WorkQueue(db, "queue")
        queue.put_many(TASKS[:12])
        queue.put(TASKS[12], delay=0.000001)
        queue.put(TASKS[13])
        for value in DONE:
            queue.get().done(value + "!")
        held = [queue.get() for _ in RETURNED]
        queue.get().fail("no")
        for task in held:
            task.retry("later")


def look_at_queue(root: Path, **options: Any) -> bool:
    """Whatever was damaged, the tasks that are left come, each once, and the queue comes to its end."""
    left = [value for value in TASKS if value not in DONE and value != DEAD]
    reported = False
    with PickleShareDB(root, **options) as db, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        queue = WorkQueue(db, "queue")
        got: list[Any] = []
        reports = 0
        while True:
            try:
                task = queue.get(timeout=0)
                got.append(task.value)
                task.done(task.value + "!")
            except stdlib.Empty:
                if queue._priorities.main.log.delayed():
                    continue
                break
            except CorruptValue:
                reports += 1
                expect(reports < 20, "the same damage is reported again and again")
        reported = bool(told) or reports > 0
        expect(len(got) == len(set(got)), f"a task came twice: {sorted(got)!r}")
        expect(set(got) <= set(left), f"what came was none of those that are left: {set(got) - set(left)!r}")
        expect(reported or set(got) == set(left), f"{len(left) - len(got)} tasks are lost and nobody said so")
        expect(reports > 0 or queue._priorities.finished(), "the queue never comes to its end")
    return reported


def with_key(function: Callable[..., Any]) -> Callable[[Path], Any]:
    return lambda root: function(root, key=KEY)


KINDS: dict[str, Kind] = {
    "values": Kind(make_values, look_at_values),
    "category": Kind(make_category, look_at_category),
    "registers": Kind(make_registers, look_at_registers),
    "lock": Kind(make_lock, look_at_lock, ".psync/locks/*"),
    "owner": Kind(make_owner, look_at_owner, ".psync/[op]*/*"),
    "queue": Kind(make_queue, look_at_queue, ".psync/queue/queue/log/*"),
    "sealed values": Kind(with_key(make_values), with_key(look_at_values)),
    "sealed category": Kind(with_key(make_category), with_key(look_at_category)),
    "sealed registers": Kind(with_key(make_registers), with_key(look_at_registers)),
    "sealed queue": Kind(with_key(make_queue), with_key(look_at_queue), ".psync/queue/queue/log/*"),
}


# -- damaging --------------------------------------------------------------------------------------------------


def mutated(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """What a disk, a broken copy or a careless program may make of a file."""
    how = chance.choice(MUTATIONS)
    return (how.__name__, how(chance, data)) if data else ("filled", chance.randbytes(16))


def is_unfinished(before: bytes, after: bytes) -> bool:
    """Whether a bucket became one whose last writer was killed before he was done: what he appended is not there then,
    and nobody can tell. It takes a full stop at the one byte that says so."""
    try:
        return is_bucket(before) and is_bucket(after) and committed(after).end < committed(before).end
    except Unreadable:
        return False


def targets(kind: Kind, root: Path) -> list[Path]:
    found = [path for path in sorted(root.glob(kind.files)) if path.is_file() and not path.is_symlink()]
    return [path for path in found if not any(part in f"{path}/" for part in kind.leave)]


def rounds(name: str, place: Path, seed: int, count: int) -> tuple[int, list[str]]:
    """Damage a store of that kind so often; returns how often that was reported, and what went wrong."""
    kind, chance = KINDS[name], random.Random(f"{name} {seed}")
    template, copy = place / "template", place / "copy"
    kind.make(template)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reports, wrong = 0, []
    paths = targets(kind, template)
    for number in range(count):
        shutil.copytree(template, copy)
        path = copy / chance.choice(paths).relative_to(template)
        how, data = mutated(path.read_bytes(), chance)
        if is_unfinished(path.read_bytes(), data):
            shutil.rmtree(copy)
            continue
        path.write_bytes(data)
        try:
            reports += kind.look(copy)
        except (UnsafeStore, CorruptValue) as error:
            reports += 1
            if path.name != "seal":
                wrong.append(f"round {number} of {seed}, {how} in {path.relative_to(copy)}: {error!r}")
        except (Damaged, PsyncError, Exception) as error:
            wrong.append(
                f"round {number} of {seed}, {how} in {path.relative_to(copy)}: {type(error).__name__}: {error}"
            )
        shutil.rmtree(copy)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > ROOM:
        wrong.append(f"it took {grown >> 20} MB")
    return reports, wrong
