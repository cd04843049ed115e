"""How fast psync is between two real NFS clients: ``python -m benchmarks.nfs [--rounds 5]``.

It starts the machines of ``tests/nfs``. Each ratio is the median of rounds in which psync and what it is compared with
took turns on the same mount:

* a barrier of two clients, beside the cheapest exchanges of two small files between them: each writes into a file that
  it keeps open, and reads the other's, again and again without a pause, past all caches; or, on version 4, each makes a
  new file, and looks for the other's;
* a queue, one item put and one taken and acknowledged at a time, beside dirq and persist-queue, which keep what a
  killed consumer had in hand, too; and beside itself, when all items are put at once and taken in a loop.

The requests to the server are counted in the same run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.nfs.machines import Machine, Rig

ITEM = b"x" * 100
MEETINGS, ITEMS, BATCHED = 200, 40, 800
"""Of one round."""
QUEUES = ("psync", "dirq", "persistqueue")


# -- on the machines -----------------------------------------------------------------------------------


def meet(folder: str, me: int, times: int) -> float:
    """Seconds between two meetings at a barrier."""
    from psync import Barrier

    barrier = Barrier(folder, "epoch", 2)
    barrier.wait(timeout=100)
    begun = time.perf_counter()
    for _ in range(times):
        barrier.wait(timeout=100)
    return (time.perf_counter() - begun) / times


def exchange(folder: str, me: int, times: int) -> float:
    """Seconds between two exchanges."""
    meet(folder, me, 1)
    mine, other = (os.open(f"{folder}/{who}", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600) for who in (me, 1 - me))
    begun = time.perf_counter()
    for number in range(times):
        text = b"%08d" % number
        os.pwrite(mine, text, 0)
        while os.pread(other, 8, 0) < text:
            pass
    return (time.perf_counter() - begun) / times


def exchange_new(folder: str, me: int, times: int) -> float:
    """The same, each time with two new files."""
    meet(folder, me, 1)
    begun = time.perf_counter()
    for number in range(times):
        with open(f"{folder}/{me}-{number}", "xb", buffering=0) as file:
            file.write(b"%08d" % number)
        while True:
            os.close(os.open(folder, os.O_RDONLY))  # which asks the server, so that what was not there can be found
            try:
                with open(f"{folder}/{1 - me}-{number}", "rb", buffering=0) as file:
                    if file.read():
                        break
            except FileNotFoundError:
                pass
    return (time.perf_counter() - begun) / times


def strict(folder: str, peer: str, items: int) -> float:
    """Items a second that are put, taken and acknowledged one by one."""
    queue = importlib.import_module(f"benchmarks.peers.{peer}").Queue(folder)
    queue.open()
    queue.put(ITEM)  # what is made once is not the question
    queue.take()
    begun = time.perf_counter()
    for _ in range(items):
        queue.put(ITEM)
    for _ in range(items):
        queue.take()
    took = time.perf_counter() - begun
    queue.close()
    return items / took


def batched(folder: str, items: int) -> float:
    from psync import WorkQueue

    queue = WorkQueue(folder, "jobs")
    queue.put_many([ITEM])
    for task in queue:
        task.done()
    begun = time.perf_counter()
    queue.put_many([ITEM] * items)
    for task in queue:
        task.done()
    return items / (time.perf_counter() - begun)


PARTS: dict[str, Callable[..., float]] = {
    "meet": meet,
    "exchange": exchange,
    "new": exchange_new,
    "strict": strict,
    "batched": batched,
}


# -- where they are started ----------------------------------------------------------------------------


def begin(machine: Machine, part: str, folder: str, *arguments: object) -> Any:
    return machine.start([sys.executable, "-m", "benchmarks.nfs", "--part", json.dumps([part, folder, *arguments])])


def together(rig: Rig, part: str, folder: str, times: int) -> float:
    running = [begin(machine, part, folder, me, times) for me, machine in enumerate(rig.clients[:2])]
    return statistics.median(json.loads(one.output(600)) for one in running)


def alone(rig: Rig, part: str, folder: str, *arguments: object) -> float:
    return float(json.loads(begin(rig.clients[0], part, folder, *arguments).output(600)))


def measured(rig: Rig, mount: str, rounds: int) -> Iterable[str]:
    """What was found, as lines."""
    took: dict[str, list[float]] = {}
    sent: dict[str, float] = {}
    folders = (f"/nfs/{mount}/bench-{mount}-{number}" for number in range(1000))

    def fresh() -> str:
        folder = next(folders)
        rig.clients[0].run(["mkdir", "-m", "700", folder])
        return folder

    def note(name: str, count: int, measure: Callable[[], float]) -> None:
        before = asked(rig, mount)
        took.setdefault(name, []).append(measure())
        sent[name] = (asked(rig, mount) - before) / count

    for _ in range(rounds):
        note("barrier", MEETINGS, lambda: together(rig, "meet", fresh(), MEETINGS))
        note("exchange in place", MEETINGS, lambda: together(rig, "exchange", fresh(), MEETINGS))
        if mount != "v3":  # where what was looked for in vain may never be found: some runs did not end
            note("exchange of new files", MEETINGS, lambda: together(rig, "new", fresh(), MEETINGS))
        for peer in QUEUES:
            note(peer, ITEMS, lambda: alone(rig, "strict", fresh(), peer, ITEMS))  # noqa: B023
        note("batched", BATCHED, lambda: alone(rig, "batched", fresh(), BATCHED))
    for name, found in took.items():
        what = f"{statistics.median(found) * 1000:.2f} ms" if name in PAIRED else f"{statistics.median(found):.1f}/s"
        yield f"{mount}: {name}: {what}, {sent[name]:.1f} requests of the first client each, with what is made once"
    for name, base, goal in (
        ("barrier", "exchange in place", "at most 3"),
        ("barrier", "exchange of new files", "at most 3"),
        ("psync", "dirq", "at least 5"),
        ("psync", "persistqueue", "at least 5"),
        ("batched", "psync", "at least 10"),
    ):
        if base not in took:
            continue
        ratio = statistics.median(one / other for one, other in zip(took[name], took[base], strict=True))
        yield f"{mount}: {name} / {base}: {ratio:.2f} (goal: {goal})"


PAIRED = ("barrier", "exchange in place", "exchange of new files")


def asked(rig: Rig, mount: str) -> int:
    """How many requests the first client has sent."""
    code = f"from tests.nfs.programs import requests; print(sum(requests('/nfs/{mount}/').values()))"
    return int(rig.clients[0].run([sys.executable, "-c", code]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nfs", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", type=json.loads, help="what one of the machines is told")
    options = parser.parse_args()
    if options.part:
        name, *arguments = options.part
        print(PARTS[name](*arguments))
        return
    with Rig(clients=2) as rig:
        for mount in ("v4", "v3"):
            for line in measured(rig, mount, options.rounds):
                print(line, flush=True)


if __name__ == "__main__":
    main()
