"""Workers and producers are killed all the time: each task still has one right result, and none is left behind."""

from __future__ import annotations

import os
import queue
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB, WorkQueue
from psync.errors import StaleClaim
from psync.sync.queue.prefetch import MAX_REMOTE_BATCH_TASKS
from psync.sync.wait import MAX_REMOTE_PROBE_S
from tests.concurrency.history import identity_of, value_of
from tests.concurrency.simultaneous import FORK, end, together
from tests.support import ENGINE, die_before_the_mark, everywhere, scaled

ENOUGH = 1_000_000
"""Attempts that a task may have: here none is ever used up."""


@contextmanager
def opened(root: Path, max_attempts: int = ENOUGH) -> Iterator[WorkQueue]:
    """The queue through a handle of its own; what it still holds in the end goes back as if its worker had died."""
    with PickleShareDB(root) as db:
        yield WorkQueue(db, "jobs", max_attempts=max_attempts)


class Notes:
    """A file outside the store to which processes add a line at a time; a killed one has added it or not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, *words: object) -> None:
        with open(self._path, "ab", buffering=0) as file:
            file.write(" ".join(map(str, words)).encode() + b"\n")

    def read(self) -> list[tuple[str, ...]]:
        return [tuple(line.split()) for line in self._path.read_text().splitlines()] if self._path.exists() else []


@contextmanager
def workers(count: int, work: Callable[[], Any]) -> Iterator[list[BaseProcess]]:
    """`count` processes that run `work`; whoever replaces one puts the new one in the list."""
    crew = [started(work) for _ in range(count)]
    try:
        yield crew
    finally:
        for process in crew:
            end(process)


def started(work: Callable[[], Any]) -> BaseProcess:
    process = FORK.Process(target=work)
    process.start()
    return process


# -- killed workers ----------------------------------------------------------------------------


def answer(number: int) -> int:
    """Half a millisecond's work or so."""
    return sum(place * place % 7 for place in range(number % 4_000 + 3_000))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_task_has_its_one_right_result_though_workers_are_killed_every_few_milliseconds(
    root: Path, tmp_path: Path, seed: int
) -> None:
    tasks = max(300, scaled(1_000))
    notes = Notes(tmp_path / "attempts")

    def work() -> None:
        for task in WorkQueue(root, "jobs", max_attempts=ENOUGH):
            notes.add(task.id, task.attempt)
            time.sleep(0.001)  # so that the work outlasts many kills on a fast machine, too
            task.done((task.value, answer(task.value)))

    with opened(root) as jobs, workers(4, work) as crew:
        ids = jobs.put_many(range(tasks))
        kills = kill_until_drained(crew, work, jobs, random.Random(seed))
        jobs.join(timeout=20)
        for process in crew:
            process.join(5)
            assert process.exitcode == 0, "a worker does not end though the queue is drained"

        assert kills > tasks / 200, "hardly anybody was killed"
        results = Counter(jobs.results.collect(ids, timeout=0))
        assert results == {(id, (number, answer(number))): 1 for number, id in enumerate(ids)}
        assert sorted(jobs.results.addresses()) == sorted(ids)
    attempts = Counter(notes.read())
    assert {id for id, _ in attempts} == set(ids)
    assert set(attempts.values()) == {1}, "two workers had the same attempt"
    assert len(attempts) <= tasks + kills * (
        MAX_REMOTE_BATCH_TASKS if ENGINE else 1
    )  # on a server those that were claimed together
    assert_nothing_is_left(root)


def kill_until_drained(crew: list[BaseProcess], work: Callable[[], Any], jobs: WorkQueue, chance: random.Random) -> int:
    """Kill somebody every few milliseconds and start another, as long as tasks are waiting. How many were killed."""
    kills = 0
    patience = time.monotonic() + 60
    while not jobs.empty():
        assert time.monotonic() < patience, f"{jobs.statistics()} after {kills} kills: it gets nowhere"
        time.sleep(chance.uniform(0.003, 0.012))
        victim = chance.randrange(len(crew))
        kills += crew[victim].is_alive()
        end(crew[victim])
        crew[victim] = started(work)
    return kills


