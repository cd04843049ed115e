"""Workers are killed, stopped and set going again at random: each task has its one right result, and nobody pays twice.

An attempt that was begun may be for nothing when its worker was killed, or (with a lease) stopped for too long. So
there are never more attempts than tasks and blows together.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from psync import WorkQueue
from psync.errors import StaleClaim
from psync.sync.queue.prefetch import MAX_REMOTE_BATCH_TASKS
from tests.concurrency.simultaneous import end
from tests.concurrency.test_queue_kill import (
    ENOUGH,
    Notes,
    answer,
    assert_nothing_is_left,
    opened,
    pipe,
    started,
    workers,
)
from tests.support import scaled

LEASE = 0.5
"""Seconds: a task takes a thousandth of it."""


def work(root: Path, notes: Notes, lease: float | None, batch: int) -> None:
    """Works until the queue is drained, one by one, in a loop, or by several at a time."""
    jobs = WorkQueue(root, "jobs", max_attempts=ENOUGH, lease=lease)
    while True:
        try:
            tasks = iter(jobs) if batch == 0 else iter(jobs.get_many(batch, timeout=0.5))
        except queue.Empty:
            if jobs._priorities.finished():
                return
            continue
        for task in tasks:
            try:
                value = task.value
                notes.add(task.id, task.attempt)
                task.done((value, answer(value)))
            except StaleClaim:
                continue
        if batch == 0:
            return


@pytest.mark.parametrize("lease", [None, LEASE], ids=["no lease", "lease"])
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_every_task_has_its_one_right_result_whatever_befalls_its_workers(
    root: Path, tmp_path: Path, seed: int, lease: float | None
) -> None:
    tasks = max(100, scaled(400))
    chance = random.Random(seed)
    notes = Notes(tmp_path / "attempts")
    ways = [partial(work, root, notes, lease, batch) for batch in (0, 1, 7)]
    killed = stopped = 0
    with opened(root) as jobs, workers(0, ways[0]) as crew:
        ids = [jobs.put(number, priority=number % 3 - 1, delay=0.02 * (number % 10 == 0)) for number in range(tasks)]
        crew += [started(ways[number % 3]) for number in range(6)]
        patience = time.monotonic() + 90
        while not jobs._priorities.finished():
            assert time.monotonic() < patience, f"{jobs.statistics()} after {killed} kills and {stopped} stops"
            time.sleep(chance.uniform(0.002, 0.015))
            victim = chance.randrange(len(crew))
            process = crew[victim]
            blow = chance.random()
            if blow < 0.5 or not process.is_alive():
                killed += process.is_alive()
                end(process)
                crew[victim] = started(ways[chance.randrange(3)])
            elif blow < 0.8:
                os.kill(process.pid or 0, signal.SIGSTOP)
                stopped += 1
                # it may have stopped with a lock in its hands, so not for long; now and then for longer than a lease
                time.sleep(LEASE * 2.2 if lease and chance.random() < 0.04 else chance.uniform(0.001, 0.02))
                os.kill(process.pid or 0, signal.SIGCONT)
        jobs.join(timeout=30)
        for process in crew:
            process.join(20)
            assert process.exitcode == 0, "a worker does not end though the queue is drained"
        assert Counter(jobs.results.collect(ids, timeout=0)) == {
            (id, (number, answer(number))): 1 for number, id in enumerate(ids)
        }
        begun_together = MAX_REMOTE_BATCH_TASKS if jobs.engine.remote else 1
    attempts = Counter(notes.read())
    assert {id for id, _ in attempts} == set(ids)
    assert set(attempts.values()) == {1}, "two workers had the same attempt"
    assert len(attempts) <= tasks + killed * begun_together + (stopped if lease else 0)
    assert_nothing_is_left(root)


@pytest.mark.parametrize("late", ["done", "retry", "fail", "touch"])
def test_a_worker_paused_for_three_leases_changes_nothing_when_it_comes_back(root: Path, late: str) -> None:
    def hold() -> None:
        task = WorkQueue(root, "jobs", lease=0.4).get()
        tells.send(task.id)
        waits.recv()
        try:
            {
                "done": lambda: task.done("late"),
                "retry": task.retry,
                "fail": lambda: task.fail(""),
                "touch": task.touch,
            }[late]()
        except StaleClaim as error:
            tells.send(("stale", error.task, error.token))
        else:
            tells.send("it counted")

    with opened(root) as jobs, pipe() as (hears, tells), pipe() as (waits, goes):
        jobs.put("work")
        with workers(1, hold) as crew:
            id = hears.recv()
            os.kill(crew[0].pid or 0, signal.SIGSTOP)
            try:
                time.sleep(1.2)
                again = jobs.get(timeout=30)
            finally:
                os.kill(crew[0].pid or 0, signal.SIGCONT)
            assert (again.id, again.attempt) == (id, 2)
            goes.send("on")
            assert hears.recv() == ("stale", id, 1)
            again.touch()
            again.done("right")
            assert jobs.results.get(id, timeout=0) == "right"
            assert "lease" in jobs.history(id)[0].error
    assert_nothing_is_left(root)


def test_what_a_killed_loop_had_prefetched_costs_no_attempt(root: Path) -> None:
    """Many short tasks, then one during which the worker is killed."""

    def hold() -> None:
        for number, task in enumerate(WorkQueue(root, "jobs")):
            if number == 100:
                tells.send(task.id)
                time.sleep(100)
            task.done()

    with opened(root, max_attempts=3) as jobs, pipe() as (hears, tells):
        ids = jobs.put_many(range(300))
        with workers(1, hold) as crew:
            begun = hears.recv()
            os.kill(crew[0].pid or 0, signal.SIGKILL)
            crew[0].join(20)
        attempts = {}
        for task in jobs:
            attempts[task.id] = task.attempt
            task.done()
        assert begun == ids[100]
        if jobs.engine.remote:  # what is claimed together is begun together there, and answered a moment later
            again = {id for id, attempt in attempts.items() if attempt == 2}
            assert begun in again and len(again) <= MAX_REMOTE_BATCH_TASKS and set(attempts.values()) == {1, 2}
            assert set(ids[100:]) <= set(attempts) <= {*ids[100:], *again}
        else:
            assert attempts == {id: 1 + (id == begun) for id in ids[100:]}
    assert_nothing_is_left(root)


def test_a_forked_child_has_none_of_what_its_parent_had_prefetched(root: Path) -> None:
    with opened(root) as jobs:
        jobs.put_many(range(200))
        loop = iter(jobs)
        for _ in range(100):
            next(loop).done()
        held = jobs.get_many(20)

        def child() -> None:
            jobs._prefetched.give_back()
            loop.close()
            os._exit(0)

        process = started(child)
        process.join(20)
        assert process.exitcode == 0
        assert [task.value for task in held] == [task._value for task in held]
        for task in held:
            task.done()
        for task in loop:
            assert task.attempt == 1
            task.done()
    assert_nothing_is_left(root)


def test_a_process_that_ends_in_order_gives_back_at_once_what_it_had_not_begun(root: Path) -> None:
    def take_and_end() -> None:
        tells.send([task.id for task in WorkQueue(root, "jobs").get_many(5)])

    with opened(root) as jobs, pipe() as (hears, tells):
        ids = jobs.put_many(range(5))
        with workers(1, take_and_end) as crew:
            assert hears.recv() == ids
            crew[0].join(20)
            assert crew[0].exitcode == 0
        assert [(task.id, task.attempt) for task in jobs.get_many(5)] == [(id, 1) for id in ids]
