"""What the machines are told to do: each function here is called in a process of its own, with arguments from JSON.

``python -m tests.nfs.programs NAME '[arguments]'`` prints "ready" once psync is imported, and "result ..." in the end.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from psync import Barrier, Counter, Election, Event, Lock, PickleShareDB, Semaphore, WorkQueue
from psync.engine import DirectoryEngine
from tests.nfs.chaos import drive, settle  # noqa: F401  programs, too

ABSENT = b"\x80\x05N."


def requests(root: str) -> dict[str, int]:
    """How many RPCs of each kind this host has sent for the mount that `root` is on."""
    sent: dict[str, int] = {}
    ours = counting = False
    with open("/proc/self/mountstats", encoding="utf-8") as file:
        for line in file:
            if line.startswith("device"):
                ours, counting = root.startswith(line.split()[4] + "/"), False
            elif "per-op statistics" in line:
                counting = ours
            elif counting and ":" in line:
                name, _, numbers = line.partition(":")
                sent[name.strip()] = int(numbers.split()[0])
    return sent


def rendezvous(engine: DirectoryEngine, name: str, parties: int = 2) -> None:
    """All hosts go on from here at the same time."""
    Barrier(PickleShareDB(engine), name, parties).wait(timeout=100)


# -- costs -------------------------------------------------------------------------------------------


def costs(root: str, times: int) -> dict[str, float]:
    """How many requests each operation takes in the mean, once what it needs is open."""
    db = PickleShareDB(root)
    queue, door, event = WorkQueue(db, "jobs"), Lock(db, "door"), Event(db, "go")
    barrier = Barrier(db, "epoch", 1)
    tasks: deque[Any] = deque()
    event.set()
    db.hupdate("category2", dict.fromkeys(range(times), "item"))

    def lock() -> None:
        with door:
            pass

    operations: dict[str, Callable[[int], object]] = {
        "a new value": lambda number: db.__setitem__(f"new/value{number}", number),
        "a value that is there, set": lambda number: db.__setitem__(f"new/value{number}", -number),
        "a value, read": lambda number: db[f"new/value{number}"],
        "a value, modified": lambda number: db.modify(f"new/value{number}", lambda old: old + 1),
        "a look for a value that is not there": lambda number: f"other/{number}" in db,
        "a large value, replaced": lambda number: db.__setitem__("large", bytes((number,)) * 9000),
        "an item, removed": lambda number: db.hdel("category2", number),
        "a value, deleted": lambda number: db.__delitem__(f"new/value{number}"),
        "an item, set": lambda number: db.hset("category", number % 4, number),
        "a lock, taken and freed": lambda number: lock(),
        "a look at an event": lambda number: event.is_set(),
        "a step of a barrier": lambda number: barrier.wait(10),
        "a task, put": queue.put,
        "a task, taken": lambda number: tasks.append(queue.get()),
        "a task, done": lambda number: tasks.popleft().done(),
        "a task, done with a result": lambda number: queue.get().done(number),
    }
    found = {}
    for name, operation in operations.items():
        if name.endswith("result"):
            queue.put_many(range(times))
        operation(0)
        before = sum(requests(root).values())
        for number in range(1, times):
            operation(number)
        found[name] = (sum(requests(root).values()) - before) / (times - 1)
    ends: dict[str, Callable[[Any], object]] = {
        "a task, taken and done in a loop": lambda task: task.done(),
        "a task, taken and done with a result in a loop": lambda task: task.done(task.value),
    }
    for name, end in ends.items():
        queue.put_many(range(20 * times))
        before = sum(requests(root).values())
        for task in queue:
            end(task)
        found[name] = (sum(requests(root).values()) - before) / (20 * times)
    return found


def idle(root: str, processes: int, threads: int, seconds: float) -> float:
    """Requests a second of this host, of which so many threads of so many processes wait for a task meanwhile."""
    waiting = [multiprocessing.get_context("fork").Process(target=wait, args=(root, threads)) for _ in range(processes)]
    for process in waiting:
        process.start()
    time.sleep(5.0 + 0.2 * processes)
    before, begun = sum(requests(root).values()), time.monotonic()
    time.sleep(seconds)
    counted = (sum(requests(root).values()) - before) / (time.monotonic() - begun)
    say("counted")
    for process in waiting:
        process.join()
        assert process.exitcode == 0
    return counted


def wait(root: str, threads: int) -> None:
    """In each of `threads` threads for one task."""
    queue = WorkQueue(root, "jobs")
    waiting = [threading.Thread(target=queue.get) for _ in range(threads)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()


# -- races -------------------------------------------------------------------------------------------


def claim(root: str, who: str, rounds: int, parties: int = 2) -> list[int]:
    """The rounds that `who` won; who comes to a round first creates it."""
    engine = DirectoryEngine(root)
    rendezvous(engine, "start", parties)
    return [number for number in range(rounds) if engine.create(f"claims/{number}", who.encode())]


def meet(root: str, parties: int, rounds: int, acting: int = 0) -> list[float]:
    """Seconds that each round of a barrier took; the rounds are written down by each, and compared by all. In each
    `acting`th round this one comes with an action, so not by its slot."""
    plain, with_action = Barrier(root, "epoch", parties), Barrier(root, "epoch", parties, action=int)
    barrier = plain
    counter = Counter(root, "arrivals")
    barrier.wait(timeout=100)
    took = []
    for number in range(rounds):
        begun = time.monotonic()
        barrier = with_action if acting and number % acting == 0 else plain
        if number % 50 == 0:
            counter.add()
            barrier.wait(timeout=100)
            assert counter.value == (number // 50 + 1) * parties, "somebody went on before all were there"
        else:
            barrier.wait(timeout=100)
        took.append(time.monotonic() - begun)
    return took


def exclude(root: str, kind: str, turns: int) -> int:
    """Count in a file, which nothing but the primitive protects; returns the turns made. The counting is not atomic."""
    db = PickleShareDB(root)
    locks: dict[str, Callable[[], Any]] = {
        "lock": lambda: Lock(db, "door"),
        "semaphore": lambda: Semaphore(db, "seat", 1),
        "election": lambda: Election(db, "chair"),
    }
    held = locks[kind]()
    witness = os.open(f"{root}/witness-{kind}", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    rendezvous(db.engine, f"start-{kind}")
    for _ in range(turns):
        with held:
            count = int(os.pread(witness, 20, 0) or b"0")
            os.pwrite(witness, b"%020d" % (count + 1), 0)
    return turns


def count_locked(root: str, how: str, turns: int) -> int:
    """The same with the system's own locks."""
    witness = os.open(f"{root}/witness-{how}", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    rendezvous(DirectoryEngine(root), f"start-{how}")
    locking: dict[str, Callable[[int], object]] = {
        "flock": lambda mode: fcntl.flock(witness, mode),
        "fcntl": lambda mode: fcntl.lockf(witness, mode),
    }
    for _ in range(turns):
        locking[how](fcntl.LOCK_EX)
        count = int(os.pread(witness, 20, 0) or b"0")
        os.pwrite(witness, b"%020d" % (count + 1), 0)
        locking[how](fcntl.LOCK_UN)
    return turns


def fold(root: str, who: str, items: int, folds: int) -> int:
    """`hset` of many items, with an `hcompress` in between now and then; returns how many were set."""
    db = PickleShareDB(root)
    rendezvous(db.engine, "start")
    every = max(1, items // max(folds, 1))
    for number in range(items):
        db.hset("category", f"{who}-{number}", number)
        if folds and number % every == every - 1:
            db.hcompress("category")
    return items


def increment(root: str, times: int) -> int:
    """Add to one value, which is long now and then, and so replaced; and take another one away and put it back."""
    db = PickleShareDB(root)
    rendezvous(db.engine, "start")
    for number in range(times):
        db.modify("value", lambda old: (old[0] + 1, "x" * (6000 if number % 3 == 0 else 10)), default=(0, ""))  # noqa: B023
        if db.pop("token", None) is not None:
            db.modify("passed", lambda old: old + 1, default=0)
            assert db.add("token", number)
    return times


# -- work --------------------------------------------------------------------------------------------


def put(root: str, tasks: int) -> float:
    queue = WorkQueue(root, "jobs", max_attempts=100)
    begun = time.monotonic()
    queue.put_many(list(range(tasks)))
    return time.monotonic() - begun


def work(root: str, pause: float = 0.0) -> int:
    """Until the queue is worked off: returns how many tasks this process did."""
    done = 0
    for task in WorkQueue(root, "jobs", max_attempts=100):
        with task:
            if pause:
                time.sleep(pause)
            task.done(task.value * 2)
            done += 1
    return done


def results(root: str, tasks: int) -> int:
    """How many tasks have their result, which is right."""
    queue = WorkQueue(root, "jobs", max_attempts=100)
    queue.join(timeout=60)
    found = {number: value for number, (_, value) in enumerate(queue.results.collect(timeout=0.5))}
    assert sorted(found.values()) == [2 * number for number in range(tasks)], "lost or doubled"
    assert not queue.dead()
    return len(found)


# -- waiting -----------------------------------------------------------------------------------------


def wait_for_keys(root: str, keys: int) -> dict[str, float]:
    """Look for each key in vain, ask for it, and wait: seconds from the moment at which it was set.

    The setter's clock is another, so what is measured is the way to it and back: the answer is a key, too.
    """
    db = PickleShareDB(root)
    before = requests(root)
    begun = time.monotonic()
    for number in range(keys):
        assert f"answer/{number}" not in db
        db[f"question/{number}"] = number
        assert db.waitget(f"answer/{number}", maxwaittime=60) == number
    return {"seconds": time.monotonic() - begun, "requests": sum(requests(root).values()) - sum(before.values())}


def set_keys(root: str, keys: int, after: float) -> float:
    """Answer each question `after` so many seconds."""
    db = PickleShareDB(root)
    for number in range(keys):
        db.waitget(f"question/{number}", maxwaittime=60)
        time.sleep(after)
        db[f"answer/{number}"] = number
    return after


def see_keys(root: str, keys: int) -> dict[str, Any]:
    """Wait for each key, having looked for it in vain; when each was seen, by this host's clock."""
    db = PickleShareDB(root)
    seen, polls = [], []
    for number in range(keys):
        assert f"late/{number}" not in db
    say("looked")
    for number in range(keys):
        looks = requests(root)
        begun = time.monotonic()
        assert db.waitget(f"late/{number}", maxwaittime=60) == number
        seen.append(time.time())
        polls.append((sum(requests(root).values()) - sum(looks.values())) / (time.monotonic() - begun))
    return {"seen": seen, "requests a second": statistics.median(polls)}


def make_keys(root: str, keys: int, pause: float) -> list[float]:
    """Set each key; when, by this host's clock."""
    db = PickleShareDB(root)
    made = []
    for number in range(keys):
        time.sleep(pause * (0.5 + number % 7 / 7))
        db[f"late/{number}"] = number
        made.append(time.time())
    return made


# -- holding -----------------------------------------------------------------------------------------


def hold(root: str) -> None:
    """Hold a lock, the lead, a seat at a barrier and a task, for ever."""
    db = PickleShareDB(root)
    door, chair = Lock(db, "door"), Election(db, "chair")
    door.acquire()
    chair.campaign()
    task = WorkQueue(db, "jobs").get()
    threading.Thread(target=lambda: Barrier(db, "epoch", 3).wait(), daemon=True).start()
    while not Barrier(db, "epoch", 3).n_waiting:
        time.sleep(0.05)
    say("holding")
    time.sleep(10_000)
    del door, chair, task


def take_over(root: str, patience: float) -> dict[str, float]:
    """Seconds until what another host held is free."""
    db = PickleShareDB(root)
    begun = time.monotonic()
    took: dict[str, float] = {}

    def until(name: str, wait: Callable[[], object]) -> None:
        wait()
        took[name] = round(time.monotonic() - begun, 2)

    def broken() -> None:
        from psync import BrokenBarrierError

        try:
            Barrier(db, "epoch", 3).wait(timeout=patience)
        except BrokenBarrierError as error:
            assert error.who, "it broke for another reason"

    door = Lock(db, "door")
    waits: dict[str, Callable[[], object]] = {
        "lock": lambda: door.acquire(timeout=patience),
        "election": lambda: Election(db, "chair").campaign(timeout=patience),
        "task": lambda: WorkQueue(db, "jobs").get(timeout=patience),
        "barrier": broken,
    }
    threads = [threading.Thread(target=until, args=item) for item in waits.items()]
    for thread in threads:
        thread.start()
    while Barrier(db, "epoch", 3).n_waiting < 2:  # who comes later finds the place of the dead empty, and waits on
        time.sleep(0.05)
    say("waiting")
    for thread in threads:
        thread.join()
    return took


def update_slowly(root: str, seconds: float) -> str:
    """Add 1 to a value, which takes so long."""
    from psync import StoreFailed

    def slowly(old: int) -> int:
        say("locked")
        time.sleep(seconds)
        return old + 1

    try:
        PickleShareDB(root).modify("value", slowly, default=0)
    except StoreFailed:
        return "refused"
    return "changed"


# -- being told --------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    deed, arguments = sys.argv[1], json.loads(sys.argv[2])
    say("ready")
    say("result " + json.dumps(globals()[deed](*arguments)))


if __name__ == "__main__":
    main()
