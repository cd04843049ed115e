"""The wall clock may be an hour ahead, an hour behind, or jump at any moment: nobody who waits or lives is affected."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psync import Barrier, Event, Group, Lock, Semaphore, WorkQueue
from psync.engine.system import clock
from tests.concurrency.simultaneous import together
from tests.support import scaled
from tests.sync.other_process import Channel, other_process, soon

HOUR = 3600 * 10**9
ROUNDS = scaled(20)


def ahead() -> Iterator[int]:
    return itertools.repeat(HOUR)


def behind() -> Iterator[int]:
    return itertools.repeat(-HOUR)


def jumping() -> Iterator[int]:
    return itertools.cycle([HOUR, -HOUR, 0, 24 * HOUR])


def exact() -> Iterator[int]:
    return itertools.repeat(0)


def set_clock(offsets: Iterator[int]) -> None:
    """In this process, from now on; each look takes the next offset."""
    clock.wall_ns = lambda: time.time_ns() + next(offsets)  # type: ignore[assignment]


CREW = [ahead, behind, jumping, exact]


def test_parties_with_different_clocks_meet_and_keep_each_other_out(root: Path, tmp_path: Path) -> None:
    book = tmp_path / "count"
    book.write_text("0")

    def work(offsets: Callable[[], Iterator[int]]) -> int:
        set_clock(offsets())
        barrier, lock, slots = Barrier(root, "x", len(CREW)), Lock(root, "x"), Semaphore(root, "x", 2)
        with Group(root, "x") as crew:
            assert len(crew.wait_for(len(CREW), timeout=60)) == len(CREW)
            for turn in range(ROUNDS):
                with slots, lock.hold(timeout=60):
                    book.write_text(str(int(book.read_text()) + 1))
                barrier.wait(timeout=60)
                assert int(book.read_text()) >= len(CREW) * (turn + 1)
                barrier.wait(timeout=60)
        return 0

    assert together([lambda offsets=offsets: work(offsets) for offsets in CREW]) == [0] * len(CREW)
    assert book.read_text() == str(len(CREW) * ROUNDS)


def test_a_queue_between_processes_with_different_clocks_loses_nothing(root: Path) -> None:
    tasks = scaled(60)

    def put() -> int:
        set_clock(ahead())
        jobs = WorkQueue(root, "x")
        for number in range(tasks):
            jobs.put(number, delay=0.05 if number % 10 == 0 else 0.0)
        return 0

    def take(offsets: Callable[[], Iterator[int]]) -> int:
        set_clock(offsets())
        jobs, done = WorkQueue(root, "x"), 0
        for task in jobs:
            with task:
                task.done(task.value**2)
                done += 1
        return done

    together([put])
    assert sum(together([lambda offsets=offsets: take(offsets) for offsets in CREW])) == tasks
    jobs = WorkQueue(root, "x")
    assert sorted(value for _, value in jobs.results.collect(timeout=0)) == [number**2 for number in range(tasks)]


@pytest.mark.parametrize("offsets", CREW, ids=lambda offsets: offsets.__name__)
def test_a_delay_takes_as_long_as_it_says(root: Path, offsets: Callable[[], Iterator[int]]) -> None:
    def put() -> float:
        set_clock(behind())
        begun = time.monotonic()
        WorkQueue(root, "x").put("late", delay=0.4)
        return begun

    def take() -> float:
        set_clock(offsets())
        assert WorkQueue(root, "x").get(timeout=60).value == "late"
        return time.monotonic()

    put_at, taken_at = together([put]) + together([take])
    assert 0.39 <= taken_at - put_at < 10


@pytest.mark.parametrize("offsets", CREW, ids=lambda offsets: offsets.__name__)
def test_a_timeout_takes_as_long_as_it_says(root: Path, offsets: Callable[[], Iterator[int]]) -> None:
    def wait() -> float:
        set_clock(offsets())
        begun = time.monotonic()
        assert not Event(root, "x").wait(timeout=0.2)
        assert not Semaphore(root, "x", 0).acquire(timeout=0.2)
        return time.monotonic() - begun

    (took,) = together([wait])
    assert 0.4 <= took < 10


@pytest.mark.parametrize("offsets", CREW, ids=lambda offsets: offsets.__name__)
def test_a_living_holder_is_not_taken_for_dead_and_a_dead_one_is(
    root: Path, offsets: Callable[[], Iterator[int]]
) -> None:
    def hold(talk: Channel) -> None:
        set_clock(behind())
        assert Lock(root, "x").acquire() and Semaphore(root, "x").acquire()
        talk.say("held")
        talk.hear()

    def come(talk: Channel) -> None:
        set_clock(offsets())
        lock, slots = Lock(root, "x"), Semaphore(root, "x")
        talk.say((lock.acquire(timeout=0.3), slots.acquire(timeout=0.3)))
        talk.hear()
        talk.say((lock.acquire(timeout=30), slots.acquire(timeout=30)))

    with other_process(hold) as holder:
        holder.hear()
        with other_process(come) as comer:
            assert comer.hear() == (False, False)
            begun = holder.kill()
            comer.tell()
            assert comer.hear() == (True, True)
            soon("what a dead one held was had in", begun)
