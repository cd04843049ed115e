"""Many at once, and for long: a barrier of sixteen, an event that sixty-four wait for, a lock that sixteen want."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import Barrier, Counter, Event, Lock
from tests.concurrency.simultaneous import PATIENCE, SharedNumbers, in_threads, together
from tests.support import ENGINE, fresh_in, scaled
from tests.sync.kinds import EXCLUSIVE_BY_NAME

pytestmark = pytest.mark.slow
CROWD = 16


def test_sixteen_processes_meet_a_thousand_times(root: Path) -> None:
    rounds = scaled(1000)
    came = SharedNumbers(CROWD)

    def meet(me: int) -> tuple[float, int]:
        barrier, places = Barrier(root, "x", CROWD), 0
        barrier.wait()
        begun = time.monotonic()
        for turn in range(1, rounds + 1):
            came[me] = turn
            places += barrier.wait()
            assert min(came.copy()) >= turn, "somebody passed before all had come"
        return time.monotonic() - begun, places

    # on a server each changes what all others want to change: some hundred requests a round
    answers = together([lambda me=me: meet(me) for me in range(CROWD)], patience=400.0 if ENGINE else PATIENCE)
    assert sum(places for _, places in answers) == rounds * sum(range(CROWD))
    print(f"{rounds} rounds of {CROWD} processes in {max(took for took, _ in answers):.2f} s")


def test_sixty_four_wait_for_one_event_and_all_go_on(root: Path) -> None:
    waiting = Counter(root, "waiting")
    turns = scaled(10)

    def wait_in_threads() -> list[bool]:
        def wait() -> bool:
            seen = []
            for turn in range(turns):
                waiting.add()
                seen.append(Event(root, f"turn {turn}").wait(timeout=60))
            return all(seen)

        return in_threads([wait] * 8)

    def set_each() -> list[bool]:
        for turn in range(turns):
            waiting.wait_for(64 * (turn + 1), timeout=60)
            Event(root, f"turn {turn}").set()
        return []

    begun = time.monotonic()
    answers = together([wait_in_threads] * 8 + [set_each])
    assert [woken for part in answers for woken in part] == [True] * 64
    print(f"64 waiters woken {turns} times in {time.monotonic() - begun:.2f} s")


def contend(root: Path, make: Callable[[Path], Any], timeout: float | None) -> list[int]:
    """How often each of sixteen was served in a second or so, with a little to do inside each time."""
    seconds = 1.2 * min(scaled(1), 10)
    inside = SharedNumbers(1)

    def want() -> int:
        lock, served = make(root), 0
        begin.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert lock.acquire(timeout=timeout)
            inside[0] += 1
            time.sleep(0.00005)
            served += 1
            lock.release()
        return served

    begin = Barrier(root, "begin", CROWD)
    served = together([want] * CROWD)
    print(f"{sum(served) / seconds:.0f} holdings a second, {min(served)} to {max(served)} each")
    assert inside[0] == sum(served), "two were inside at once"
    return served


def test_of_sixteen_that_want_a_lock_each_gets_a_tenth_of_the_luckiest_or_more(root: Path) -> None:
    """In one of three tries: what a busy machine gives each process is not the lock's doing."""
    tries = (contend(fresh_in(root), lambda db: Lock(db, "x"), None) for _ in range(3))
    assert any(min(served) * 10 >= max(served) for served in tries)


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "writer"])
def test_of_sixteen_that_want_to_be_inside_for_a_limited_time_nobody_is_forgotten(root: Path, kind: str) -> None:
    """They wait for wake-ups, and whoever comes just then may be faster: not promised is that each gets its share."""
    assert min(contend(root, EXCLUSIVE_BY_NAME[kind].make, 60.0)) > 0
