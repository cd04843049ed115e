"""Queues: each task is worked at least once and answered exactly once, whoever is killed, stopped or too late."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from psync.engine import MemoryEngine
from psync.engine.contract.log import State
from psync.engine.memory.log import MemoryLog
from psync.errors import QueueClosed, StaleClaim
from psync.sync import Task, WorkQueue
from psync.sync.queue.ack_buffer import MIN_LEASE_S
from tests.simulation.actor import Stuck
from tests.simulation.explore import explore, first_failure
from tests.simulation.planted_bugs import answer_after_the_mark, answer_without_claim, look_before_watching
from tests.simulation.schedule import Schedule
from tests.support import die_before_the_mark

Run = tuple[str, int]
"""Id and attempt: nobody ever gets the same one twice."""


def is_buffered(task: Task) -> bool:
    """Whether `done` may be recorded a moment later."""
    return task._buffered and task._record.mark.attempt == 1


class Work:
    """What was put, run and acknowledged, by the test's own books."""

    def __init__(self, schedule: Schedule, **options: Any) -> None:
        self.schedule = schedule
        self.options = {"max_attempts": 9, **options}
        self.put: dict[str, Any] = {}
        self.runs: set[Run] = set()
        self.acknowledged: dict[str, Any] = {}
        self.seen: list[tuple[str, Any]] = []
        self.putting = 0

    def queue(self, engine: MemoryEngine) -> WorkQueue:
        return WorkQueue(engine, "jobs", **self.options)

    def putters(self, *putters: Any) -> None:
        """Who puts; the last of them closes the queue when all is done."""
        self.putting = len(putters)
        for putter in putters:
            self.schedule.actor(lambda engine, putter=putter: self._put(engine, putter), mortal=False)

    def _put(self, engine: MemoryEngine, putter: Any) -> None:
        putter(self.queue(engine))
        self.putting -= 1
        if not self.putting:
            self.close(engine)

    def close(self, engine: MemoryEngine) -> None:
        jobs = self.queue(engine)
        jobs.join()
        jobs.close()

    def work(self, engine: MemoryEngine) -> None:
        """Until the queue is closed, and worked off."""
        jobs = self.queue(engine)
        while True:
            try:
                self.do(engine, jobs.get())
            except QueueClosed:
                return

    def iterate(self, engine: MemoryEngine) -> None:
        with contextlib.closing(iter(self.queue(engine))) as tasks:
            for task in tasks:
                self.do(engine, task)

    def do(self, engine: MemoryEngine, task: Task) -> None:
        run = task.id, task.attempt
        assert run not in self.runs, "one winner an attempt"
        self.runs.add(run)
        engine.read("elsewhere")
        try:
            task.done((task.value, run))
        except StaleClaim:
            return
        if is_buffered(task):
            return  # nobody has said yet that it is recorded
        assert task.id not in self.acknowledged, "one answer a task"
        self.acknowledged[task.id] = task.value, run

    def collect(self, engine: MemoryEngine, ids: list[str]) -> None:
        self.seen += self.queue(engine).results.collect(ids)

    def check(self) -> None:
        jobs = self.queue(self.schedule.engine)
        answers = {id: jobs.results.get(id, timeout=0) for id in self.put}
        assert {id: value for id, (value, _) in answers.items()} == self.put, "nothing is lost, and all is right"
        assert {run for _, run in answers.values()} <= self.runs
        assert answers.items() >= self.acknowledged.items(), "what was acknowledged is the answer"
        assert all(answers[id] == answer for id, answer in self.seen), "an answer never changes"
        assert sorted(jobs.results.addresses()) == sorted(self.put)


def work_off(schedule: Schedule) -> None:
    work = Work(schedule)

    def put_two(jobs: WorkQueue) -> None:
        ids = jobs.put_many([2, 3])
        work.put.update(zip(ids, (2, 3), strict=True))
        work.seen += jobs.results.collect(ids)

    def put_named(jobs: WorkQueue) -> None:
        work.put[jobs.put(4, id="four")] = 4

    work.putters(put_two, put_named, put_named)
    schedule.actor(work.work, mortal=False)
    schedule.actor(work.work)
    schedule.actor(lambda engine: work.collect(engine, ["four"]), mortal=False)
    schedule.run()
    work.check()


def test_each_task_is_answered_exactly_once_whoever_is_killed() -> None:
    explore(work_off, 1000, kills=1, turns=150)


def drain(schedule: Schedule, work: Work, tasks: int) -> None:
    jobs = work.queue(schedule.engine)
    work.put.update(zip(jobs.put_many(range(tasks)), range(tasks), strict=True))
    schedule.actor(work.iterate, mortal=False)
    schedule.actor(work.iterate)
    schedule.actor(lambda engine: work.queue(engine).join(), mortal=False)
    schedule.run()
    work.check()
    assert jobs.statistics().running == jobs.qsize() == 0


def test_iteration_works_off_what_is_there_and_waits_for_what_may_come_back() -> None:
    def scenario(schedule: Schedule) -> None:
        work = Work(schedule)
        drain(schedule, work, 5)

    explore(scenario, 500, kills=1, turns=80)


@pytest.mark.parametrize("lease", [None, MIN_LEASE_S])
def test_answers_that_are_recorded_together_are_each_recorded_once(lease: float | None) -> None:
    """As where a server is asked for each."""
    late: list[Task] = []

    class Far(Work):
        def do(self, engine: MemoryEngine, task: Task) -> None:
            super().do(engine, task)
            late.extend([task] * is_buffered(task))

    def scenario(schedule: Schedule) -> None:
        schedule.engine.remote = True
        work = Far(schedule, lease=lease)
        drain(schedule, work, 7)

    explore(scenario, 100, kills=1, stops=1, limit=40.0, turns=120)
    assert late


