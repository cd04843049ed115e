"""What is done to a store while its power is about to be cut, what was promised by then, and what is there afterwards.

Every value says which it is, and holds bytes that follow from that: a wrong one is known for wrong. A worker notes
down, outside of the disk, what it begins and what has returned.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import queue
import random
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from psync import Mailbox, PickleShareDB, WorkQueue
from psync.errors import CorruptValue, PsyncError, TaskFailed, WaitTimeout

WORKERS = 2
KEYS = [[f"box/value {number} of {me}" for number in range(4)] for me in range(WORKERS)]
"""Each worker changes its own, so it is known which of the changes was the last."""
ITEMS = [[f"item {number} of {me}" for number in range(8)] for me in range(WORKERS)]
VERBS = ("set", "set", "modify", "hset", "hset", "hupdate", "hcompress", "put", "put", "work", "post")
SIZES = (10, 300, 3000, 5000, 20_000)


def value(name: str, number: int) -> tuple[str, int, bytes]:
    chance = random.Random(f"{name} {number}")
    return name, number, chance.randbytes(chance.choice(SIZES))


def prepare(path: str) -> None:
    """Old values, which are on the disk before anything begins."""
    with PickleShareDB(path) as db:
        for key in itertools.chain(*KEYS):
            db[key] = value(key, 0)
        for item in itertools.chain(*ITEMS):
            db.hset("cat", item, value(item, 0))


class Notes:
    """One line for each thing begun and each that returned."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, *facts: Any) -> None:
        os.write(self._file, json.dumps(facts).encode() + b"\n")


def work(path: str, level: Any, notes: Path, seed: int, me: int) -> None:
    """Until the disk is gone. Never returns."""
    try:
        with contextlib.suppress(PsyncError, OSError):
            _work(PickleShareDB(path, durability=level), Notes(notes).note, random.Random(seed), me)
    finally:
        os._exit(0)


def _work(db: PickleShareDB, note: Any, chance: random.Random, me: int) -> None:
    jobs, box = WorkQueue(db, "jobs"), Mailbox(db, "box")
    keys, mine = KEYS[me], ITEMS[me]
    for number in itertools.count(WORKERS + me, WORKERS):
        match chance.choice(VERBS):
            case "set":
                key = chance.choice(keys)
                note("begin", key, number)
                db[key] = value(key, number)
                note("done", key, number)
            case "modify":
                key = chance.choice(keys)
                note("begin", key, number)
                db.modify(key, lambda old, key=key, number=number: value(key, number))
                note("done", key, number)
            case "hset":
                item = chance.choice(mine)
                note("begin", item, number)
                db.hset("cat", item, value(item, number))
                note("done", item, number)
            case "hupdate":
                items = chance.sample(mine, 3)
                for item in items:
                    note("begin", item, number)
                db.hupdate("cat", {item: value(item, number) for item in items})
                for item in items:
                    note("done", item, number)
            case "hcompress":
                db.hcompress("cat")
            case "put":
                note("begin", "task", number)
                note("done", "task", number, jobs.put(value("task", number)))
            case "work":
                with contextlib.suppress(queue.Empty):
                    task = jobs.get(block=False)
                    note("begin", "answer", task.value[1], task.id)
                    task.done(value("answer", task.value[1]))
                    note("done", "answer", task.value[1], task.id)
            case "post":
                note("begin", f"letter {number}", number)
                box.post(f"letter {number}", value(f"letter {number}", number))
                note("done", f"letter {number}", number)


class Found(NamedTuple):
    """What was there after a cut, in numbers."""

    wrong: list[str]
    """Values that nobody ever wrote."""
    torn: list[str]
    """What fails its check."""
    destroyed: list[str]
    """Old values that are gone, with none in their place."""
    lost: list[str]
    """What had returned and is not there."""
    doubled: list[str]
    returned: int
    """How many things had returned before."""


