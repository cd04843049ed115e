"""How soon a waiter in another process learns of a value or flag, what waiting costs, what waiters cost a writer."""

from __future__ import annotations

import random
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.harness import Bench, Case, Figure, Pace, fork, idle_cpu, per_item

NEVER = -1
"""A turn that nobody sends."""


def latency(bench: Bench) -> dict[str, float]:
    """From just before the writer writes to just after the waiter has the value.

    Both have slept for 2 ms or more before that, so all that they run is cold; every second time the writer has
    written something else just before, as a worker has that writes several results.
    """
    polls = bench.peer.__name__.endswith("pickleshare")
    turns = bench.few(8, 4) if polls else bench.few(400, 120)
    cold, warm = _turns(bench.peer.Signal(bench.folder), turns, 0.5 if polls else 0.0)
    return {
        **_latency(cold).figures("wake, median"),
        "wake by a warm writer": 1e6 * statistics.median(warm),
    }


def flag(bench: Bench) -> dict[str, float]:
    """The same for an event: from just before it is set to where `wait` has returned."""
    cold, warm = _turns(bench.peer.Flag(bench.folder), bench.few(400, 120), 0.0)
    return {
        **_latency(cold).figures("set to wake, median"),
        "set to wake by a warm setter": 1e6 * statistics.median(warm),
    }


def _latency(took: list[float]) -> Pace:
    return Pace(statistics.median(took), took[int(len(took) * 0.99)])


def _turns(shared: Any, turns: int, pause: float) -> tuple[list[float], list[float]]:
    """Seconds that each turn took, sorted: by a cold writer, by a warm one."""
    mine, theirs = fork.Pipe()
    writer = fork.Process(target=_writer, args=(theirs, shared, turns, pause))
    writer.start()
    shared.open()
    took: tuple[list[float], list[float]] = ([], [])
    lower = getattr(shared, "lower", lambda: None)
    for turn in range(turns):
        lower()
        mine.send(turn)
        sent = shared.wait(turn, 10.0)
        took[turn % 2].append(time.perf_counter() - sent)
    writer.join()
    return sorted(took[0]), sorted(took[1])


def _writer(link: Connection, shared: Any, turns: int, pause: float) -> None:
    shared.open()
    chance = random.Random(turns)
    for _ in range(turns):
        turn = link.recv()
        time.sleep(pause * chance.random() + chance.uniform(0.002, 0.006))
        if turn % 2:
            shared.send_elsewhere(turn)
        shared.send(turn)


def idle(bench: Bench) -> dict[str, float]:
    """CPU time of a process that waits for what does not come."""
    shared = bench.peer.Signal(bench.folder)

    def wait() -> None:
        shared.open()
        shared.wait(NEVER, 60.0)

    return {"idle CPU": idle_cpu(wait, bench.few(2, 1))}


def sixteen(bench: Bench) -> dict[str, float]:
    """A writer alone, and beside sixteen processes that wait for other keys of the same folder."""
    store = bench.peer.Store(bench.folder)
    jobs = [(f"hot{i:02}", b"x" * 100) for i in range(32)] * bench.few(30, 15)
    for job in jobs[:32]:
        store.set(*job)
    alone = per_item(store.set, jobs)

    gate = fork.Semaphore(0)
    waiters = [fork.Process(target=_waiter, args=(bench, gate, i)) for i in range(16)]
    for waiter in waiters:
        waiter.start()
    for _ in waiters:
        gate.acquire()
    time.sleep(0.3)  # from ready to asleep
    beside = per_item(store.set, jobs)
    for waiter in waiters:
        waiter.kill()
        waiter.join()
    store.close()
    return {"write alone": 1e6 * alone, "write beside 16 waiters": 1e6 * beside}


def _waiter(bench: Bench, gate: Any, number: int) -> None:
    shared = bench.peer.Signal(bench.folder)
    shared.open()
    gate.release()
    shared.wait(1000 + number, 60.0)


LATENCY_FIGURES = (Figure("wake, median", "µs"), Figure("wake by a warm writer", "µs"))
CASES = (
    Case(
        "wake",
        "latency",
        latency,
        LATENCY_FIGURES,
        ("plain", "multiprocessing", "multiprocessing_queue", "redis", "tcpstore", "filestore", "pickleshare"),
        rounds=5,
    ),
    Case(
        "wake",
        "flag",
        flag,
        (
            Figure("set to wake, median", "µs"),
            Figure("set to wake by a warm setter", "µs"),
        ),
        ("plain", "multiprocessing"),
        rounds=5,
    ),
    Case(
        "wake",
        "idle",
        idle,
        (Figure("idle CPU", "ms/s"),),
        ("plain", "multiprocessing", "multiprocessing_queue", "redis", "tcpstore", "filestore", "pickleshare"),
        rounds=2,
        quick_rounds=1,
        disk=False,
    ),
    Case(
        "wake",
        "sixteen",
        sixteen,
        (Figure("write alone", "µs", None), Figure("write beside 16 waiters", "µs", None)),
        (),
        rounds=5,
    ),
)
