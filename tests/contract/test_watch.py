"""The contract of watches: begin one, look, and only then pause; no change is missed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from psync.engine import Engine
from psync.engine.contract.log import Mark, State
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.contract.payloads import item, loaded, pickle_of, pickled
from tests.support import SLACK, scaled

AT_ONCE = 0.3 * SLACK
"""Seconds: well below any engine's `grace`, well above what a busy machine needs."""

BUCKET, LOG = "c/0f", ".psync/queue/q"


def slack(harness: Harness) -> float:
    """How much longer a wake-up may take where nobody is woken, and who waits looks again and again."""
    return 4.0 if harness.engine.remote else 1.0


def replace(engine: Engine) -> None:
    with engine.bucket(BUCKET).held() as held:
        assert held is not None
        held.replace(item(1, 1))


def drop(engine: Engine) -> None:
    with engine.bucket(BUCKET).held() as held:
        assert held is not None
        held.drop()


def append_held(engine: Engine) -> None:
    with engine.bucket(BUCKET).held() as held:
        assert held is not None
        held.append(item(2, 2))


def settle(state: State) -> Callable[[Engine], object]:
    def change(engine: Engine) -> None:
        claim = engine.log(LOG).claims()[0]
        assert engine.log(LOG).settle(claim.position, claim.mark, Mark(state, 1))

    return change


CHANGES: dict[str, tuple[str, Callable[[Engine], object]]] = {
    "write": ("a", lambda engine: engine.write("a", pickled(2))),
    "write big": ("a", lambda engine: engine.write("a", pickle_of(10_000))),
    "create": ("new", lambda engine: engine.create("new", pickled(1))),
    "delete": ("a", lambda engine: engine.delete("a")),
    "pop": ("a", lambda engine: engine.pop("a")),
    "move away": ("a", lambda engine: engine.move("a", "new")),
    "move here": ("new", lambda engine: engine.move("a", "new")),
    "update": ("a", lambda engine: engine.update("a", lambda old: pickled(3))),
    "append": (BUCKET, lambda engine: engine.bucket(BUCKET).append(item(2, 2))),
    "begin a bucket": ("c/0e", lambda engine: engine.bucket("c/0e").append(item(2, 2))),
    "append to all": (BUCKET, lambda engine: engine.append_all({"c/0e": item(1, 1), BUCKET: item(2, 2)})),
    "append held": (BUCKET, append_held),
    "replace": (BUCKET, replace),
    "drop": (BUCKET, drop),
    "append to a log": (LOG, lambda engine: engine.log(LOG).append([b"x"])),
    "begin a log": (".psync/queue/new", lambda engine: engine.log(".psync/queue/new").append([b"x"])),
    "give back": (LOG, settle(State.WAITING)),
    "done": (LOG + "/final", settle(State.DONE)),
    "dead": (LOG + "/final", settle(State.DEAD)),
}


@pytest.fixture
def with_one_of_each(harness: Harness) -> Harness:
    """Something there to change."""
    harness.engine.write("a", pickled(1))
    harness.engine.bucket(BUCKET).append(item(1, 1))
    harness.engine.log(LOG).append([b"x"])
    harness.engine.log(LOG).take(7)
    return harness


def seconds(action: Callable[[], object]) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_entering_and_the_pause_is_not_missed(with_one_of_each: Harness, change: str) -> None:
    name, make = CHANGES[change]
    other = with_one_of_each.other()
    with with_one_of_each.engine.watch([name]) as watch:
        make(other)
        assert seconds(lambda: watch.pause(10.0)) < AT_ONCE


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_ends_a_pause(with_one_of_each: Harness, change: str) -> None:
    name, make = CHANGES[change]
    other, begun = with_one_of_each.other(), []

    def wait() -> float:
        with with_one_of_each.engine.watch(["elsewhere", name]) as watch:
            while not begun:  # a pause may end early for no reason
                watch.pause(10.0)
        return time.monotonic() - begun[0]

    def work() -> float:
        time.sleep(0.02)
        begun.append(time.monotonic())
        make(other)
        return 0.0

    assert threads([wait, work])[0] < AT_ONCE


def test_as_many_of_those_who_wait_to_take_are_woken_as_there_are_records(harness: Harness) -> None:
    other, asleep = harness.other(), threading.Barrier(4)

    def take() -> float:
        with harness.engine.watch([], taking=LOG) as watch:
            asleep.wait()
            while not harness.engine.log(LOG).take(7):
                watch.pause(10.0)
        return time.monotonic()

    def put() -> float:
        asleep.wait()
        time.sleep(0.02)
        other.log(LOG).append([b"x", b"y", b"z"])
        return time.monotonic()

    *taken, put_in = threads([take, take, take, put])
    assert max(taken) - put_in < AT_ONCE * slack(harness)