def look(path: str, notes: Path) -> Found:
    begun: dict[str, set[int]] = collections.defaultdict(lambda: {0})
    done: dict[str, int] = collections.defaultdict(int)
    tasks: dict[str, int] = {}
    answered: dict[str, int] = {}
    begun_answers: dict[str, int] = {}
    returned = 0
    for line in notes.read_text().splitlines() if notes.exists() else ():
        what, name, number, *more = json.loads(line)
        returned += what == "done"
        if name == "task":
            begun["task"].add(number)
            if what == "done":
                tasks[more[0]] = number
        elif name == "answer":
            begun_answers[more[0]] = number
            if what == "done":
                answered[more[0]] = number
        else:
            begun[name].add(number)
            if what == "done":
                done[name] = number
    found = Found([], [], [], [], [], returned)
    with PickleShareDB(path) as db:
        for key in itertools.chain(*KEYS):
            _judge(found, key, lambda key=key: db[key], begun[key], done[key])
        for item in itertools.chain(*ITEMS):
            _judge(found, item, lambda item=item: db.hget("cat", item, fast_only=False), begun[item], done[item])
        box = Mailbox(db, "box")
        for name in [name for name in begun if name.startswith("letter")]:
            _judge(found, name, lambda name=name: box.get(name, timeout=0), begun[name] - {0}, done[name])
        with warnings.catch_warnings(record=True) as told:  # of what was damaged, and is put right
            warnings.simplefilter("always")
            _look_at_queue(found, WorkQueue(db, "jobs"), begun["task"], tasks, answered, begun_answers)
        found.torn.extend(str(warning.message) for warning in told)
        _goes_on(db)
    return found


def _judge(found: Found, name: str, read: Any, begun: set[int], done: int) -> None:
    try:
        there = read()
    except CorruptValue as error:
        found.torn.append(f"{name}: {error}")
        found.lost.append(name)
        return
    except (KeyError, WaitTimeout):
        if 0 in begun:
            found.destroyed.append(name)
        if done:
            found.lost.append(name)
        return
    if there[1] not in begun or there != value(name, there[1]):
        found.wrong.append(f"{name}: {str(there)[:60]}")
    elif there[1] < done:
        found.lost.append(f"{name}: {there[1]} instead of {done}")


def _look_at_queue(
    found: Found,
    jobs: WorkQueue,
    begun: set[int],
    tasks: dict[str, int],
    answered: dict[str, int],
    begun_answers: dict[str, int],
) -> None:
    waiting = _waiting(found, jobs, begun)
    numbers = collections.Counter(waiting.values())
    found.doubled.extend(f"task {number}" for number, times in numbers.items() if times > 1)
    found.doubled.extend(f"task {id}, which was done" for id in answered if id in waiting)
    for id, number in tasks.items():
        if waiting.get(id) != number and begun_answers.get(id) != number:
            found.lost.append(f"task {id}")
    for id, number in begun_answers.items():
        try:
            answer = jobs.results.get(id, timeout=0)
        except CorruptValue as error:
            found.torn.append(f"the answer to {id}: {error}")
        except (WaitTimeout, TaskFailed) as error:
            if id in answered:
                found.lost.append(f"the answer to {id}: {error!r}")
        else:
            if answer != value("answer", number):
                found.wrong.append(f"the answer to {id}: {str(answer)[:60]}")


def _waiting(found: Found, jobs: WorkQueue, begun: set[int]) -> dict[str, int]:
    """Each task that can be had, by id."""
    waiting: dict[str, int] = {}
    try:
        while True:
            task = jobs.get(block=False)
            name, number, _ = task.value
            if task.value != value("task", number) or number not in begun:
                found.wrong.append(f"task {task.id}: {name} {number}")
            waiting[task.id] = number
    except queue.Empty:
        return waiting
    except CorruptValue as error:
        found.torn.append(str(error))
        return waiting


def _goes_on(db: PickleShareDB) -> None:
    db["box/probe"] = "alive"
    db.hset("other", "probe", "alive")
    jobs = WorkQueue(db, "others")
    jobs.put("alive")
    assert (db["box/probe"], db.hget("other", "probe"), jobs.get(block=False).value) == ("alive",) * 3
