"""Answers given in a loop over a queue where a server is asked: recorded together, and what is promised stays."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB, WorkQueue
from psync.engine import DirectoryEngine, MemoryEngine
from psync.engine.contract.log import Change
from psync.engine.directory.log.log import DirectoryLog
from psync.engine.directory.log.settle import Settler
from psync.engine.memory import Died, ManualClock
from psync.errors import StaleClaim, StoreFull, WaitTimeout
from psync.sync.queue.ack_buffer import MIN_LEASE_S
from psync.sync.queue.task import Task
from tests.crash.children import in_child
from tests.support import about_files


@pytest.fixture
def far(root: Path) -> Iterator[Callable[..., WorkQueue]]:
    """Makes handles of one queue, each as another process has it, in a directory that other hosts may use, too."""
    about_files()
    opened: list[PickleShareDB] = []

    def queue(**options: Any) -> WorkQueue:
        opened.append(PickleShareDB(root, sharing="network"))
        return WorkQueue(opened[-1], "jobs", **options)

    yield queue
    for db in opened:
        db.close()


def remote(**options: Any) -> tuple[WorkQueue, MemoryEngine]:
    """A queue in a memory that behaves like a server; without threads beside the caller's, and time is the test's."""
    engine = MemoryEngine(clock=ManualClock(autojump=0.002))
    engine.remote = True
    return WorkQueue(engine, "jobs", **options), engine


def warm(jobs: WorkQueue, tasks: int = 64) -> Iterator[Task]:
    """A loop that claims many at a time by now."""
    jobs.put_many(range(tasks))
    loop = iter(jobs)
    for _ in range(tasks):
        next(loop).done()
    return loop


def killed(engine: MemoryEngine, loop: Iterator[Task]) -> None:
    """What Python does after a death that in truth ends everything comes to nothing."""
    engine.die()
    with pytest.raises(Died):
        loop.close()  # type: ignore[attr-defined]


def until(met: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not met():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_a_loop_answers_is_recorded_together(
    far: Callable[..., WorkQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_all, settle = DirectoryLog.settle_all, Settler.settle
    together: list[int] = []
    alone: list[int] = []

    def counted_all(self: DirectoryLog, changes: list[Change]) -> list[int | None]:
        together.append(len(changes))
        return settle_all(self, changes)

    def counted(self: Settler, position: int, *rest: Any) -> bool:
        alone.append(position)
        return settle(self, position, *rest)

    monkeypatch.setattr(DirectoryLog, "settle_all", counted_all)
    monkeypatch.setattr(Settler, "settle", counted)
    jobs = far()
    ids = jobs.put_many(range(500))
    for task in jobs:
        task.done(task.value + 1)
    assert [far().results.get(id, timeout=0) for id in ids] == list(range(1, 501))
    assert len(together) < 150 and max(together) > 10, "begun and answered some at a time"
    assert len(alone) < 20
    assert jobs.statistics().running == 0


def test_who_asks_in_the_same_process_sees_an_answer_at_once() -> None:
    jobs, engine = remote()
    others = WorkQueue(engine.as_owner(), "jobs")
    loop = warm(jobs)
    ids = jobs.put_many("abcdefgh")
    looks: list[Callable[[Task], object]] = [
        lambda task: jobs.results.get(task.id, timeout=0),
        lambda task: jobs.results.get(task.id),
        lambda task: dict(jobs.results.collect([task.id], timeout=0))[task.id],
        lambda task: task.id in jobs.results and task.value,
        lambda task: jobs.state(task.id) == "done" and task.value,
        lambda task: task.id in jobs.results.addresses() and task.value,
        lambda task: jobs.statistics().running and task.value,
        lambda task: others.results.get(task.id, timeout=0) if not loop.close() else None,  # type: ignore[attr-defined]
    ]
    for look in looks:
        task = next(loop)
        task.done(task.value)
        with pytest.raises(WaitTimeout):
            others.results.get(task.id, timeout=0)
        assert look(task) == task.value
        assert others.results.get(task.id, timeout=0) == task.value
    assert [others.results.get(id, timeout=0) for id in ids] == list("abcdefgh")


def test_an_answer_waits_for_nothing_that_takes_long(far: Callable[..., WorkQueue]) -> None:
    jobs, others = far(), far()
    loop = warm(jobs)
    jobs.put_many("ab")
    task = next(loop)
    task.done("answer")
    until(lambda: others.state(task.id) == "done")  # though nobody asked the loop to go on
    assert others.results.get(task.id, timeout=0) == "answer"
    loop.close()  # type: ignore[attr-defined]


def test_a_loop_that_is_left_or_raises_has_recorded_its_answers() -> None:
    jobs, engine = remote()
    others = WorkQueue(engine.as_owner(), "jobs")
    ids = jobs.put_many(range(100))
    for task in jobs:
        task.done(task.value)
        if task.value == 50:
            break
    assert [others.results.get(id, timeout=0) for id in ids[:51]] == list(range(51))
    with pytest.raises(ZeroDivisionError):
        for task in jobs:
            with task:
                if task.value == 80:
                    raise ZeroDivisionError
    assert [others.state(id) for id in ids] == ["done"] * 80 + ["waiting"] * 20


def test_closing_the_engine_records_what_was_answered(far: Callable[..., WorkQueue]) -> None:
    jobs, others = far(), far()
    loop = warm(jobs)
    jobs.put_many("ab")
    task = next(loop)
    task.done(1)
    jobs.engine.close()
    assert others.results.get(task.id, timeout=0) == 1
    assert others.qsize() == 1
    loop.close()  # type: ignore[attr-defined]


def test_who_is_killed_before_has_not_answered() -> None:
    jobs, engine = remote()
    dying = engine.as_owner()
    loop = warm(WorkQueue(dying, "jobs"))
    ids = jobs.put_many(range(20))
    for number in range(10):
        task = next(loop)
        assert task.value == number
        task.done(number)
    killed(dying, loop)
    again = {task.value: task.attempt for task in (jobs.get(timeout=10) for _ in range(20))}
    assert sorted(again) == list(range(20)) and set(again.values()) == {2}
    assert not [id for id in ids if id in jobs.results]


def test_a_task_that_kills_who_works_on_it_costs_others_one_attempt_at_most() -> None:
    jobs, engine = remote()
    attempts: dict[int, int] = {}
    poison = 17
    jobs.put_many(range(64))
    for _ in range(10):
        worker = engine.as_owner()
        try:
            for task in WorkQueue(worker, "jobs"):
                attempts[task.value] = task.attempt
                if task.value == poison:
                    worker.die()
                task.done(task.value)
        except Died:
            continue
        break
    assert [dead.value for dead in jobs.dead()] == [poison]
    assert attempts.pop(poison) == 3 and set(attempts) == set(range(64)) - {poison}
    assert set(attempts.values()) == {1, 2}
    assert sorted(value for _, value in jobs.results.collect(timeout=0)) == sorted(set(range(64)) - {poison})


def test_who_has_one_attempt_only_loses_none_to_others() -> None:
    jobs, engine = remote(max_attempts=1)
    dying = engine.as_owner()
    loop = warm(WorkQueue(dying, "jobs", max_attempts=1))
    jobs.put_many(range(20))
    assert next(loop).value == 0
    killed(dying, loop)
    assert sorted(task.value for task in (jobs.get(timeout=10) for _ in range(19))) == list(range(1, 20))
    assert [dead.value for dead in jobs.dead()] == [0]


@pytest.mark.parametrize("lease", [MIN_LEASE_S / 2, MIN_LEASE_S])
def test_an_answer_that_comes_after_the_lease_ran_out_changes_nothing(lease: float) -> None:
    jobs, engine = remote(lease=lease)
    late = WorkQueue(engine.as_owner(), "jobs", lease=lease)
    loop = warm(late)
    jobs.put("x")
    task = next(loop)
    task.done("late")
    if lease < MIN_LEASE_S:
        assert jobs.results.get(task.id, timeout=0) == "late", "a short one is answered at once"
        return
    again = jobs.get(timeout=10)
    assert (again.id, again.attempt) == (task.id, 2)
    loop.close()  # type: ignore[attr-defined]
    assert late.state(task.id) == "claimed" and task.id not in late.results
    again.done("in time")
    assert late.results.get(task.id) == "in time"


def test_the_first_answer_counts_and_a_later_word_is_stale() -> None:
    jobs, _ = remote()
    loop = warm(jobs)
    jobs.put_many(range(3))
    words: list[Callable[[Task], object]] = [
        lambda task: task.done("other"),
        lambda task: task.retry(),
        lambda task: task.fail("no"),
    ]
    for word in words:
        task = next(loop)
        task.done("first")
        with pytest.raises(StaleClaim):
            word(task)
        assert jobs.results.get(task.id, timeout=0) == "first"
        assert jobs.state(task.id) == "done"


def test_an_answer_that_the_store_refuses_is_kept_and_recorded_later(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, engine = remote()
    loop = warm(jobs)
    ids = jobs.put_many("ab")
    next(loop).done(1)
    full = True
    append = type(engine.bucket("x/00")).append

    def refuse(self: Any, ops: bytes) -> int:
        if full:
            raise StoreFull("no room", key=None)
        return append(self, ops)

    monkeypatch.setattr(type(engine.bucket("x/00")), "append", refuse)
    with pytest.raises(StoreFull):
        loop.close()  # type: ignore[attr-defined]
    assert [WorkQueue(engine.as_owner(), "jobs").state(id) for id in ids] == ["claimed", "waiting"]
    full = False
    assert jobs.results.get(ids[0], timeout=0) == 1


def test_what_could_not_be_begun_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, engine = remote()
    loop = warm(jobs)
    jobs._ack_buffer.record()
    jobs.put_many(range(8))
    right = jobs._priorities.main.settle_all

    def half(changes: list[Change]) -> list[int | None]:
        right(changes[: len(changes) // 2])
        raise StoreFull("no room", key=None)

    monkeypatch.setattr(jobs._priorities.main, "settle_all", half)
    with pytest.raises(StoreFull):
        next(loop)
    others = WorkQueue(engine.as_owner(), "jobs")
    assert sorted((task.value, task.attempt) for task in others.get_many(8)) == [(number, 1) for number in range(8)]


def test_what_can_not_be_pickled_is_told_at_once() -> None:
    jobs, _ = remote()
    loop = warm(jobs)
    jobs.put("x")
    task = next(loop)
    with pytest.raises(Exception, match=r"pickle|local"):
        task.done(lambda: None)
    task.done("something else")
    assert jobs.results.get(task.id) == "something else"


def test_a_result_is_what_it_was_when_it_was_given() -> None:
    jobs, _ = remote()
    loop = warm(jobs)
    jobs.put("x")
    task, result = next(loop), [1]
    task.done(result)
    result.append(2)
    assert jobs.results.get(task.id) == [1]


def test_tasks_that_are_done_when_the_loop_is_over_are_recorded_at_once(far: Callable[..., WorkQueue]) -> None:
    jobs, others = far(), far()
    jobs.put_many(range(40))
    taken: list[Task] = []
    loop = iter(jobs)
    taken = [next(loop) for _ in range(40)]
    loop.close()  # type: ignore[attr-defined]
    workers = [threading.Thread(target=task.done, args=(task.value,)) for task in taken]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(value for _, value in others.results.collect(timeout=0)) == list(range(40))


def test_threads_that_answer_beside_a_loop_lose_nothing(far: Callable[..., WorkQueue]) -> None:
    jobs, others = far(), far()
    ids = jobs.put_many(range(300))
    working: list[threading.Thread] = []
    for task in jobs:
        working.append(threading.Thread(target=task.done, args=(task.value,)))
        working[-1].start()
    for thread in working:
        thread.join()
    assert [others.results.get(id, timeout=1) for id in ids] == list(range(300))
    assert others.statistics().running == 0


def test_a_forked_child_records_nothing_of_its_parents(far: Callable[..., WorkQueue]) -> None:
    jobs, others = far(), far()
    loop = warm(jobs)
    jobs.put_many("ab")
    task = next(loop)
    task.done("parent's")

    def child() -> Any:
        jobs.engine.close()
        return os.getpid(), WorkQueue(DirectoryEngine(str(jobs.engine.root), sharing="network"), "jobs").qsize()  # type: ignore[attr-defined]

    pid, waiting = in_child(child)
    assert pid != os.getpid() and waiting <= 1
    loop.close()  # type: ignore[attr-defined]
    assert others.results.get(task.id, timeout=0) == "parent's"


def test_a_local_directory_answers_at_once(root: Path) -> None:
    with PickleShareDB(root) as db, PickleShareDB(root) as other:
        if db.engine.remote:
            pytest.skip("it is no local directory")
        jobs = WorkQueue(db, "jobs")
        loop = warm(jobs)
        jobs.put("x")
        task = next(loop)
        task.done(1)
        assert WorkQueue(other, "jobs").results.get(task.id, timeout=0) == 1
        loop.close()  # type: ignore[attr-defined]
