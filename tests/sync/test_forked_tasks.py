"""A task belongs to the process that took it: a forked child can't answer it, and keeps nobody else from doing so."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import psync
from psync.engine.memory import MemoryEngine
from tests.concurrency.simultaneous import together
from tests.reentry.operations import store_of
from tests.support import ENGINE
from tests.sync.other_process import Channel, eventually, other_process
from tests.sync.test_forks import ways

HERE = ["directory", "network", "signed", "memory"]


@pytest.fixture(params=[ENGINE] if ENGINE else HERE)
def db(request: pytest.FixtureRequest, root: Path | str) -> Iterator[psync.PickleShareDB]:
    store = psync.PickleShareDB(root) if ENGINE else store_of(request.param, root)
    yield store
    store.close()


def leave_well(task: psync.Task) -> None:
    with task:
        pass


def leave_badly(task: psync.Task) -> None:
    with task:
        raise ValueError("the child's")


VERBS: dict[str, Callable[[psync.Task], object]] = {
    "done": lambda task: task.done(),
    "done with a result": lambda task: task.done("child"),
    "retry": lambda task: task.retry(),
    "retry later": lambda task: task.retry("later", delay=100),
    "fail": lambda task: task.fail("child"),
    "touch": lambda task: task.touch(),
    "with": leave_well,
    "with an error": leave_badly,
}


def got(queue: psync.WorkQueue) -> psync.Task:
    return queue.get(timeout=0)


def of_a_batch(queue: psync.WorkQueue) -> psync.Task:
    return queue.get_many(2)[0]


def of_a_batch_and_begun(queue: psync.WorkQueue) -> psync.Task:
    task = queue.get_many(2)[0]
    assert task.value
    return task


def of_a_loop(queue: psync.WorkQueue) -> psync.Task:
    _loops.append(iter(queue))  # kept, or it ends
    return next(_loops[-1])


_loops: list[Iterator[psync.Task]] = []
TAKEN = [got, of_a_batch, of_a_batch_and_begun, of_a_loop]
each_way_to_take = pytest.mark.parametrize("take", TAKEN, ids=lambda take: take.__name__)


def in_a_child(job: Callable[[], object]) -> str:
    """What `job` raises in a forked child."""

    def child() -> str:
        try:
            job()
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    (said,) = together([child])
    return str(said)


@each_way_to_take
@pytest.mark.parametrize("verb", VERBS)
def test_a_child_can_not_answer_for_its_parent(
    db: psync.PickleShareDB, verb: str, take: Callable[[psync.WorkQueue], psync.Task]
) -> None:
    queue = psync.WorkQueue(db, "jobs")
    queue.put_many(["one", "two", "three"])
    task = take(queue)
    before = queue.state(task.id), queue.statistics(), queue.history(task.id)
    said = in_a_child(lambda: VERBS[verb](task))
    assert said.startswith("StaleClaim") and "forked child" in said and f"pid {os.getpid()}" in said
    assert (queue.state(task.id), queue.statistics(), queue.history(task.id)) == before
    task.done("parent")
    assert queue.results.get(task.id, timeout=0) == "parent" and queue.state(task.id) == "done"


@each_way_to_take
def test_after_its_parents_answer_a_childs_changes_nothing(
    db: psync.PickleShareDB, take: Callable[[psync.WorkQueue], psync.Task]
) -> None:
    queue = psync.WorkQueue(db, "jobs")
    queue.put_many(["one", "two", "three"])
    task = take(queue)

    def child(talk: Channel) -> None:
        talk.say("here")
        talk.hear()
        with pytest.raises(psync.StaleClaim):
            task.done("child")
        talk.say("refused")

    with other_process(child) as other:
        other.hear()
        task.done("parent")
        other.tell()
        assert other.hear() == "refused"
    assert queue.results.get(task.id, timeout=0) == "parent"


def test_an_end_that_the_program_wants_is_not_hidden_by_the_claim(db: psync.PickleShareDB) -> None:
    queue = psync.WorkQueue(db, "jobs")
    queue.put("one")
    task = queue.get(timeout=0)

    def leave() -> None:
        with task:
            raise SystemExit(7)

    assert in_a_child(leave) == "SystemExit: 7"
    task.done()


def test_a_child_takes_tasks_of_its_own_and_none_that_its_parent_claimed_ahead(root: Path | str) -> None:
    queue = psync.WorkQueue(root, "jobs")
    queue.put_many(range(6))
    mine = [task.value for task in queue.get_many(3)]

    def child() -> list[int]:
        tasks = [queue.get(timeout=0) for _ in range(3)]
        for task in tasks:
            task.done("child")
        return [task.value for task in tasks]

    (theirs,) = together([child])
    assert sorted([*mine, *theirs]) == list(range(6))
    assert queue.qsize() == 0 and queue.statistics().running == 3


@ways
def test_the_task_of_a_killed_parent_goes_back_though_its_child_lives(root: Path | str, fork: Any) -> None:
    queue = psync.WorkQueue(root, "jobs")
    queue.put("one")

    def take_and_fork(talk: Channel) -> None:
        task = psync.WorkQueue(root, "jobs").get(timeout=0)
        talk.say((task.id, fork(signal.pause)))
        signal.pause()

    with other_process(take_and_fork) as parent:
        id, child = parent.hear()
        try:
            assert queue.state(id) == "claimed"
            parent.kill()
            eventually(lambda: queue.recover() or queue.state(id) == "waiting")
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)
    task = queue.get(timeout=0)
    assert (task.value, task.attempt) == ("one", 2)


# -- answers of the same process -----------------------------------------------------------------------

ANSWERS = {name: VERBS[name] for name in ("done", "done with a result", "retry later", "fail")}


@pytest.mark.parametrize("second", ["done", "done with a result", "retry", "fail", "touch"])
@pytest.mark.parametrize("first", [*ANSWERS, "with"])
def test_a_second_answer_is_told_that_it_is_one(db: psync.PickleShareDB, first: str, second: str) -> None:
    queue = psync.WorkQueue(db, "jobs")
    queue.put("one")
    task = queue.get(timeout=0)
    VERBS[first](task)
    before = queue.state(task.id), queue.history(task.id)
    with pytest.raises(psync.StaleClaim, match="was answered here before"):
        VERBS[second](task)
    assert (queue.state(task.id), queue.history(task.id)) == before


# -- executors -----------------------------------------------------------------------------------------

USES: dict[str, Callable[[psync.Executor, Any], object]] = {
    "submit": lambda executor, future: executor.submit(pow, 2, 3),
    "submit_as": lambda executor, future: executor.submit_as("mine", pow, 2, 3),
    "attach": lambda executor, future: executor.attach(future.id),
    "map": lambda executor, future: executor.map(abs, [1]),
    "shutdown": lambda executor, future: executor.shutdown(),
    "shutdown without waiting": lambda executor, future: executor.shutdown(wait=False, cancel_futures=True),
    "kill_workers": lambda executor, future: executor.kill_workers(),
    "with": lambda executor, future: executor.__exit__(None, None, None),
    "result": lambda executor, future: future.result(),
    "exception": lambda executor, future: future.exception(),
    "cancel": lambda executor, future: future.cancel(),
    "done": lambda executor, future: future.done(),
    "running": lambda executor, future: future.running(),
    "add_done_callback": lambda executor, future: future.add_done_callback(print),
    "wait": lambda executor, future: __import__("concurrent.futures").futures.wait([future]),
    "as_completed": lambda executor, future: list(__import__("concurrent.futures").futures.as_completed([future])),
}


def test_an_executor_and_its_futures_refuse_a_forked_child_at_once(root: Path | str) -> None:
    executor = psync.Executor(root, max_workers=0)
    done, future, results = executor.submit(pow, 2, 3), executor.submit(pow, 2, 4), executor.map(abs, [-1])
    with psync.WorkQueue(root, "jobs").get(timeout=0) as task:
        task.done(psync.work.call.seal(psync.work.call.Outcome(8, None)))
    assert done.result(10) == 8
    for name, use in USES.items():
        assert in_a_child(lambda use=use: use(executor, future)).startswith("ForkedCopy"), name
    assert in_a_child(lambda: next(results)).startswith("ForkedCopy")
    assert in_a_child(results.close) == "nothing" and executor.queue.qsize() == 2
    assert in_a_child(done.result) == "nothing"
    worker = psync.Worker(executor.queue)
    assert in_a_child(worker.run).startswith("ForkedCopy")
    assert in_a_child(lambda: psync.Worker(executor.queue).run(most=1)) == "nothing"
    assert future.result(10) == 16
    worker.run(drain=True)
    assert list(results) == [1]
    executor.shutdown()


def test_a_child_that_leaves_the_block_of_its_parents_executor_by_an_exception_raises_that(root: Path | str) -> None:
    with psync.Executor(root, max_workers=0) as executor:

        def leave() -> None:
            with executor:
                raise SystemExit(3)

        assert in_a_child(leave) == "SystemExit: 3"


def test_the_error_travels() -> None:
    error = psync.engine.system.fork_hooks.Origin("Executor").error()
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.what, copy.pid) == (str(error), "Executor", os.getpid())


def test_memory_that_was_copied_by_a_fork_is_held_by_the_parent() -> None:
    """Each process has a memory of its own then; the rule is the same."""
    db = psync.PickleShareDB(MemoryEngine())
    lock, election = psync.Lock(db, "lock"), psync.Election(db, "lead")
    lock.acquire()
    election.campaign()
    assert in_a_child(lock.release).startswith("RuntimeError") and in_a_child(election.resign).startswith(
        "RuntimeError"
    )
    assert lock.token and election.is_leader()
    lock.release()
    election.resign()
