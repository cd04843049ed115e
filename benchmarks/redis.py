"""psync on Redis beside what one would write by hand on redis-py, and fan-out beside rq and huey, on one server.

Turns of both follow each other at once, so that whatever else the machine does hits both alike; what is told is the
median of the turns' ratios, of the time that passed, and of the processor time of client and server together.

    python -m benchmarks.redis [--rounds N] [--calls N]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.fan_out import nothing
from benchmarks.harness import crowd
from benchmarks.peers import missing, psync, redis, redis_strict

VALUE = {"a": 1, "b": "x" * 60}
ITEM = b"x" * 100
WANTED = 1.3
"""How many times what is written by hand psync may need, at most."""
PARTIES, BARRIER_ROUNDS = 4, 200
FAN_OUT = {"rq": 3.0, "huey_redis": 2.0}
"""How many times as fast as these psync's executor has to be."""


class Ratio(NamedTuple):
    ours: float
    """Microseconds, the median of all turns."""
    theirs: float
    passed: float
    """Of the time that passed: ours through theirs, the median."""
    worked: float
    """The same of processor time; not a number where it was not measured."""


Turn = Callable[[], object]


@contextmanager
def turns(url: str) -> Iterator[dict[str, tuple[Turn, Turn]]]:
    """What is compared: psync's, and redis-py's by hand."""
    stores = psync.Store(url), redis.Store("")
    queues = psync.Queue(url), redis_strict.Queue("")
    locks = psync.Lock(url), redis.Lock("")
    for each in (*queues, *locks):
        each.open()

    def put_and_take(queue: Any) -> Turn:
        def turn() -> None:
            queue.put(ITEM)
            queue.take()

        return turn

    def acquire_and_release(lock: Any) -> Turn:
        def turn() -> None:
            lock.acquire()
            lock.release()

        return turn

    mine, theirs = stores
    yield {
        "set": (lambda: mine.set("key", VALUE), lambda: theirs.set("key", VALUE)),
        "get": (lambda: mine.get("key"), lambda: theirs.get("key")),
        "put, get and done": (put_and_take(queues[0]), put_and_take(queues[1])),
        "acquire and release": (acquire_and_release(locks[0]), acquire_and_release(locks[1])),
    }
    for one in (*stores, *queues, *locks):
        one.close()


def compared(pair: tuple[Turn, Turn], rounds: int, count: int = 50) -> Ratio:
    with redis._connect() as server:
        for turn in pair:
            timed(turn, count, server)
        seen = []
        for number in range(rounds):
            order = pair if number % 2 else pair[::-1]
            took = {turn: timed(turn, count, server) for turn in order}
            seen.append((took[pair[0]], took[pair[1]]))
    return Ratio(
        statistics.median(ours[0] for ours, _ in seen),
        statistics.median(theirs[0] for _, theirs in seen),
        statistics.median(ours[0] / theirs[0] for ours, theirs in seen),
        statistics.median(ours[1] / theirs[1] for ours, theirs in seen),
    )


def timed(turn: Turn, count: int, server: Any) -> tuple[float, float]:
    """Microseconds a turn: that passed, and of the processor's time, the server's among it."""
    worked = -time.process_time() - served(server)
    began = time.perf_counter()
    for _ in range(count):
        turn()
    passed = time.perf_counter() - began
    worked += time.process_time() + served(server)
    return 1e6 * passed / count, 1e6 * worked / count


def served(server: Any) -> float:
    used = server.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def barriers(url: str, rounds: int) -> Ratio:
    """Rounds of four parties, all of them processes."""
    seen = []
    for number in range(max(3, rounds // 10)):
        ours = psync.Barrier(f"{url}{number}", PARTIES)
        theirs = redis.Barrier("", PARTIES)
        redis.clean()
        seen.append((max(crowd(PARTIES, _rounds, [ours] * PARTIES)), max(crowd(PARTIES, _rounds, [theirs] * PARTIES))))
    return Ratio(
        statistics.median(ours for ours, _ in seen),
        statistics.median(theirs for _, theirs in seen),
        statistics.median(ours / theirs for ours, theirs in seen),
        float("nan"),
    )


def _rounds(gate: Callable[[], Any], barrier: Any) -> float:
    barrier.open()
    barrier.wait()
    gate()
    began = time.perf_counter()
    for _ in range(BARRIER_ROUNDS):
        barrier.wait()
    took = 1e6 * (time.perf_counter() - began) / BARRIER_ROUNDS
    barrier.close()
    return took


def fan_out(peer: str, place: str, calls: int, workers: int = 2) -> float:
    """Microseconds a call that does nothing, submitted one by one, until the last answer is here."""
    redis.clean()
    pool = importlib.import_module(f"benchmarks.peers.{peer}").Pool(place, workers)
    pool.submit_all(nothing, range(10 * workers))
    took = []
    for _ in range(3):
        if peer == "huey_redis":
            redis.clean()  # it counts the answers that are there
        began = time.perf_counter()
        if pool.submit_all(nothing, range(calls)) != list(range(calls)):
            raise AssertionError("answers were lost, or came in another order")
        took.append(1e6 * (time.perf_counter() - began) / calls)
    pool.close()
    return statistics.median(took)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redis", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="pairs of turns for each operation (60)")
    parser.add_argument("--calls", type=int, default=500, help="calls of a fan-out (500)")
    asked = parser.parse_args()
    missed = False
    with redis.server() as url:
        print(f"{'':28}{'psync':>10}{'by hand':>10}{'ratio':>8}{'CPU':>8}{'at most':>9}   (µs)")
        with turns(f"{url}turns") as pairs:
            rows = {what: compared(pair, asked.rounds) for what, pair in pairs.items()}
        rows[f"a round of a barrier of {PARTIES}"] = barriers(f"{url}barrier", asked.rounds)
        for what, row in rows.items():
            print(f"{what:28}{row.ours:10.1f}{row.theirs:10.1f}{row.passed:8.2f}{row.worked:8.2f}{WANTED:9.1f}")
            missed |= row.passed > WANTED
        ours = fan_out("psync", f"{url}calls", asked.calls)
        print(f"{'a call submitted':28}{ours:10.1f}")
        for peer, wanted in FAN_OUT.items():
            if reason := missing(peer):
                print(f"{peer} is left out: {reason}")
                continue
            theirs = fan_out(peer, "", asked.calls)
            print(f"  by {peer:23}{theirs:10.1f}   {theirs / ours:.2f} times psync's, wanted at least {wanted:g}")
            missed |= theirs / ours < wanted
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
