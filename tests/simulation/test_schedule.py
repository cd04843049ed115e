"""The schedule itself: one at a time, told by the seed, in virtual time; it kills, stops, and finds who is stuck."""

from __future__ import annotations

import threading
import time

import pytest

from psync.engine import MemoryEngine
from psync.engine.contract.values import Alive
from tests.contract.payloads import pickled
from tests.simulation.actor import Stuck
from tests.simulation.explore import SCHEDULES, explore, first_failure, replay
from tests.simulation.pool import Pool
from tests.simulation.schedule import Schedule
from tests.support import scaled

HOUR = 3600.0


def three_add(schedule: Schedule) -> None:
    """Each makes a mutex its own, and changes a name in it."""

    def work(engine: MemoryEngine) -> None:
        for _ in range(3):
            mutex = engine.mutex("m")
            mutex.acquire(HOUR)
            engine.update("n", lambda old: pickled(1) if old is None else old + b"")
            mutex.release()

    for _ in range(3):
        schedule.actor(work)
    schedule.run()


def test_the_same_seed_makes_the_same_history() -> None:
    for seed in range(scaled(100)):
        terms = {"kills": 2, "stops": 2, "turns": 20}
        assert replay(three_add, seed, **terms).story() == replay(three_add, seed, **terms).story()


def test_other_seeds_make_other_histories() -> None:
    histories = {"\n".join(replay(three_add, seed).trace()) for seed in range(200)}
    assert len(histories) > 100


def test_one_actor_runs_at_a_time() -> None:
    at_once: list[int] = []

    def scenario(schedule: Schedule) -> None:
        running = threading.Lock()

        def work(engine: MemoryEngine) -> None:
            for _ in range(5):
                at_once.append(running.acquire(blocking=False))
                time.sleep(0)  # lets another thread run, if one can
                running.release()
                engine.read("a")

        for _ in range(4):
            schedule.actor(work)
        schedule.run()

    for seed in range(20):
        replay(scenario, seed)
    assert all(at_once)


def test_a_race_of_two_reads_and_two_writes_is_found_in_both_ways_of_drawing() -> None:
    def scenario(schedule: Schedule) -> None:
        engine = schedule.engine
        engine.write("n", pickled(b""))

        def add(engine: MemoryEngine) -> None:
            cell = engine.read("n")
            assert cell is not None
            engine.write("n", cell.payload + b"x")

        for _ in range(2):
            schedule.actor(add)
        schedule.run()
        cell = engine.read("n")
        assert cell is not None and cell.payload == pickled(b"") + b"xx"

    with Pool() as pool:
        for first in 0, 1:
            found = 0
            for seed in range(first, 100, 2):
                try:
                    scenario(Schedule(seed, pool, turns=5))
                except AssertionError:
                    found += 1
            assert 0 < found < 50


def test_hours_of_timeouts_cost_no_time() -> None:
    def scenario(schedule: Schedule) -> None:
        assert schedule.engine.mutex("m").acquire()

        def wait(engine: MemoryEngine) -> None:
            begun = engine.now()
            for _ in range(100):
                assert not engine.mutex("m").acquire(HOUR)
            assert engine.now() == begun + 100 * HOUR

        for _ in range(3):
            schedule.actor(wait)
        schedule.run()

    begun = time.monotonic()
    schedule = replay(scenario, 0, limit=100 * HOUR)
    assert schedule.time == 100 * HOUR and time.monotonic() - begun < 5.0


def test_who_waits_for_nobody_is_stuck_and_the_story_says_where() -> None:
    def scenario(schedule: Schedule) -> None:
        def wait(engine: MemoryEngine) -> None:
            with engine.watch(["a"]) as watch:
                engine.mutex("m").acquire()
                watch.pause(None)

        for _ in range(2):
            schedule.actor(wait)
        schedule.run()

    with pytest.raises(Stuck, match="nobody can go on ever") as caught:
        replay(scenario, 4)
    story = caught.value.__notes__[0]
    assert "seed 4" in story
    assert "sleeps in pause a>" in story and "sleeps in acquire m>" in story


def test_who_is_saved_only_by_its_own_timeout_is_stuck() -> None:
    def scenario(schedule: Schedule) -> None:
        def wait(engine: MemoryEngine) -> None:
            with engine.watch(["a"]) as watch:
                watch.pause(0.25)

        schedule.actor(wait)
        schedule.run()

    with pytest.raises(Stuck, match=r"before 0.25 s, and all should be done by 0 s"):
        replay(scenario, 0)
    replay(scenario, 0, limit=0.25)


