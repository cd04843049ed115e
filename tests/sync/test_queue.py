"""What a work queue promises its users, in memory and in a directory; time is the tests' own where it is in memory."""

from __future__ import annotations

import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from psync import PickleShareDB, WorkQueue
from psync.engine import Engine, MemoryEngine, open_engine
from psync.engine.memory import ManualClock
from psync.errors import QueueClosed, StaleClaim, TaskFailed, WaitTimeout
from psync.sync.queue.ack_buffer import ACK_DELAY_S
from psync.sync.queue.task_id import BUCKET_SHIFT_BYTES, bucket_of_result
from tests.support import die_before_the_mark


class Place(NamedTuple):
    """Where queues are, and others who use them."""

    engine: Engine
    other: Callable[[], Engine]

    def jobs(self, **options: Any) -> WorkQueue:
        return WorkQueue(self.engine, "jobs", **options)

    def others(self, **options: Any) -> WorkQueue:
        """As another process has it."""
        return WorkQueue(self.other(), "jobs", **options)


@pytest.fixture(params=["memory", "directory"])
def place(request: pytest.FixtureRequest, root: Path) -> Iterator[Place]:
    opened: list[Engine] = []

    def other_process() -> Engine:
        opened.append(open_engine(root) if request.param == "directory" else engine.as_owner())
        return opened[-1]

    if request.param == "memory":
        engine = MemoryEngine(clock=ManualClock(autojump=0.002))
        yield Place(engine, other_process)
    else:
        with PickleShareDB(root) as db:
            yield Place(db.engine, other_process)
    for each in opened:
        each.close()


def values(jobs: WorkQueue) -> list[Any]:
    """All that can be had now; each is done."""
    found = []
    try:
        while True:
            task = jobs.get(block=False)
            found.append(task.value)
            task.done()
    except (queue.Empty, QueueClosed):
        return found


# -- priorities ------------------------------------------------------------------------------------


def test_a_higher_priority_goes_first_and_first_in_first_out_within_one(place: Place) -> None:
    jobs = place.jobs()
    for number, priority in enumerate([0, 5, -3, 0, 5, 100, -100, -3]):
        jobs.put(number, priority=priority)
    assert jobs.qsize() == 8
    assert values(place.others()) == [5, 1, 4, 0, 3, 2, 7, 6]
    jobs.join(timeout=5)


def test_a_higher_priority_that_was_never_used_before_is_seen_at_once(place: Place) -> None:
    jobs, others = place.jobs(), place.others()
    jobs.put_many(["low", "later"])
    assert others.get().value == "low"
    for priority in (1, 7, 3):
        jobs.put(priority, priority=priority)
        task = others.get(block=False)
        assert task.value == priority and task.attempt == 1
        task.done()
    assert others.get(block=False).value == "later"


def test_ids_of_other_priorities_tell_where_they_are(place: Place) -> None:
    jobs = place.jobs()
    ids = [*jobs.put_many(["a", "b"], priority=7), jobs.put("c", priority=-2), jobs.put("d", id="own", priority=9)]
    assert len(set(ids)) == 4 and ids[3] == "own"
    for task in place.others():
        task.done(task.value * 2)
    assert [jobs.results.get(id, timeout=0) for id in ids] == ["aa", "bb", "cc", "dd"]
    assert jobs.put("again", id="own") == "own" and jobs.empty()


@pytest.mark.parametrize("priority", [101, -101, 1.5, "high"])
def test_a_priority_that_is_none_is_refused(place: Place, priority: Any) -> None:
    with pytest.raises(ValueError, match="priority"):
        place.jobs().put("x", priority=priority)
    assert place.jobs().empty()


def test_who_waits_is_woken_by_any_priority(place: Place) -> None:
    got = []
    jobs = place.others()
    thread = threading.Thread(target=lambda: got.append(jobs.get().value))
    thread.start()
    time.sleep(0.05)
    place.jobs().put("high", priority=9)
    thread.join(10)
    assert got == ["high"]


# -- delays ----------------------------------------------------------------------------------------


def test_a_delayed_task_is_not_taken_before_its_time_and_then_at_once(place: Place) -> None:
    jobs, others = place.jobs(), place.others()
    begun = place.engine.now()
    jobs.put("later", delay=0.3)
    assert (jobs.qsize(), others.statistics().delayed) == (0, 1)
    with pytest.raises(queue.Empty):
        others.get(block=False)
    assert others.get(timeout=20).value == "later"
    assert 0.3 <= place.engine.now() - begun < 5
    assert others.statistics().delayed == 0


