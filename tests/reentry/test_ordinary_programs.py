"""What programs do: a signal's handler, a finaliser or a callback calls psync while the same thread is inside psync."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import psync
from tests.reentry.operations import PLACES, WITHOUT_RESULT, World, perform, store_of
from tests.reentry.test_pairs import no_hang  # noqa: F401 (a fixture)
from tests.support import ENGINE, scaled

RATE_HZ = 300


@pytest.fixture(params=[ENGINE] if ENGINE else PLACES)
def db(request: pytest.FixtureRequest, root: Path | str) -> Iterator[psync.PickleShareDB]:
    store = psync.PickleShareDB(root) if ENGINE else store_of(request.param, root)
    yield store
    store.close()


@contextmanager
def handling(handler: Callable[[], object], rate: float = RATE_HZ) -> Iterator[None]:
    """Call `handler` at this rate, wherever the main thread is."""
    over = False

    def alarm(number: int, frame: Any) -> None:
        handler()
        if not over:  # a slow handler must not interrupt itself, again and again
            signal.setitimer(signal.ITIMER_REAL, 1 / rate)

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 1 / rate)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("waits", [False, True], ids=["looks", "waits"])
def test_a_loop_ends_when_a_handler_sets_the_event_that_it_looks_at(db: psync.PickleShareDB, waits: bool) -> None:
    for round_ in range(scaled(5)):
        stop = psync.Event(db, f"stop{round_}")
        with handling(stop.set, 100):
            while not (stop.wait(0.001) if waits else stop.is_set()):
                pass
        assert stop.is_set()


@pytest.mark.parametrize("name", WITHOUT_RESULT)
def test_no_call_of_a_handler_is_lost_or_doubled(db: psync.PickleShareDB, name: str) -> None:
    world = World(db)
    with handling(lambda: perform(world, name)):
        end = time.monotonic() + 0.15 * scaled(1)
        while time.monotonic() < end:
            for _ in range(4):
                perform(world, name)
            world.fill()
    world.check()
    world.check_queue()


def test_a_message_that_a_handler_posts_wakes_the_wait_that_it_interrupts(db: psync.PickleShareDB) -> None:
    box = psync.Mailbox(db, "box")
    count = 0

    def handler() -> None:
        nonlocal count
        count += 1
        box.post(count, "here")

    with handling(handler):
        assert [box.get(number, timeout=30) for number in range(1, 20)] == ["here"] * 19


def test_a_finaliser_that_the_collector_runs_anywhere_takes_effect(db: psync.PickleShareDB) -> None:
    gone = psync.Latch(db, "gone", 1_000_000)
    made = 0

    class Temporary:
        """In a circle, so that only the collector finds it."""

        def __init__(self) -> None:
            nonlocal made
            self.me = self
            made += 1

        def __del__(self) -> None:
            gone.count_down()
            db["last"] = made
            db.hset("finalised", made, made)

    before = gc.get_threshold()
    gc.set_threshold(20, 2, 2)  # at every few allocations
    try:
        for number in range(100):
            Temporary()
            db.hset("finalised", f"n{number}", number)
            db["last"] = number
            gone.count_down()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert gone.count == 1_000_000 - 100 - made
    assert {key for key in db.hdict("finalised") if isinstance(key, str)} == {f"n{number}" for number in range(100)}


def test_a_callback_of_a_weak_reference_takes_effect(db: psync.PickleShareDB) -> None:
    class Thing:
        pass

    event = psync.Event(db, "gone")
    thing = Thing()
    reference = weakref.ref(thing, lambda _: event.set())

    def forget(value: int) -> int:
        nonlocal thing
        del thing
        return value + 1

    db["n"] = 1
    assert db.modify("n", forget) == 2 and reference() is None and event.is_set()


def test_calls_of_one_handler_take_effect_in_their_order(db: psync.PickleShareDB) -> None:
    seen: list[Any] = []
    done = psync.Event(db, "done")
    db["value"] = 0

    def handler() -> None:
        db["value"] = 1
        done.set()

    def interrupt(frame: Any, event: str, argument: Any) -> None:
        if event == "c_call" and not seen and argument.__name__ in ("flock", "pwrite"):
            seen.append(argument)
            handler()

    sys.setprofile(interrupt)
    try:
        db["value"] = 2
    finally:
        sys.setprofile(None)
    assert not seen or done.is_set()


VERBS: dict[str, Callable[[psync.PickleShareDB, str], Any]] = {
    "assign": lambda db, key: db.__setitem__(key, 0),
    "del": lambda db, key: db.__delitem__(key),
    "pop": lambda db, key: db.pop(key, None),
    "setdefault": lambda db, key: db.setdefault(key, 0),
    "add": lambda db, key: db.add(key, 0),
    "update": lambda db, key: db.update({key: 0}),
    "clear": lambda db, key: db.clear(),
    "modify": lambda db, key: db.modify(key, lambda old: 0, default=0),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("other", [False, True], ids=["same handle", "other handle"])
@pytest.mark.parametrize("there", [True, False], ids=["there", "new"])
def test_a_verb_on_a_key_in_the_function_that_modifies_it_is_refused_at_once(
    db: psync.PickleShareDB, verb: str, other: bool, there: bool
) -> None:
    if not there and verb in ("del", "pop", "clear"):
        pytest.skip("there is nothing to remove")
    second = psync.PickleShareDB(db.engine) if other else db
    if there:
        db["k"] = 1
    db["other"] = 1
    refusals: list[str] = []

    def function(value: int) -> int:
        assert second.get("k") == (1 if there else None)
        second["another"] = second["other"] + 1
        try:
            VERBS[verb](second, "k")
        except RuntimeError as error:
            assert isinstance(error, psync.ReentrantCall)
            refusals.append(str(error))
        return value + 1

    assert db.modify("k", function, default=1) == 2
    assert db["k"] == 2 and db["other"] == 1 and db["another"] == 2
    assert len(refusals) == 1 and "k" in refusals[0] and "return the value instead" in refusals[0]


def test_the_error_names_what_is_in_hand_and_where_the_interrupted_call_is(db: psync.PickleShareDB) -> None:
    counter = psync.Counter(db, "visitors")
    errors: list[psync.ReentrantCall] = []

    def handler() -> None:
        try:
            counter.add()
        except psync.ReentrantCall as error:
            errors.append(error)

    if ENGINE:
        pytest.skip("a register on a server is changed without a lock: nothing is ever in hand")
    end = time.monotonic() + 30
    with handling(handler, 1000):
        while not errors and time.monotonic() < end:
            counter.add()
    assert "visitors" in errors[0].what and Path(__file__).name in errors[0].where
    assert errors[0].what in str(errors[0]) and errors[0].where in str(errors[0])


def test_a_handler_submits_and_cancels_calls_and_asks_for_them(db: psync.PickleShareDB) -> None:
    if db.engine.format not in (None, "pickle"):
        pytest.skip("such a store has no calls")
    executor = psync.Executor(db, max_workers=0)
    mine: list[Any] = []
    cancelled: list[Any] = []

    def handler() -> None:
        try:
            mine.append(executor.submit(abs, -len(mine)))
            if len(mine) % 3 == 0 and mine[-1].cancel():
                cancelled.append(mine.pop())
            assert len(mine) < 2 or not mine[-2].done()
        except psync.ReentrantCall:
            pass  # the queue is being changed

    futures = []
    end = time.monotonic() + 0.4 * scaled(1)
    with handling(handler):
        while time.monotonic() < end:
            futures.append(executor.submit(pow, 2, len(futures)))
    psync.Worker(executor.queue).run(drain=True)
    assert [future.result(30) for future in futures] == [2**number for number in range(len(futures))]
    assert len(mine) > 1 and all(future.result(30) >= 0 for future in mine)
    assert all(future.cancelled() for future in cancelled)
    executor.shutdown()


def test_another_thread_waits_as_ever(db: psync.PickleShareDB) -> None:
    db["k"] = 0
    begun, go = threading.Event(), threading.Event()

    def slow(value: int) -> int:
        begun.set()
        go.wait(20)
        return value + 1

    first = threading.Thread(target=db.modify, args=("k", slow))
    first.start()
    begun.wait(20)
    second = threading.Thread(target=db.modify, args=("k", lambda value: value + 1))
    second.start()
    time.sleep(0.05)
    assert second.is_alive()
    go.set()
    first.join()
    second.join()
    assert db["k"] == 2
