"""Barriers, latches, events, conditions, counters and groups: nobody goes on too early, and everybody goes on."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from psync import (
    Barrier,
    BrokenBarrierError,
    Condition,
    Counter,
    DoubleBarrier,
    Event,
    Group,
    Latch,
    PickleShareDB,
    Semaphore,
    WaitTimeout,
)
from tests.concurrency.simultaneous import in_threads, together
from tests.support import scaled
from tests.sync.other_process import Channel, OtherProcess, eventually, other_process

CREW = 4
ROUNDS = scaled(25)
Job = Callable[[], Any]
WHO: dict[str, Callable[[Sequence[Job]], list[Any]]] = {"threads": in_threads, "processes": together}
among = pytest.mark.parametrize("run", WHO.values(), ids=WHO)


@among
def test_nobody_passes_a_barrier_alone_round_after_round(root: Path, run: Any) -> None:
    came = Counter(root, "came")

    def meet() -> list[int]:
        barrier, places = Barrier(root, "x", CREW), []
        for turn in range(ROUNDS):
            came.add()
            places.append(barrier.wait())
            assert CREW * (turn + 1) <= came.value <= CREW * (turn + 2)
        return places

    rounds = zip(*run([meet] * CREW), strict=True)
    assert [sorted(places) for places in rounds] == [list(range(CREW))] * ROUNDS


@among
def test_threads_through_one_handle_and_through_many_are_as_many_parties(root: Path, run: Any) -> None:
    barrier = Barrier(root, "x", CREW)
    assert sorted(run([barrier.wait] * CREW)) == list(range(CREW))
    assert sorted(run([barrier.wait, barrier.wait, Barrier(root, "x", CREW).wait, Barrier(root, "x", CREW).wait])) == [
        *range(CREW)
    ]


@among
def test_the_last_to_come_runs_the_action_before_anybody_goes_on(root: Path, run: Any) -> None:
    acted = Counter(root, "acted")

    def meet() -> list[tuple[int, int]]:
        barrier, seen = Barrier(root, "x", CREW, action=acted.add), []
        for _ in range(5):
            place = barrier.wait()
            seen.append((place, acted.value))
            barrier_between.wait()
        return seen

    barrier_between = Barrier(root, "between", CREW)
    assert {acted for part in run([meet] * CREW) for acted in enumerate(n for _, n in part)} == {
        (turn, turn + 1) for turn in range(5)
    }


def test_an_error_in_the_action_breaks_the_barrier_for_all_and_comes_out_of_the_one_that_acted(root: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    def meet() -> str:
        try:
            Barrier(root, "x", CREW, action=fail).wait()
        except (ZeroDivisionError, BrokenBarrierError) as error:
            return f"{type(error).__name__}: {error}"
        return "passed"

    said = sorted(together([meet] * CREW))
    assert said[-1] == "ZeroDivisionError: on purpose"
    assert all("its action raised ZeroDivisionError('on purpose')" in text for text in said[:-1])


def test_who_waits_too_long_breaks_the_barrier_for_all_until_one_resets_it(root: Path) -> None:
    barrier = Barrier(root, "x", 3, timeout=30)

    def wait(talk: Channel) -> None:
        with pytest.raises(BrokenBarrierError, match=r"because somebody waited 0\.05 seconds"):
            barrier.wait()
        talk.say("broken")
        talk.hear()
        talk.say(barrier.wait())

    with other_process(wait) as other:
        eventually(lambda: barrier.n_waiting == 1)
        with pytest.raises(BrokenBarrierError):
            barrier.wait(timeout=0.05)
        assert other.hear() == "broken" and barrier.broken
        with pytest.raises(BrokenBarrierError):
            barrier.wait()
        barrier.reset()
        assert not barrier.broken
        other.tell()
        with other_process(lambda talk: talk.say(barrier.wait())) as third:
            assert {barrier.wait(), other.hear(), third.hear()} == {0, 1, 2}


def test_a_reset_sends_away_who_waits_and_an_abort_who_waits_and_who_comes(root: Path) -> None:
    barrier = Barrier(root, "x", 2)

    def wait(talk: Channel) -> None:
        with pytest.raises(BrokenBarrierError) as raised:
            barrier.wait()
        talk.say(str(raised.value))

    for verb, why in ((barrier.reset, "it was reset"), (barrier.abort, "it was aborted by pid")):
        with other_process(wait) as other:
            eventually(lambda: barrier.n_waiting == 1)
            verb()
            assert why in other.hear()
    with other_process(wait) as other:
        assert "it was aborted by pid" in other.hear()


@among
def test_all_enter_a_double_barrier_and_all_leave_it_together(root: Path, run: Any) -> None:
    inside = Counter(root, "inside")

    def work() -> None:
        step = DoubleBarrier(root, "x", CREW)
        for turn in range(5):
            with step:
                assert inside.add() <= CREW * (turn + 1)
            assert inside.value >= CREW * (turn + 1)

    run([work] * CREW)


@among
def test_a_latch_opens_when_all_have_counted_and_not_before(root: Path, run: Any) -> None:
    counted = Counter(root, "counted")

    def count(me: int) -> int:
        latch = Latch(root, "x", CREW)
        time.sleep(0.003 * me)
        counted.add()
        left = latch.count_down()
        latch.wait(timeout=30)
        assert counted.value == CREW
        return left

    assert sorted(run([lambda me=me: count(me) for me in range(CREW)])) == list(range(CREW))
    assert Latch(root, "x", CREW).count == 0


def test_a_latch_that_does_not_open_says_how_many_steps_are_missing(root: Path) -> None:
    latch = Latch(root, "x", 3)
    latch.count_down()
    with pytest.raises(WaitTimeout, match=r"'x' did not open within 0\.02 seconds: 2 of 3 steps"):
        latch.wait(timeout=0.02)
    assert latch.count_down(5) == 0
    latch.wait(timeout=0)
    latch.reset()
    assert latch.count == 3


@among
def test_no_addition_is_lost_and_each_gets_a_number_of_its_own(root: Path, run: Any) -> None:
    def add() -> list[int]:
        counter = Counter(root, "x", 100)
        return [counter.add(2 if turn % 2 else -1) for turn in range(2 * ROUNDS)]

    parts = run([add] * CREW)
    assert Counter(root, "x", 100).value == 100 + CREW * ROUNDS
    assert run([lambda: Counter(root, "ids").add()] * CREW) and Counter(root, "ids").value == CREW
    assert len(parts) == CREW


def test_a_counter_that_does_not_come_so_far_says_how_far_it_came(root: Path) -> None:
    counter = Counter(root, "x")
    with pytest.raises(WaitTimeout, match=r"'x' did not come to 3 within 0\.02 seconds, but to 0"):
        counter.wait_for(3, timeout=0.02)
    counter.add(7)
    assert counter.wait_for(3) == 7
    counter.reset()
    assert counter.value == 0


def test_numbers_of_any_size_are_counted(root: Path) -> None:
    counter = Counter(root, "x", -(10**30))
    assert counter.add(10**40) == 10**40 - 10**30 == Counter(root, "x").value


@among
def test_all_who_wait_for_an_event_go_on_though_it_is_cleared_at_once(root: Path, run: Any) -> None:
    event, waiting = Event(root, "x"), Counter(root, "waiting")

    def wait() -> bool:
        waiting.add()
        return Event(root, "x").wait(timeout=30)

    def pulse() -> bool:
        waiting.wait_for(CREW - 1)
        time.sleep(0.1)  # they wait now
        event.set()
        event.clear()
        return not event.is_set()

    assert run([wait] * (CREW - 1) + [pulse]) == [True] * CREW
    assert event.wait(timeout=0.02) is False


@among
def test_each_notification_lets_one_go_on_and_notify_all_all(root: Path, run: Any) -> None:
    stock = Counter(root, "stock")

    def take() -> int:
        condition = Condition(root, "x")
        with condition:
            assert condition.wait_for(lambda: stock.value > 0, timeout=30)
            stock.add(-1)
        return 1

    def put() -> int:
        condition = Condition(root, "x")
        for number in range(CREW):
            with condition:
                stock.add()
                condition.notify() if number % 2 else condition.notify_all()
        return 0

    assert sum(run([take] * CREW + [put])) == CREW
    assert stock.value == 0 and Condition(root, "x").statistics().waiting == ()


def test_who_is_not_notified_waits_and_is_in_line(root: Path) -> None:
    def wait(talk: Channel) -> None:
        condition = Condition(root, "x")
        with condition:
            talk.say("waiting")
            talk.say(condition.wait(timeout=talk.hear()))

    def stand_in_line(waiter: OtherProcess, timeout: float) -> None:
        before = len(condition.statistics().waiting)
        assert waiter.hear() == "waiting"
        waiter.tell(timeout)
        eventually(lambda: len(condition.statistics().waiting) == before + 1)

    condition = Condition(root, "x")
    with other_process(wait) as first:
        stand_in_line(first, 30)
        with other_process(wait) as second:
            stand_in_line(second, 0.3)
            with condition:
                condition.notify()
            assert first.hear() is True
            assert second.hear() is False  # in vain
    assert condition.statistics().waiting == ()


def test_an_error_while_a_condition_is_waited_for_leaves_the_lock_held_and_the_line_empty(root: Path) -> None:
    condition = Condition(root, "x")

    def refuse() -> bool:
        raise ZeroDivisionError

    with condition:
        with pytest.raises(ZeroDivisionError):
            condition.wait_for(refuse)
        assert condition.locked()
    assert not condition.locked()


@among
def test_a_group_is_complete_when_all_have_joined_and_empty_when_all_have_left(root: Path, run: Any) -> None:
    def join(me: int) -> list[int]:
        crew = Group(root, "x")
        member = crew.join(f"member {me}")
        here = crew.wait_for(CREW, timeout=30)
        assert {one.information for one in here} == {f"member {me}" for me in range(CREW)}
        assert [one.number for one in here] == sorted({one.number for one in here}) and member in here
        left.wait()
        crew.leave()
        return [one.number for one in here]

    left = Barrier(root, "left", CREW)
    assert run([lambda me=me: join(me) for me in range(CREW)]) == [[1, 2, 3, 4]] * CREW
    assert Group(root, "x").members() == [] and Group(root, "x").statistics().joined == CREW


def test_who_joins_again_through_its_handle_is_one_member_that_says_something_else(root: Path) -> None:
    crew = Group(root, "x")
    assert crew.join("first").number == crew.join({"second": 2}).number == 1
    assert [member.information for member in crew.members()] == [{"second": 2}]
    in_threads([lambda: crew.join("many")] * 4)
    assert len(crew) == 1
    with pytest.raises(WaitTimeout, match=r"'x' had not 2 members within 0\.02 seconds, but 1"):
        crew.wait_for(2, timeout=0.02)
    crew.leave()
    assert crew.join("again").number > 1


def test_threads_that_join_at_once_through_a_handle_that_never_joined_are_one_member(root: Path) -> None:
    for turn in range(scaled(20)):
        crew = Group(root, f"crew {turn}")
        numbers = {member.number for member in in_threads([crew.join] * 4)}
        assert len(crew) == len(numbers) == 1


def test_signals_are_taken_as_often_as_they_are_given(root: Path) -> None:
    def take() -> int:
        signals = Semaphore(root, "x", 0)
        return sum(signals.acquire(timeout=30) for _ in range(ROUNDS))

    def give() -> int:
        signals = Semaphore(root, "x", 0)
        for _ in range(ROUNDS):
            signals.release(2)
        return 0

    assert sum(together([take, give, take])) == 2 * ROUNDS
    assert Semaphore(root, "x", 0).get_value() == 0


# -- spawned processes -----------------------------------------------------------------------------


def meet_in_every_way(
    barrier: Barrier, step: DoubleBarrier, latch: Latch, event: Event, came: Counter, crew: Group, talk: Connection
) -> None:
    with crew:
        assert len(crew.wait_for(2, timeout=60)) == 2
        came.add()
        place = barrier.wait(timeout=60)
        assert came.value == 2
        with step:
            came.add()
        assert came.wait_for(4) == 4
        latch.count_down()
        latch.wait(timeout=60)
        if place == 0:
            event.set()
        assert event.wait(timeout=60)
    talk.send(place)


def test_spawned_processes_meet_at_what_they_were_given(root: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with PickleShareDB(root) as db:
        shared = (
            Barrier(db, "x", 2, action=print),
            DoubleBarrier(db, "x", 2),
            Latch(db, "x", 2),
            Event(db, "x"),
            Counter(db, "x"),
            Group(db, "x"),
        )
        pipes = [spawn.Pipe() for _ in range(2)]
        processes = [spawn.Process(target=meet_in_every_way, args=(*shared, theirs)) for _, theirs in pipes]
        for process in processes:
            process.start()
        assert sorted(mine.recv() for mine, _ in pipes if mine.poll(60)) == [0, 1]
        for process, ends in zip(processes, pipes, strict=True):
            process.join(60)
            assert process.exitcode == 0
            process.close()
            for end in ends:
                end.close()
