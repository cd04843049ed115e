"""Queues: what is taken first, what not yet, how many may wait, and what ends the waiting."""

from __future__ import annotations

import contextlib

import pytest

from psync.engine import MemoryEngine
from psync.errors import QueueClosed
from psync.sync import WorkQueue
from tests.simulation.explore import explore
from tests.simulation.schedule import Schedule


def test_what_has_a_higher_priority_and_was_there_before_is_taken_before() -> None:
    def scenario(schedule: Schedule) -> None:
        there: set[tuple[int, str]] = set()
        taken: set[str] = set()

        def put(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs")
            for priority in (0, 5, -5, 5):
                there.add((priority, jobs.put(priority, priority=priority)))

        def take(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs")
            for _ in range(4):
                before = {(priority, id) for priority, id in there if id not in taken}
                task = jobs.get()
                taken.add(task.id)
                assert all(priority <= task.value for priority, id in before if id != task.id)
                task.done()

        schedule.actor(put)
        schedule.actor(take)
        schedule.run()

    explore(scenario, 500)


def test_a_delayed_task_comes_when_it_is_due_and_not_before() -> None:
    def scenario(schedule: Schedule) -> None:
        due: dict[int, float] = {}

        def put(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs")
            for number, delay in enumerate((0.3, 0.1, 0.0)):
                due[number] = engine.now() + delay
                jobs.put(number, delay=delay)

        def take(engine: MemoryEngine) -> None:
            task = WorkQueue(engine, "jobs").get()
            assert engine.now() >= due[task.value]
            task.done()

        for job in (put, take, take, take):
            schedule.actor(job, mortal=job is not put)
        schedule.run()
        assert schedule.time < 0.31

    explore(scenario, 500, limit=0.31)


def test_no_more_wait_in_a_bounded_queue_than_it_has_room_for_and_room_wakes_who_puts() -> None:
    def scenario(schedule: Schedule) -> None:
        got: list[int] = []

        def put(engine: MemoryEngine, first: int) -> None:
            jobs = WorkQueue(engine, "jobs", maxsize=1)
            for number in range(first, first + 2):
                jobs.put(number)

        def take(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs", maxsize=1)
            for _ in range(2):
                assert jobs.qsize() <= 1
                task = jobs.get()
                got.append(task.value)
                task.done()

        for first in 0, 2:
            schedule.actor(lambda engine, first=first: put(engine, first))
            schedule.actor(take)
        schedule.run()
        assert sorted(got) == [0, 1, 2, 3]

    explore(scenario, 500)


def test_who_waits_for_a_task_or_for_room_hears_at_once_that_the_queue_was_closed() -> None:
    def scenario(schedule: Schedule) -> None:
        WorkQueue(schedule.engine, "jobs", maxsize=1).put(0)
        got: list[int] = []

        def put(engine: MemoryEngine) -> None:
            with contextlib.suppress(QueueClosed):
                for number in 1, 2, 3:
                    WorkQueue(engine, "jobs", maxsize=1).put(number)

        def take(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs")
            with pytest.raises(QueueClosed):
                while True:
                    task = jobs.get()
                    got.append(task.value)
                    task.done()

        for job in (put, take, lambda engine: WorkQueue(engine, "jobs").close()):
            schedule.actor(job)
        schedule.run()
        assert got == [*range(len(got))] and WorkQueue(schedule.engine, "jobs").empty()

    explore(scenario, 500)


def test_what_was_claimed_with_others_and_not_begun_costs_no_attempt_when_its_worker_dies() -> None:
    def scenario(schedule: Schedule) -> None:
        WorkQueue(schedule.engine, "jobs", max_attempts=2).put_many(range(3))
        begun: list[int] = []

        def work(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs", max_attempts=2)
            with contextlib.suppress(QueueClosed):
                while True:
                    for task in jobs.get_many(3):
                        begun.append(task.value)
                        engine.read("elsewhere")
                        task.done()

        def close(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs", max_attempts=2)
            jobs.join()
            jobs.close()

        schedule.actor(work)
        schedule.actor(work, mortal=False)
        schedule.actor(close, mortal=False)
        schedule.run()
        jobs = WorkQueue(schedule.engine, "jobs")
        assert not jobs.dead() and jobs.empty()
        assert all(1 <= begun.count(number) <= 2 for number in range(3))

    explore(scenario, 500, kills=1, turns=40)