def assert_nothing_is_left(root: Path) -> None:
    """Seen by somebody new: nothing waits, nothing is claimed, nothing died."""
    with opened(root) as jobs:
        jobs.join(timeout=5)
        looked = jobs.statistics()
        assert (looked.waiting, looked.running, looked.dead) == (0, 0, 0)
        assert jobs.qsize() == 0 and jobs.empty() and jobs.dead() == []
        with pytest.raises(queue.Empty):
            jobs.get(block=False)
        assert list(jobs) == []


@everywhere
def test_a_claim_of_a_killed_worker_is_given_back_in_under_a_second(root: Path) -> None:
    with opened(root) as jobs, pipe() as (hears, tells):
        jobs.put("work")

        def hold() -> None:
            tells.send(WorkQueue(root, "jobs", max_attempts=ENOUGH).get().id)
            time.sleep(100)

        for killed in range(3):
            with workers(1, hold) as crew:
                id = hears.recv()
                with pytest.raises(queue.Empty):
                    jobs.get(timeout=0.3)  # its worker lives
                os.kill(crew[0].pid or 0, signal.SIGKILL)
                begin = time.monotonic()
                task = jobs.get(timeout=30)
                assert time.monotonic() - begin < (MAX_REMOTE_PROBE_S + 5 if ENGINE else 1)  # a busy server: seldom
                assert (task.id, task.attempt, task.value) == (id, 2 + 2 * killed, "work")
                task.retry()
        jobs.get().done("result")
        assert jobs.results.get(id, timeout=0) == "result"
    assert_nothing_is_left(root)


def test_a_worker_that_is_stopped_for_long_keeps_its_claim(root: Path) -> None:
    """Slow is not dead: nothing takes a task from a worker that is there."""
    with opened(root) as jobs, pipe() as (hears, tells), pipe() as (waits, goes):
        jobs.put("work")

        def hold() -> None:
            task = WorkQueue(root, "jobs").get()
            tells.send(task.id)
            waits.recv()
            task.done("result")

        with workers(1, hold) as crew:
            id = hears.recv()
            os.kill(crew[0].pid or 0, signal.SIGSTOP)
            try:
                with pytest.raises(queue.Empty):
                    jobs.get(timeout=1)
            finally:
                os.kill(crew[0].pid or 0, signal.SIGCONT)
            goes.send("on")
            assert jobs.results.get(id, timeout=10) == "result"


def test_an_answer_stands_though_its_worker_is_killed_before_the_task_is_marked_done(root: Path) -> None:
    if ENGINE:
        pytest.skip(f"on {ENGINE} both are one instant")

    def answer_and_die() -> None:
        jobs = WorkQueue(root, "jobs")
        die_before_the_mark(jobs.results, lambda: os.kill(os.getpid(), signal.SIGKILL))
        jobs.get().done("the first answer")

    with opened(root) as jobs:
        id = jobs.put("work")
        with workers(1, answer_and_die) as crew:
            crew[0].join(10)
            assert crew[0].exitcode == -signal.SIGKILL
        with pytest.raises(queue.Empty):
            jobs.get(timeout=1)
        assert jobs.results.get(id, timeout=0) == "the first answer"
    assert_nothing_is_left(root)


@contextmanager
def pipe() -> Iterator[tuple[Any, Any]]:
    receiver, sender = FORK.Pipe(duplex=False)
    with receiver, sender:
        yield receiver, sender


