"""A store with something of everything in it, and whether another one has the same."""

from __future__ import annotations

from typing import Any

from psync import Barrier, Counter, Event, Group, Latch, Mailbox, PickleShareDB, Semaphore, WorkQueue

LETTERS = {("report", day): day * day for day in range(20)}


def fill(db: PickleShareDB, keys: int) -> dict[str, Any]:
    """Fill `db`; returns what each task of its queue "jobs" is worth, by id."""
    for number in range(keys):
        db[f"values/{number % 7}/{number:05}"] = {"number": number, "text": "x" * (number % 300)}
    db["large"] = bytes(200_000)
    db["runs/42"] = "a name as a bucket has it"
    db.hupdate("colours", {f"item {number}": number for number in range(keys // 5)})
    db.hcompress("colours")
    db.hupdate("colours", {f"item {number}": -number for number in range(10)})
    db.hupdate("numbers", {(number, str(number)): [number] for number in range(keys // 10)})
    db.hset("empty soon", "key", 1)
    db.hdel("empty soon", "key")
    box = Mailbox(db, "reports")
    for address, letter in LETTERS.items():
        box.post(address, letter)
    Counter(db, "done").add(12)
    Latch(db, "gate", 3).count_down()
    Event(db, "ready").set()
    Group(db, "crew").join("a member")
    Barrier(db, "epoch", 1).wait(10)
    Semaphore(db, "seats", 3).acquire()
    return fill_half_worked_queue(WorkQueue(db, "jobs", max_attempts=2), keys // 5)


def fill_half_worked_queue(queue: WorkQueue, count: int) -> dict[str, Any]:
    """Tasks of every state; returns the value of each by its id."""
    values = dict(zip(queue.put_many(range(count)), range(count), strict=True))
    values |= {queue.put(f"named {n}", id=f"my id {n}"): f"named {n}" for n in range(5)}
    values |= {queue.put(f"urgent {n}", priority=n): f"urgent {n}" for n in (7, -3, 7)}
    values |= {queue.put("later", delay=0.2): "later", queue.put("soon", delay=0.1, id="delayed"): "soon"}
    for number in range(count // 2):
        task = queue.get()
        if number % 50 == 3:
            task.fail("it can't be done")
        elif number % 50 == 4:
            task.retry("not yet")
        elif number % 9 == 5:
            task.done()
        else:
            task.done(["result of", task.value])
    queue.revive([queue.dead()[0].id])
    held = queue.get()  # somebody has this one
    assert held.value in values.values()
    return values


def contents(db: PickleShareDB, ids: Any = ()) -> dict[str, Any]:
    """All that can be asked of a store that was furnished; a task that somebody has counts as waiting."""
    queue = WorkQueue(db, "jobs", max_attempts=2)
    states = {id: queue.state(id) for id in ids}
    seen = queue.statistics()
    return {
        "values": {key: db[key] for key in db if not key.startswith(("colours/", "numbers/", "empty soon/"))},
        "categories": [db.hdict(name) for name in ("colours", "numbers", "empty soon")],
        "fast": [db.hget("colours", f"item {number}", None) for number in (5, 15)],
        "letters": dict(Mailbox(db, "reports").collect(timeout=0)),
        "counter": Counter(db, "done").value,
        "latch": Latch(db, "gate", 3).count,
        "event": Event(db, "ready").is_set(),
        "round": Barrier(db, "epoch", 1).statistics().round,
        "states": {id: "waiting" if state == "claimed" else state for id, state in states.items()},
        "queue": (seen.put, seen.waiting + seen.running, seen.delayed, seen.dead, seen.closed),
        "results": dict(queue.results.collect(timeout=0)),
        "dead": queue.dead(),
        "histories": {id: queue.history(id) for id in ids},
    }


def work_off(queue: WorkQueue) -> dict[str, int]:
    """Work all that is left; returns how often each was attempted."""
    attempts = {}
    for task in queue:
        with task:
            attempts[task.id] = task.attempt
            task.done(["result of", task.value])
    return attempts
