"""Operations: every verb that a handler may call, on one world of objects, and what must be true of it in the end.

Each operation notes what it did, so that the world can check that nothing was lost and nothing was done twice.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psync
from psync.engine import Engine
from psync.engine.memory import MemoryEngine

NOTHING = object()
"""What an operation returns that found nothing to do."""
PERMITS, STEPS = 1_000_000, 1_000_000
PLACES = ["directory", "power", "network", "signed", "json", "memory"]
"""Kinds of stores on which all operations work."""


def store_of(place: str, root: Path | str) -> psync.PickleShareDB:
    if place == "memory":
        return psync.PickleShareDB(MemoryEngine())
    options: dict[str, dict[str, Any]] = {
        "directory": {},
        "power": {"durability": "power"},
        "network": {"sharing": "network"},
        "signed": {"key": b"k" * 32},
        "json": {"serializer": "json"},
    }
    return psync.PickleShareDB(root, **options[place])


class World:
    """One of everything, in one store."""

    def __init__(self, db: psync.PickleShareDB) -> None:
        self.db = db
        self.numbers = itertools.count(1)
        self.did: Counter[str] = Counter()
        """How often each operation was done that did not refuse."""
        self.assigned: set[int] = set()
        self.items: dict[str, int] = {}
        self.posted: dict[str, int] = {}
        self.put: set[str] = set()
        self.results: dict[str, int] = {}
        self.taken = 0
        self.deleted = False
        self.event = psync.Event(db, "event")
        self.counter = psync.Counter(db, "counter")
        self.latch = psync.Latch(db, "latch", STEPS)
        self.lock = psync.Lock(db, "lock")
        self.permits = psync.Semaphore(db, "permits", PERMITS)
        self.condition = psync.Condition(db, "condition")
        self.queue = psync.WorkQueue(db, "queue", max_attempts=1000)
        self.box = psync.Mailbox(db, "box")
        self.election = psync.Election(db, "election")
        self.group = psync.Group(db, "group")
        self.barrier = psync.Barrier(db, "barrier", 2)
        self.door = psync.ReadWriteLock(db, "door")
        self.ready: list[psync.Task] = []
        self.group.join()
        self.fill()

    def fill(self) -> None:
        """Give every operation something to work on."""
        while self.queue.qsize() < 3:
            self.put.add(self.queue.put(0))
        while len(self.ready) < 4:
            self.ready.append(self.queue.get(timeout=0))
            self.taken += 1
            self.put.add(self.queue.put(0))
        self.check_deleted()
        for key in ("k", "old", "other"):
            if key not in self.db:
                self.db[key] = 0
                self.assigned.add(0)
        self.deleted = False
        if not self.items:
            self.db.hset("c", "first", 0)
            self.items["first"] = 0

    def number(self) -> int:
        return next(self.numbers)

    def check(self) -> None:
        """What every operation did is there, and nothing else."""
        did = self.did
        assert self.counter.value == did["Counter.add"]
        assert self.latch.count == STEPS - did["Latch.count_down"]
        assert self.permits.get_value() == PERMITS + did["Semaphore.release"] - did["Semaphore.acquire"]
        assert self.db["k"] in self.assigned
        assert self.db.hdict("c") == self.items
        assert dict(self.box.collect(list(self.posted), timeout=0)) == self.posted
        assert dict(self.queue.results.collect(list(self.results), timeout=0)) == self.results
        assert not self.lock.locked() and not self.lock.token
        if did["Event.set"] and not did["Event.clear"]:
            assert self.event.is_set()
        self.check_deleted()

    def check_queue(self) -> None:
        """The same for the tasks; it looks at each of them."""
        known = self.queue.statistics()
        assert known.put == len(self.put) and known.running == len(self.ready)
        assert known.waiting == len(self.put) - self.taken + self.did["Task.retry"]

    def check_deleted(self) -> None:
        assert "old" not in self.db or not self.deleted


# -- the operations ------------------------------------------------------------------------------------------------


def assign(world: World) -> None:
    number = world.number()
    world.assigned.add(number)
    world.db["k"] = number


def assign_long(world: World) -> None:
    number = world.number()
    world.db["long"] = [number] * 5000


def assign_new(world: World) -> None:
    world.db[f"new/{world.number()}"] = 1


def delete(world: World) -> None:
    world.deleted = True
    try:
        del world.db["old"]
    except KeyError:
        pass  # the interrupted call had deleted it


def read(world: World) -> None:
    assert world.db["k"] in world.assigned


def pop(world: World) -> None:
    world.db.pop("other", None)


def modify(world: World) -> None:
    number = world.number()
    world.assigned.add(number)
    world.db.modify("k", lambda old: number)


def add(world: World) -> None:
    assert world.db.add(f"added/{world.number()}", 1)


def hset(world: World) -> None:
    number = world.number()
    world.items[f"i{number}"] = number
    world.db.hset("c", f"i{number}", number)


def hget(world: World) -> None:
    assert world.db.hget("c", "first", fast_only=False) == 0


def hdel(world: World) -> None:
    number = world.number()
    try:
        world.db.hset("d", "gone", number)
        world.db.hdel("d", "gone")
    except KeyError:
        pass  # the interrupted call had deleted it


def hdict(world: World) -> None:
    found = world.db.hdict("c")
    assert all(found[key] == world.items[key] for key in found)


def hcompress(world: World) -> None:
    world.db.hcompress("c")


def post(world: World) -> None:
    number = world.number()
    world.posted[f"a{number}"] = number
    assert world.box.post(f"a{number}", number)


def discard(world: World) -> None:
    number = world.number()
    world.box.post(f"d{number}", 0)
    assert world.box.discard(f"d{number}") and f"d{number}" not in world.box


def put(world: World) -> None:
    world.put.add(world.queue.put(0))


def get(world: World) -> None:
    task = world.queue.get(timeout=0)
    world.taken += 1
    world.ready.append(task)


def done(world: World) -> object:
    if (task := in_hand(world)) is None:
        return NOTHING
    number = world.number()
    world.results[task.id] = number
    task.done(number)
    return None


def retry(world: World) -> object:
    if (task := in_hand(world)) is None:
        return NOTHING
    task.retry()
    return None


def in_hand(world: World) -> psync.Task | None:
    """A task to answer; None if the calls that interrupt each other have answered all."""
    try:
        return world.ready.pop()
    except IndexError:
        return None


def acquire(world: World) -> None:
    if world.lock.acquire(timeout=0):
        world.lock.release()


def take_permit(world: World) -> None:
    assert world.permits.acquire(timeout=0)


def read_door(world: World) -> None:
    if world.door.reader.acquire(timeout=0):
        world.door.reader.release()


def lead(world: World) -> None:
    if not world.election.is_leader() and world.election.campaign(timeout=0) and world.election.is_leader():
        world.election.resign()


def notify(world: World) -> None:
    if world.condition.acquire(timeout=0):
        try:
            world.condition.notify_all()
        finally:
            world.condition.release()


Operation = Callable[[World], Any]

WITHOUT_RESULT: dict[str, Operation] = {
    "db[k] = v": assign,
    "db[k] = long": assign_long,
    "db[new] = v": assign_new,
    "del": delete,
    "hset": hset,
    "Event.set": lambda world: world.event.set(),
    "Latch.count_down": lambda world: world.latch.count_down(),
    "Semaphore.release": lambda world: world.permits.release(),
    "Barrier.abort": lambda world: world.barrier.abort(),
    "Barrier.reset": lambda world: world.barrier.reset(),
    "Mailbox.post": post,
    "Task.done": done,
    "Task.retry": retry,
    "WorkQueue.reopen": lambda world: world.queue.reopen(),
}
"""They always take effect: at once, or when the interrupted call is done."""

WITH_RESULT: dict[str, Operation] = {
    "db[k]": read,
    "pop": pop,
    "modify": modify,
    "add": add,
    "hget": hget,
    "hdel": hdel,
    "hdict": hdict,
    "hcompress": hcompress,
    "Event.is_set": lambda world: world.event.is_set(),
    "Counter.add": lambda world: world.counter.add(),
    "Semaphore.acquire": take_permit,
    "Lock": acquire,
    "ReadWriteLock": read_door,
    "Election": lead,
    "Condition.notify": notify,
    "Mailbox.discard": discard,
    "WorkQueue.put": put,
    "WorkQueue.get": get,
    "Group.members": lambda world: world.group.members(),
    "keys": lambda world: world.db.keys(),
    "statistics": lambda world: (world.queue.qsize(), world.permits.statistics()),
}
"""They take effect at once, or raise `ReentrantCall` and change nothing."""

OPERATIONS = {**WITHOUT_RESULT, **WITH_RESULT}


def perform(world: World, name: str) -> bool:
    """Do an operation; False if it refused."""
    try:
        if OPERATIONS[name](world) is NOTHING:
            return False
    except psync.ReentrantCall as error:
        in_modify = "inside the function of modify" in str(error)
        assert name in WITH_RESULT or in_modify, f"{name} has no result to give, so it must not refuse"
        return False
    world.did[name] += 1
    return True


def engine_of(world: World) -> Engine:
    return world.db.engine