def leased(schedule: Schedule) -> None:
    """Who is stopped for longer than its lease comes back too late, or not."""
    work = Work(schedule, lease=1.0)
    jobs = work.queue(schedule.engine)
    for number in range(2):
        work.put[jobs.put(number, id=str(number))] = number
    jobs.close()
    schedule.actor(lambda engine: work.collect(engine, ["0", "1"]), mortal=False)
    schedule.actor(work.work)
    schedule.actor(work.work)
    schedule.actor(work.work, mortal=False)
    schedule.run()
    work.check()


def test_a_worker_that_was_stopped_for_longer_than_its_lease_changes_no_answer() -> None:
    explore(leased, 1000, kills=1, stops=2, limit=5.0, turns=60)


def test_an_answer_stays_though_its_worker_dies_before_the_mark_while_the_lease_runs_out() -> None:
    def scenario(schedule: Schedule) -> None:
        work = Work(schedule, lease=0.5)
        jobs = work.queue(schedule.engine)
        work.put[jobs.put(1, id="one")] = 1
        jobs.close()

        def answer_late_and_die(engine: MemoryEngine) -> None:
            jobs = work.queue(engine)
            die_before_the_mark(jobs.results, engine.die)
            with contextlib.suppress(QueueClosed):
                task = jobs.get()
                with engine.watch([]) as watch:
                    watch.pause(schedule.random.choice((0.5, 0.75)))
                work.do(engine, task)

        schedule.actor(answer_late_and_die, mortal=False)
        schedule.actor(work.work, mortal=False)
        schedule.actor(lambda engine: work.collect(engine, ["one"]), mortal=False)
        schedule.run()
        work.check()

    explore(scenario, 500, limit=5.0)


def test_a_worker_that_was_stopped_while_it_looked_for_the_dead_soon_looks_again() -> None:
    def scenario(schedule: Schedule) -> None:
        work = Work(schedule)
        jobs = work.queue(schedule.engine)
        work.put[jobs.put(1, id="one")] = 1
        jobs.close()
        schedule.actor(work.work, stoppable=False)
        schedule.actor(work.work, mortal=False, stoppable=True)
        schedule.run()
        work.check()

    explore(scenario, 500, kills=1, stops=1, limit=0.25, turns=25)


def late(schedule: Schedule) -> None:
    """A claim that was given back says nothing any more."""
    work = Work(schedule)
    jobs = work.queue(schedule.engine)
    work.put[jobs.put(1, id="one")] = 1

    def give_back(engine: MemoryEngine) -> None:
        try:
            task = work.queue(engine).get()
        except QueueClosed:
            return
        work.runs.add((task.id, task.attempt))
        task.retry()
        with pytest.raises(StaleClaim):
            task.done(("late", None))

    for job in (give_back, work.work, work.close):
        schedule.actor(job)
    schedule.actor(lambda engine: work.collect(engine, ["one"]))
    schedule.run()
    work.check()


def test_who_comes_late_is_told_and_changes_nothing() -> None:
    explore(late, 500)


def test_a_task_that_fails_too_often_is_dead_and_who_waits_for_it_hears_of_it() -> None:
    def scenario(schedule: Schedule) -> None:
        jobs = WorkQueue(schedule.engine, "jobs", max_attempts=2)
        jobs.put(1, id="one")
        attempts: list[int] = []

        def fail(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs", max_attempts=2)
            with contextlib.suppress(QueueClosed):
                while True:
                    task = jobs.get()
                    attempts.append(task.attempt)
                    task.retry("no luck")

        def wait(engine: MemoryEngine) -> None:
            with pytest.raises(Exception, match="failed after 2 attempts"):
                WorkQueue(engine, "jobs").results.get("one")

        def close(engine: MemoryEngine) -> None:
            jobs = WorkQueue(engine, "jobs")
            jobs.join()
            jobs.close()

        for job in (fail, wait, fail, close):
            schedule.actor(job)
        schedule.run()
        (dead,) = jobs.dead()
        assert attempts == [1, 2] == [past.number for past in dead.history]

    explore(scenario, 500)


# -- what was planted is found -----------------------------------------------------------------------


def test_an_answer_that_is_written_without_its_claim_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_without_claim(monkeypatch)
    assert not isinstance(first_failure(late)[1], Stuck)


def test_an_answer_that_is_written_after_its_mark_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_after_the_mark(monkeypatch)
    assert not isinstance(first_failure(work_off, kills=1, turns=150)[1], Stuck)


def test_a_task_that_is_looked_at_before_it_is_claimed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MemoryLog.take

    def take(self: MemoryLog, owner: int, limit: int = 1, *lease: Any) -> Any:
        with self._reading("look") as records:
            waiting = [record for record in records.kept.values() if record.mark.state is State.WAITING]
        if not waiting:
            return []
        taken = right(self, owner, limit, *lease)
        return taken or [
            waiting[0]._replace(mark=waiting[0].mark._replace(state=State.CLAIMED, attempt=1, owner=owner))
        ]

    monkeypatch.setattr(MemoryLog, "take", take)
    first_failure(work_off)


def test_who_looks_before_it_watches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    look_before_watching(monkeypatch)
    assert isinstance(first_failure(work_off)[1], Stuck)