def test_a_waiter_is_woken_at_once_while_it_sleeps(harness: Harness) -> None:
    """Median of several, so that one hiccup of the machine does not decide."""
    times, other = [], harness.other()
    for turn in range(9):

        def wait(name: str = f"n{turn}") -> float:
            with harness.engine.watch([name]) as watch:
                while harness.engine.read(name) is None:
                    watch.pause(None)
            return time.time()

        def write(name: str = f"n{turn}") -> float:
            time.sleep(0.03)
            begun = time.time()
            other.write(name, pickled(1))
            return begun

        woken, written = threads([wait, write])
        times.append(woken - written)
    assert sorted(times)[4] < 0.1


def test_a_change_before_the_last_pause_does_not_end_the_next(harness: Harness) -> None:
    with harness.engine.watch(["a"]) as watch:
        harness.engine.write("a", pickled(1))
        watch.pause(1.0)
        pauses, end = 0, time.monotonic() + 0.2
        while time.monotonic() < end:
            watch.pause(end - time.monotonic())
            pauses += 1
    assert pauses < 25  # one, or a few where an engine polls; not a busy loop


def test_other_names_do_not_disturb_much(harness: Harness) -> None:
    other, pauses = harness.other(), 0

    def disturb() -> None:
        for turn in range(90):
            other.write(f"b{turn % 30}", pickled(turn))
            time.sleep(0.002)

    def wait() -> None:
        nonlocal pauses
        with harness.engine.watch(["a"]) as watch:
            end = time.monotonic() + 0.25
            while time.monotonic() < end:
                watch.pause(end - time.monotonic())
                pauses += 1

    threads([wait, disturb])
    assert pauses < 30


def test_a_pause_ends_after_its_timeout(engine: Engine) -> None:
    with engine.watch(["a", "b"]) as watch:
        assert seconds(lambda: watch.pause(0)) < AT_ONCE
        assert seconds(lambda: watch.pause(-1.0)) < AT_ONCE
        assert seconds(lambda: watch.pause(0.05)) < 0.05 + AT_ONCE
        begun = engine.now()
        for _ in range(1000):
            if engine.now() - begun >= 0.1:
                break
            watch.pause(0.1 - (engine.now() - begun))
        assert 0.1 <= engine.now() - begun < 0.1 + AT_ONCE


def test_a_watch_of_nothing_just_pauses(engine: Engine) -> None:
    with engine.watch([]) as watch:
        assert seconds(lambda: watch.pause(0.02)) < 0.02 + AT_ONCE


def test_a_watch_that_is_over_leaves_the_next_one_whole(harness: Harness) -> None:
    other = harness.other()
    with harness.engine.watch(["a"]):
        pass
    with harness.engine.watch(["a"]) as outer:
        with harness.engine.watch(["a"]) as inner:
            other.write("a", pickled(1))
            assert seconds(lambda: inner.pause(10.0)) < AT_ONCE
        assert seconds(lambda: outer.pause(10.0)) < AT_ONCE
    with pytest.raises(ZeroDivisionError), harness.engine.watch(["a"]):
        raise ZeroDivisionError
    with harness.engine.watch(["a"]) as watch:
        other.write("a", pickled(2))
        assert seconds(lambda: watch.pause(10.0)) < AT_ONCE


def test_many_names_can_be_watched_at_once(harness: Harness) -> None:
    names, other = [f"n/{number}" for number in range(300)], harness.other()
    for name in (names[0], names[150], names[-1]):
        with harness.engine.watch(names) as watch:
            other.write(name, pickled(1))
            assert seconds(lambda: watch.pause(10.0)) < AT_ONCE


def test_every_waiter_learns_of_every_turn_of_a_game_of_ping_pong(harness: Harness) -> None:
    """Wait, look, answer, many times: one missed change would stop it for a whole grace."""
    turns = scaled(60)

    def player(mine: int) -> Callable[[Engine], float]:
        def play(engine: Engine) -> float:
            begun = time.monotonic()
            with engine.watch(["ball"]) as watch:
                while True:
                    cell = engine.read("ball")
                    ball = loaded(cell.payload) if cell else 0
                    if ball >= turns:
                        return time.monotonic() - begun
                    if ball % 3 == mine:
                        engine.write("ball", pickled(ball + 1))
                    else:
                        watch.pause(None)

        return play

    took = harness.crowd([player(0), player(1), player(2)])
    assert max(took) < 0.05 * turns * slack(harness)


def test_waiters_of_one_name_are_all_woken(harness: Harness) -> None:
    def wait(engine: Engine) -> float:
        with engine.watch(["go"]) as watch:
            while engine.read("go") is None:
                watch.pause(None)
        return time.time()

    def go(engine: Engine) -> float:
        time.sleep(0.1)
        engine.write("go", pickled(1))
        return time.time()

    *woken, written = harness.crowd([wait] * 5 + [go])
    assert max(woken) - written < 0.4 * slack(harness)  # less than a grace: nobody only found it by looking again


def test_what_other_programs_do_ends_a_pause_within_the_grace(disk: DirectoryHarness) -> None:
    (disk.root / "a").write_bytes(pickled(1))
    with disk.engine.watch(["a"]) as watch:
        assert seconds(lambda: watch.pause(None)) < disk.engine.grace + AT_ONCE