def test_a_task_retried_with_a_delay_waits_for_it(place: Place) -> None:
    jobs = place.jobs()
    id = jobs.put("x")
    begun = place.engine.now()
    task = jobs.get()
    task.retry("not now", delay=0.2)
    assert jobs.empty() and task.settled
    with pytest.raises(StaleClaim):
        task.done()
    again = place.others().get(timeout=20)
    assert place.engine.now() - begun >= 0.2 and (again.id, again.attempt) == (id, 2)
    again.done("y")
    assert [attempt.error for attempt in jobs.history(id)] == ["not now"]
    jobs.join(timeout=5)


def test_iteration_and_join_wait_for_delayed_tasks(place: Place) -> None:
    jobs = place.jobs()
    jobs.put("later", delay=0.15)
    jobs.put("now")
    with pytest.raises(WaitTimeout):
        jobs.join(timeout=0.01)
    found = []
    for task in place.others():
        found.append(task.value)
        task.done()
    assert found == ["now", "later"]
    jobs.join(timeout=5)


def test_delays_of_all_lengths_come_in_their_order() -> None:
    """Years cost nothing here."""
    clock = ManualClock()
    jobs = WorkQueue(MemoryEngine(clock=clock), "jobs")
    delays = [3e8, 0.001, 65_504, 7200.5, 65_505, 60]
    for delay in delays:
        jobs.put(delay, delay=delay)
    jobs.put_many(["many", "more"], delay=61, priority=3)
    for delay in sorted([*delays, 61]):
        clock.advance((delay - clock.now()) * 0.999)
        with pytest.raises(queue.Empty):
            jobs.get(block=False)
        clock.advance(delay + 0.002 - clock.now())
        assert values(jobs) == (["many", "more"] if delay == 61 else [delay])