# -- killed producers --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_a_producer_killed_in_put_leaves_whole_tasks_only(root: Path, tmp_path: Path, seed: int) -> None:
    notes = Notes(tmp_path / "acknowledged")
    lives = max(10, scaled(40))

    def produce(life: int) -> None:
        jobs = WorkQueue(root, "jobs")
        for number in range(1_000_000):
            identity = life * 1_000_000 + number
            jobs.put(value_of(identity))
            notes.add(identity)

    kill_one_by_one(produce, lives, random.Random(seed))
    put = [identity_of(value) for value in drained(root)]
    assert [identity for identity in put if isinstance(identity, str)] == [], "a torn task was taken"
    acknowledged = {int(identity) for (identity,) in notes.read()}
    assert len(acknowledged) > lives, "hardly anything was put"
    assert acknowledged <= set(put), "an acknowledged task is lost"
    assert len(set(put) - acknowledged) <= lives, "more was put than each one's last, which nobody heard of"
    for life in range(lives):  # each producer's tasks are there once, in order, without a gap
        mine = [identity for identity in put if int(identity) // 1_000_000 == life]
        assert mine == list(range(life * 1_000_000, life * 1_000_000 + len(mine)))


def test_a_producer_killed_in_put_many_leaves_all_of_them_or_none(root: Path) -> None:
    def produce(life: int) -> None:
        jobs = WorkQueue(root, "jobs")
        for number in range(1_000_000):
            jobs.put_many([(life, number, place, b"x" * (place * 37 % 900)) for place in range(50)])
            time.sleep(0.002)

    kill_one_by_one(produce, max(10, scaled(30)), random.Random(5))
    put = drained(root)
    batches = Counter((life, number) for life, number, _, _ in put)
    assert len(batches) > 1 and set(batches.values()) == {50}
    assert all(ballast == b"x" * (place * 37 % 900) for _, _, place, ballast in put)


def kill_one_by_one(produce: Callable[[int], None], lives: int, chance: random.Random) -> None:
    """Two producers at a time; one is killed after some milliseconds, and another begins."""
    crew: list[BaseProcess] = []
    try:
        for life in range(lives):
            crew.append(started(partial(produce, life)))
            time.sleep(chance.uniform(0.005, 0.025))
            if len(crew) > 1:
                end(crew.pop(0))
    finally:
        for process in crew:
            end(process)


def drained(root: Path) -> list[Any]:
    """The values of all tasks; each is taken and done."""
    values = []
    with opened(root) as jobs:
        for task in jobs:
            values.append(task.value)
            task.done()
    assert_nothing_is_left(root)
    return values


# -- one task, one claim, one result -----------------------------------------------------------


def test_the_late_answer_of_who_gave_a_task_back_is_refused(root: Path) -> None:
    with opened(root) as jobs, opened(root) as others:
        id = jobs.put("work")
        first = jobs.get()
        first.retry()
        second = others.get(timeout=5)
        assert (second.id, second.attempt) == (id, 2) and second.token > first.token
        for late in (lambda: first.done("late"), first.retry, lambda: first.fail("late")):
            with pytest.raises(StaleClaim):
                late()
        assert id not in jobs.results
        second.done("right")
        for late in (lambda: first.done("late"), first.retry, lambda: second.done("twice")):
            with pytest.raises(StaleClaim):
                late()
        assert jobs.results.get(id, timeout=0) == "right"
    assert_nothing_is_left(root)


def test_the_late_answer_of_who_was_given_up_for_dead_is_refused(root: Path) -> None:
    """Who closes its store while it holds a task is dead as far as others can see."""
    with opened(root) as jobs, PickleShareDB(root) as db:
        id = jobs.put("work")
        first = WorkQueue(db, "jobs").get()
        db.close()
        second = jobs.get(timeout=5)
        assert (first.id, second.id, second.attempt) == (id, id, 2)
        with pytest.raises(StaleClaim):
            first.done("late")
        second.done("right")
        with pytest.raises(StaleClaim):
            first.done("later")
        assert jobs.results.get(id, timeout=0) == "right"
    assert_nothing_is_left(root)


def test_an_id_put_by_many_at_once_and_again_later_is_one_task(root: Path) -> None:
    names = [f"task {number}" for number in range(scaled(60))]

    def put_all() -> None:
        with opened(root) as jobs:
            for name in names:
                assert jobs.put((name, "value"), id=name) == name

    together([put_all] * 6)
    with opened(root) as jobs:
        assert jobs.qsize() == len(names)
    assert drained(root) == [(name, "value") for name in names]
    together([put_all] * 2)
    assert_nothing_is_left(root)


def test_workers_that_are_threads_and_processes_at_once_share_out_the_tasks(root: Path) -> None:
    tasks = scaled(600)

    def work(jobs: WorkQueue) -> list[int]:
        mine = []
        for task in jobs:
            with task:
                mine.append(task.value)
                task.done(answer(task.value))
        return mine

    def work_in_threads() -> list[int]:
        with opened(root) as jobs, ThreadPoolExecutor(3) as pool:
            return [number for part in pool.map(work, [jobs] * 3) for number in part]

    with opened(root) as jobs:
        ids = jobs.put_many(range(tasks))
        parts = together([work_in_threads] * 3)
        assert sorted(number for part in parts for number in part) == list(range(tasks))
        assert dict(jobs.results.collect(ids, timeout=0)) == {id: answer(number) for number, id in enumerate(ids)}
    assert_nothing_is_left(root)