def test_who_goes_round_in_circles_is_found() -> None:
    def scenario(schedule: Schedule) -> None:
        def turn(engine: MemoryEngine) -> None:
            while engine.read("a") is None:
                pass

        schedule.actor(turn)
        schedule.run()

    with pytest.raises(Stuck, match="turns"):
        replay(scenario, 0)


def test_the_error_of_one_actor_ends_all_and_is_told() -> None:
    cleaned: list[int] = []

    def scenario(schedule: Schedule) -> None:
        def wait(engine: MemoryEngine) -> None:
            try:
                engine.mutex("m").acquire()
                with engine.watch(["a"]) as watch:
                    watch.pause(None)
            finally:
                cleaned.append(1)
                engine.read("a")  # goes no further than this

        def fail(engine: MemoryEngine) -> None:
            raise ZeroDivisionError

        schedule.actor(wait)
        schedule.actor(fail)
        schedule.actor(wait)
        schedule.run()

    for seed in range(20):
        with pytest.raises(ZeroDivisionError):
            replay(scenario, seed)
    assert cleaned


def test_the_dead_make_no_further_verb_and_what_they_held_is_free() -> None:
    died = []

    def scenario(schedule: Schedule) -> None:
        done: list[str] = []

        def work(engine: MemoryEngine) -> None:
            assert engine.mutex("m").acquire()
            done.append("acquired")
            engine.write("a", pickled(1))
            done.append("written")
            engine.mutex("m").release()
            done.append("released")

        def after(engine: MemoryEngine) -> None:
            assert engine.mutex("m").acquire()
            engine.mutex("m").release()

        one = schedule.actor(work)
        schedule.actor(after, mortal=False)
        schedule.run()
        assert one.dead == (done != ["acquired", "written", "released"])
        assert ("written" in done) == (schedule.engine.read("a") is not None)
        if one.dead:
            died.append(tuple(done))
            assert schedule.engine.alive(one.engine.owner()) is Alive.NO

    explore(scenario, kills=1, turns=5)
    assert scaled(SCHEDULES) < 300 or set(died) == {(), ("acquired",), ("acquired", "written")}


def test_threads_of_one_process_die_together() -> None:
    deaths = set()

    def scenario(schedule: Schedule) -> None:
        def work(engine: MemoryEngine) -> None:
            for _ in range(3):
                engine.read("a")

        first = schedule.actor(work)
        second = schedule.actor(work, beside=first)
        other = schedule.actor(work)
        schedule.run()
        assert first.engine.owner() == second.engine.owner() != other.engine.owner()
        deaths.add((first.dead, second.dead, other.dead))

    for seed in range(100):
        replay(scenario, seed, kills=1, turns=4)
    assert {(True, True, False), (False, False, True)} <= deaths


def test_who_is_stopped_goes_on_later_and_the_others_meanwhile() -> None:
    longest = 0.0

    def scenario(schedule: Schedule) -> None:
        nonlocal longest

        def work(engine: MemoryEngine) -> None:
            for _ in range(3):
                engine.read("a")

        schedule.actor(work)
        schedule.actor(work, mortal=False)
        schedule.run()
        assert all(actor.ended and not actor.dead for actor in schedule.actors)
        longest = max(longest, schedule.time)

    for seed in range(100):
        replay(scenario, seed, stops=1, turns=6)
    assert longest == 30.0


def test_timeouts_run_out_beside_slow_verbs() -> None:
    """With a pace, a deadline may pass while others can go on."""
    answers = set()

    def scenario(schedule: Schedule) -> None:
        assert schedule.engine.mutex("m").acquire()

        def let_go(engine: MemoryEngine) -> None:
            for _ in range(3):
                engine.read("a")
            schedule.engine.mutex("m").release()

        schedule.actor(let_go)
        schedule.actor(lambda engine: answers.add(engine.mutex("m").acquire(0.03)))
        schedule.run()

    for seed in range(50):
        replay(scenario, seed, pace=0.01, limit=1.0)
    assert answers == {True, False}


def test_a_failing_seed_fails_again_in_the_same_way() -> None:
    def scenario(schedule: Schedule) -> None:
        order: list[str] = []

        def work(engine: MemoryEngine, name: str) -> None:
            engine.read(name)
            order.append(name)

        for name in "abc":
            schedule.actor(lambda engine, name=name: work(engine, name))
        schedule.run()
        assert order != ["c", "a", "b"]

    seed, error = first_failure(scenario)
    with pytest.raises(AssertionError) as caught:
        replay(scenario, seed)
    assert caught.value.__notes__ == error.__notes__