@pytest.mark.parametrize("delay", [-1.0, 1e10, float("nan"), float("inf")])
def test_a_delay_that_is_none_is_refused(place: Place, delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        place.jobs().put("x", delay=delay)


def test_a_delay_set_in_another_boot_is_counted_anew_from_when_it_is_first_seen(monkeypatch: Any, root: Path) -> None:
    from psync.engine.system import boot_time

    with PickleShareDB(root) as db:
        jobs = WorkQueue(db, "jobs")
        jobs.put("later", delay=0.3)
        here = boot_time._boot()
        monkeypatch.setattr(boot_time, "_boot", lambda: here ^ 1)
        begun = time.monotonic()
        assert jobs.get(timeout=20).value == "later"
        assert time.monotonic() - begun >= 0.3


def test_jumps_of_the_wall_clock_change_nothing(monkeypatch: Any, root: Path) -> None:
    from psync.engine.system import clock

    with PickleShareDB(root) as db:
        jobs = WorkQueue(db, "jobs", lease=0.3)
        begun = time.monotonic()
        jobs.put("later", delay=0.4)
        jobs.put("held")
        held = jobs.get()
        for jump in (10**18, -(10**18)):
            monkeypatch.setattr(clock, "wall_ns", lambda jump=jump: 1_800_000_000_000_000_000 + jump)
            with pytest.raises(queue.Empty):
                jobs.get(timeout=0.01)
        held.touch()
        held.done()
        assert jobs.get(timeout=20).value == "later" and time.monotonic() - begun >= 0.4


# -- leases ----------------------------------------------------------------------------------------


def test_a_lease_that_runs_out_costs_an_attempt_and_its_worker_hears_of_it(place: Place) -> None:
    jobs, others = place.jobs(lease=0.4), place.others()
    id = jobs.put("x")
    late = jobs.get()
    again = others.get(timeout=30)
    assert (again.id, again.attempt, again.value) == (id, 2, "x") and again.token > late.token
    for answer in (late.touch, late.done, late.retry, lambda: late.fail("no")):
        with pytest.raises(StaleClaim):
            answer()
    assert not late.settled
    again.done("y")
    assert jobs.results.get(id, timeout=0) == "y"
    assert "lease" in jobs.history(id)[0].error


def test_a_task_that_is_touched_in_time_is_kept(place: Place) -> None:
    jobs, others = place.jobs(lease=3.0), place.others()
    jobs.put("x")
    task = jobs.get()
    begun = place.engine.now()
    while place.engine.now() - begun < 3.3:
        with pytest.raises(queue.Empty):
            others.get(timeout=0.3)
        task.touch()
    task.done()
    jobs.join(timeout=5)


def test_touch_never_shows_the_same_beat_twice_in_a_row(place: Place) -> None:
    jobs = place.jobs(lease=10.0)
    jobs.put("x")
    task = jobs.get()
    seen = [task._record.mark.beat]
    for _ in range(600):
        task.touch()
        seen.append(task._record.mark.beat)
        assert seen[-1] not in (0, seen[-2])
    task.done()


def test_without_a_lease_a_slow_worker_keeps_its_task(place: Place) -> None:
    jobs, others = place.jobs(), place.others(lease=0.05)
    jobs.put("x")
    task = jobs.get()
    with pytest.raises(queue.Empty):
        others.get(timeout=0.8)
    task.touch()
    task.done()


def test_what_is_out_of_its_lease_too_often_is_dead(place: Place) -> None:
    jobs = place.jobs(lease=0.02, max_attempts=2)
    id = jobs.put("x")
    for _ in range(2):
        jobs.get(timeout=30)
    with pytest.raises(TaskFailed):
        place.others(max_attempts=2).join(timeout=30)
        jobs.results.get(id, timeout=0)
    assert [attempt.number for attempt in jobs.dead()[0].history] == [1, 2]


# -- many at a time --------------------------------------------------------------------------------


def test_get_many_gives_what_there_is(place: Place) -> None:
    jobs = place.jobs()
    jobs.put_many(range(5))
    tasks = jobs.get_many(3)
    assert [task.value for task in tasks] == [0, 1, 2]
    assert [task.value for task in jobs.get_many(10)] == [3, 4]
    with pytest.raises(queue.Empty):
        jobs.get_many(3, block=False)
    with pytest.raises(ValueError, match="at least 1"):
        jobs.get_many(0)
    for task in tasks:
        with task:
            task.done(task.id)
    assert jobs.statistics().running == 2


def test_a_killed_worker_costs_an_attempt_of_the_one_task_it_had_begun() -> None:
    engine = MemoryEngine(clock=ManualClock(autojump=0.002))
    jobs = WorkQueue(engine, "jobs")
    jobs.put_many(range(4))
    dying = engine.as_owner()
    tasks = WorkQueue(dying, "jobs").get_many(4)
    assert tasks[1].value == 1
    dying.die()
    found = sorted((task.value, task.attempt) for task in jobs.get_many(4, timeout=10))
    assert found == [(0, 1), (1, 2), (2, 1), (3, 1)]


def test_what_was_claimed_and_not_begun_goes_back_when_its_engine_is_closed(place: Place) -> None:
    jobs = place.jobs()
    jobs.put_many(range(4))
    engine = place.other()
    tasks = WorkQueue(engine, "jobs").get_many(4)
    assert tasks[2].value == 2
    engine.close()
    assert jobs.qsize() == 3
    found = [(task.value, task.attempt) for task in jobs.get_many(3)]
    assert found == [(0, 1), (1, 1), (3, 1)]
    for task in (tasks[0], tasks[3]):
        with pytest.raises(StaleClaim):
            task.value
    again = jobs.get(timeout=10)
    assert (again.value, again.attempt) == (2, 2)


def test_short_tasks_are_claimed_together_and_go_back_when_the_loop_is_left(place: Place) -> None:
    jobs = place.jobs()
    jobs.put_many(range(500))
    most = 0
    for number, task in enumerate(jobs):
        assert task.value == number and task.attempt == 1
        task.done()
        most = max(most, jobs.statistics().running)
        if number == 200:
            break
    else:
        raise AssertionError("the loop ended too early")
    if isinstance(place.engine, MemoryEngine):  # there no time passes
        assert most > 20
    assert jobs.statistics().running == 0 and jobs.qsize() == 299
    rest = [(task.value, task.attempt) for task in jobs.get_many(299)]
    assert sorted(rest) == [(number, 1) for number in range(201, 500)]


def test_what_is_given_back_beside_a_loop_is_taken_again_in_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = WorkQueue(root, "jobs")
    jobs.put_many(range(300))
    give_up = jobs._claims.give_up_quietly

    def slowly(level: Any, record: Any) -> None:
        time.sleep(0.004)
        give_up(level, record)

    monkeypatch.setattr(jobs._claims, "give_up_quietly", slowly)
    seen = []
    for task in jobs:
        seen.append(task.value)
        if task.value in (100, 160, 220):
            time.sleep(ACK_DELAY_S + 0.05)  # who looks after what is in hand is in the midst of giving it back then
        task.done()
        if task.value == 250:
            break
    assert seen == list(range(251))
    assert jobs.statistics().running == 0


def test_a_loop_that_raises_gives_back_what_it_had_not_begun(place: Place) -> None:
    jobs = place.jobs()
    jobs.put_many(range(100))
    with pytest.raises(ZeroDivisionError):
        for task in jobs:
            with task:
                if task.value == 60:
                    raise ZeroDivisionError
    assert jobs.statistics().running == 0 and jobs.qsize() == 40
    assert sorted((task.value, task.attempt) for task in jobs.get_many(40)) == [
        (number, 1 + (number == 60)) for number in range(60, 100)
    ]


def test_slow_tasks_are_claimed_one_at_a_time() -> None:
    clock = ManualClock(autojump=0.002)
    jobs = WorkQueue(MemoryEngine(clock=clock), "jobs")
    jobs.put_many(range(60))
    for number, task in enumerate(jobs):
        if number > 30:
            clock.advance(0.0011)
        task.done()
        if number > 40:
            assert jobs.statistics().running == 0


def test_a_batch_is_no_more_than_a_fair_share() -> None:
    engine = MemoryEngine(clock=ManualClock(autojump=0.002))
    jobs = WorkQueue(engine, "jobs")
    jobs.put_many(range(103))
    others = [WorkQueue(engine.as_owner(), "jobs") for _ in range(3)]
    for other in others:
        other.get().done()
    jobs.get().done()
    for task in jobs:
        task.done()
        looked = jobs.statistics()
        assert looked.running <= 1 + (looked.waiting + looked.running) // 4


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_nothing_that_is_in_hand_waits_for_a_slow_task(kind: str, root: Path) -> None:
    """Time is the real one here."""
    engine: Engine = MemoryEngine() if kind == "memory" else open_engine(root)
    other: Engine = engine.as_owner() if isinstance(engine, MemoryEngine) else open_engine(root)
    jobs, others = WorkQueue(engine, "jobs"), WorkQueue(other, "jobs")
    jobs.put_many(["slow" if number == 16 else number for number in range(41)])
    ended: dict[Any, tuple[float, int]] = {}
    at_it, enough = threading.Event(), threading.Event()

    def work(jobs: WorkQueue) -> None:
        for task in jobs:
            if task.value == "slow":
                at_it.set()
                enough.wait(10)
            ended[task.value] = time.monotonic(), task.attempt
            task.done()

    crew = [threading.Thread(target=work, args=(each,)) for each in (jobs, others)]
    crew[0].start()
    assert at_it.wait(10)
    crew[1].start()
    deadline = time.monotonic() + 5
    while len(ended) < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    short_ones = dict(ended)
    enough.set()
    for thread in crew:
        thread.join(10)
    assert sorted(short_ones) == [number for number in range(41) if number != 16]
    assert {attempt for _, attempt in ended.values()} == {1} and len(ended) == 41
    engine.close()
    other.close()


def test_the_keeper_of_what_is_in_hand_ends_with_the_engine(root: Path) -> None:
    with PickleShareDB(root) as db:
        jobs = WorkQueue(db, "jobs")
        jobs.put_many(range(64))
        for task in jobs:
            task.done()
            if jobs._prefetched._reaper is not None:
                break
        reaper = jobs._prefetched._reaper
    assert jobs._prefetched._reaper is None
    if reaper is not None:  # else each task was slow
        reaper.join(1)
        assert not reaper.is_alive()


# -- close, reopen, room ---------------------------------------------------------------------------


def test_a_closed_queue_takes_nothing_more_and_gives_what_it_has(place: Place) -> None:
    jobs, others = place.jobs(), place.others()
    jobs.put_many(["a", "b"])
    assert not others.closed
    jobs.close()
    assert others.closed and others.statistics().closed and "closed" in repr(others)
    for put in (
        lambda: others.put("c"),
        lambda: others.put("c", id="own"),
        lambda: others.put("c", priority=3),
        lambda: others.put("c", delay=3),
        lambda: others.put_many(["c", "d"]),
        lambda: place.others(maxsize=9).put("c"),
    ):
        with pytest.raises(QueueClosed, match="reopen"):
            put()
    held = others.get()
    assert [task.done() for task in [jobs.get()]] == [None]
    with pytest.raises(queue.Empty):  # it may come back
        jobs.get(timeout=0.05)
    held.retry()
    assert values(jobs) == ["a"]
    with pytest.raises(QueueClosed):
        jobs.get()
    with pytest.raises(QueueClosed):
        others.get_many(3, timeout=100)
    assert list(others) == []
    others.reopen()
    assert jobs.put("c") and values(others) == ["c"]
    with pytest.raises(queue.Empty):
        jobs.get(block=False)


def test_who_waits_for_a_task_hears_that_the_queue_was_closed(place: Place) -> None:
    jobs, heard = place.others(), []

    def wait() -> None:
        with pytest.raises(QueueClosed):
            jobs.get()
        heard.append("closed")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    place.jobs().close()
    thread.join(10)
    assert heard == ["closed"]


def test_closed_is_what_a_user_would_catch() -> None:
    assert issubclass(QueueClosed, ValueError)
    assert issubclass(QueueClosed, getattr(queue, "ShutDown", ValueError))
    error = pickle.loads(pickle.dumps(QueueClosed("closed", queue="jobs")))
    assert error.queue == "jobs" and str(error) == "closed"


def test_a_full_queue_takes_nothing_until_there_is_room(place: Place) -> None:
    jobs = place.jobs(maxsize=2)
    assert not jobs.full()
    jobs.put("a")
    jobs.put("b", priority=4)
    assert jobs.full() and not place.others().full()
    for put in (
        lambda: jobs.put("c", block=False),
        lambda: jobs.put("c", timeout=0.05),
        lambda: jobs.put_many("c", block=False),
    ):
        with pytest.raises(queue.Full):
            put()
    with pytest.raises(ValueError, match="never fit"):
        jobs.put_many("abc")
    assert place.others().get().value == "b"
    jobs.put("c", timeout=0)
    assert values(jobs) == ["a", "c"]


def test_who_waits_for_room_is_woken_by_a_take(place: Place) -> None:
    jobs, others = place.jobs(maxsize=1), place.others()
    jobs.put(0)
    done = []

    def fill() -> None:
        for number in range(1, 30):
            done.append(jobs.put(number))

    thread = threading.Thread(target=fill)
    thread.start()
    assert [others.get().value for _ in range(30)] == list(range(30))
    thread.join(10)
    assert len(done) == 29 and not thread.is_alive()


def test_who_waits_for_room_hears_that_the_queue_was_closed(place: Place) -> None:
    jobs, heard = place.jobs(maxsize=1), []
    jobs.put(0)

    def wait() -> None:
        with pytest.raises(QueueClosed):
            jobs.put(1)
        heard.append("closed")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    place.others().close()
    thread.join(10)
    assert heard == ["closed"]


# -- the dead --------------------------------------------------------------------------------------


def test_the_dead_are_kept_with_value_and_history_whatever_becomes_of_their_records(place: Place) -> None:
    jobs = place.jobs(max_attempts=2)
    ids = [jobs.put({"n": 1}), jobs.put({"n": 2}, id="own"), jobs.put({"n": 3}, priority=3)]
    for _ in range(2):
        for _ in ids:
            task = jobs.get()
            task.retry(f"error {task.attempt - 1}")
    jobs.put_many([b"x" * 20_000] * 200)  # enough to clear away what is final
    assert len(values(jobs)) == 200 and len(jobs.put_many([b"y" * 20_000] * 100)) == 100 and len(values(jobs)) == 100
    found = {task.id: task for task in place.others().dead()}
    assert sorted(found) == sorted(ids)
    for number, id in enumerate(ids, 1):
        assert found[id].value == {"n": number}
        assert [(past.number, past.error) for past in found[id].history] == [(1, "error 0"), (2, "error 1")]
        with pytest.raises(TaskFailed, match="error 1"):
            place.others().results.get(id, timeout=0)
    assert jobs.statistics().dead == 3


def test_a_revived_task_has_fresh_attempts_its_old_id_and_its_history(place: Place) -> None:
    jobs = place.jobs(max_attempts=2)
    ids = [jobs.put("a"), jobs.put("b", id="own"), jobs.put("c", priority=5)]
    tokens = []
    for _ in range(2):
        for _ in ids:
            task = jobs.get()
            tokens.append(task.token)
            task.retry("first life")
    assert sorted(place.others().revive(["own", ids[2], "nobody", "#ffffff"])) == sorted(ids[1:])
    assert [task.id for task in jobs.dead()] == [ids[0]] and jobs.revive(["own"]) == []
    assert jobs.revive() == [ids[0]] and jobs.dead() == [] and jobs.revive() == []
    with pytest.raises(WaitTimeout):
        jobs.results.get(ids[0], timeout=0)
    while not jobs.empty():
        task = jobs.get()
        assert task.token > max(tokens)
        if task.id == "own":
            task.done("at last")
        else:
            task.retry("second life")
    ids.remove("own")
    assert jobs.results.get("own", timeout=0) == "at last"
    assert sorted(task.id for task in jobs.dead()) == sorted(ids)
    for task in jobs.dead():
        assert [past.number for past in task.history] == [1, 2, 3, 4]
        with pytest.raises(TaskFailed, match="4 attempts"):
            jobs.results.get(task.id, timeout=0)
    assert sorted(jobs.revive()) == sorted(ids)
    for _ in ids:
        jobs.get().done("third life")
    assert [jobs.results.get(id, timeout=0) for id in ids] == ["third life"] * 2
    assert jobs.put("b again", id="own") == "own" and jobs.empty()


def test_a_revived_task_is_revived_once_by_many(place: Place) -> None:
    jobs = place.jobs(max_attempts=1)
    ids = jobs.put_many(range(5))
    for _ in ids:
        jobs.get().fail("no")
    revived: list[str] = []
    handles = [place.others() for _ in range(4)]
    crew = [threading.Thread(target=lambda jobs=jobs: revived.extend(jobs.revive())) for jobs in handles]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(20)
    assert sorted(revived) == sorted(ids) and sorted(values(jobs)) == list(range(5))


def test_who_waits_for_the_result_of_a_revived_task_gets_the_new_one(place: Place) -> None:
    jobs = place.jobs()
    id = jobs.put("x")
    jobs.get().fail("no")
    jobs.revive()
    got = []
    results = place.others().results
    thread = threading.Thread(target=lambda: got.append(results.get(id)))
    thread.start()
    time.sleep(0.05)
    jobs.get().done("yes")
    thread.join(10)
    assert got == ["yes"]


def test_a_cancelled_task_is_dead_and_nobody_works_on_it(place: Place) -> None:
    jobs, others = place.jobs(), place.others()
    ids = [jobs.put("a"), jobs.put("b", id="own", priority=3), jobs.put("c", delay=500), jobs.put("d")]
    assert [others.state(id) for id in ids] == ["waiting", "waiting", "delayed", "waiting"]
    assert [others.cancel(id) for id in ids[:3]] == [True] * 3
    assert [jobs.cancel(id) for id in (*ids[:3], "nobody", "#ffff")] == [False] * 5
    assert [jobs.state(id) for id in ids] == ["dead"] * 3 + ["waiting"] and jobs.state("nobody") is None
    assert sorted(task.value for task in jobs.dead()) == ["a", "b", "c"] and jobs.qsize() == 1
    with pytest.raises(TaskFailed, match="cancelled"):
        jobs.results.get(ids[0], timeout=0)
    task = others.get(block=False)
    assert task.value == "d" and jobs.state(ids[3]) == "claimed" and not jobs.cancel(ids[3])
    task.done("answer")
    assert jobs.state(ids[3]) == "done" and not jobs.cancel(ids[3])
    jobs.join(timeout=5)
    assert jobs.revive(["own"]) == ["own"] and jobs.state("own") == "waiting" and jobs.get().value == "b"


def test_to_cancel_leaves_the_attempts_before_it_in_the_history(place: Place) -> None:
    jobs = place.jobs(max_attempts=9)
    id = jobs.put("x")
    for _ in range(2):
        jobs.get().retry("no luck")
    assert jobs.cancel(id)
    told = [(1, "no luck"), (2, "no luck"), (3, "cancelled")]
    assert [(past.number, past.error) for past in jobs.history(id)] == told
    jobs.revive()
    task = jobs.get()
    assert task.attempt == 4
    task.retry("again")
    assert place.others().cancel(id)
    told += [(4, "again"), (5, "cancelled")]
    assert [(past.number, past.error) for past in jobs.history(id)] == told


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"lease": 0}, "lease"),
        ({"lease": -1.0}, "lease"),
        ({"lease": 1e6}, "lease"),
    ],
)
def test_options_that_make_no_sense_are_refused(place: Place, options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        place.jobs(**options)


def test_a_queue_and_its_results_travel_and_a_task_does_not(root: Path) -> None:
    with PickleShareDB(root) as db:
        jobs = WorkQueue(db, "jobs", lease=7.0, max_attempts=5, maxsize=9)
        id = jobs.put("x")
        task = jobs.get()
        with pytest.raises(TypeError, match="can't travel"):
            pickle.dumps(task)
        task.retry("oh")
        copy, results = pickle.loads(pickle.dumps((jobs, jobs.results)))
        assert (copy.name, copy.lease, copy.max_attempts, copy.maxsize) == ("jobs", 7.0, 5, 9)
        assert repr(copy) == "<WorkQueue 'jobs' 1 waiting>"
        copy.get().done("y")
        assert results.get(id, timeout=0) == "y"
        for thing in (jobs.statistics(), jobs.history(id), results.statistics()):
            assert pickle.loads(pickle.dumps(thing)) == thing
        copy._engine.close()


def test_statistics_tell_all_and_change_nothing(place: Place) -> None:
    jobs = place.jobs(max_attempts=1)
    jobs.put_many(range(5))
    jobs.put("later", delay=500)
    jobs.put("high", priority=3)
    jobs.get().done()
    jobs.get().fail("no")
    held = jobs.get()
    for _ in range(2):
        looked = place.others().statistics()
        assert looked[:-1] == (7, 3, 1, 1, 1, 1) and not looked.closed
    held.done()


def test_the_same_name_works_at_once_after_an_earlier_run_that_crashed() -> None:
    engine = MemoryEngine(clock=ManualClock(autojump=0.002))
    for run in range(3):
        crashing = engine.as_owner()
        jobs = WorkQueue(crashing, "jobs", max_attempts=99)
        jobs.put_many([run] * 3)
        jobs.get()
        jobs.get_many(2)
        crashing.die()
    jobs = WorkQueue(engine, "jobs", max_attempts=99)
    jobs.put("new")
    assert sorted(map(str, (task.value for task in iterated(jobs)))) == sorted(["new", *"000111222"])


def iterated(jobs: WorkQueue) -> list[Any]:
    tasks = []
    for task in jobs:
        tasks.append(task)
        task.done()
    return tasks


@pytest.mark.parametrize("begun", [True, False])
def test_an_answer_stays_though_its_worker_dies_before_the_mark(begun: bool) -> None:
    engine = MemoryEngine(clock=ManualClock(autojump=0.002))
    jobs = WorkQueue(engine, "jobs")
    id = jobs.put("x")
    dying = engine.as_owner()
    theirs = WorkQueue(dying, "jobs")
    (task,) = theirs.get_many(1)
    if begun:
        task.value
    die_before_the_mark(theirs.results, dying.die)
    with pytest.raises(SystemExit):
        task.done("answer")
    jobs.join(timeout=10)
    assert jobs.results.get(id, timeout=0) == "answer" and jobs.empty() and jobs.history(id) == []


def test_the_answers_to_tasks_in_a_row_lie_together_and_whatever_is_no_id_has_a_place_too() -> None:
    assert len({bucket_of_result(f"#{position:x}") for position in range(0, 1 << BUCKET_SHIFT_BYTES, 32)}) == 1
    assert len({bucket_of_result(f"#p-3.{position << BUCKET_SHIFT_BYTES:x}") for position in range(256)}) == 256
    one_by_one = [bucket_of_result(f"#{position:x}") for position in range(4096)]
    assert max(map(one_by_one.count, set(one_by_one))) < 100 and len(set(one_by_one[1:32])) == 1
    for address in ("#", "#../..", "#p3.", "own", 7, None):
        assert bucket_of_result(address) in {f"{number:02x}" for number in range(256)}
