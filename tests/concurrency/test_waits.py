"""Whoever waits is woken when it happens, by events and by polling alike, and no wake-up is lost.

psync looks again by itself now and then (`GRACE_S`), which would hide a lost wake-up: where that matters it is made so
long that a lost one fails the test.
"""

from __future__ import annotations

import os
import pickle
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from psync import DirectoryEngine, PickleShareDB, gethashfile
from psync.engine.directory.layout import WAITER_SLOTS
from psync.engine.directory.notify import wakeup
from psync.errors import WaitTimeout
from tests.concurrency.simultaneous import FORK, end, together
from tests.support import files, scaled

Wakeups = Literal["inotify", "poll"]
both_ways = pytest.mark.parametrize("wakeups", ["inotify", "poll"])

PROMPT = 2.0
"""Seconds: generous, for a busy machine; far below the 10 that the waiters here would wait."""


@pytest.fixture
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter that is not woken sleeps on: for longer than any test here has patience."""
    monkeypatch.setattr(wakeup, "GRACE_S", 300.0)


Wait = Callable[[PickleShareDB], Any]
Change = Callable[[PickleShareDB], Any]


def woken(root: Path, wakeups: Wakeups, waits: list[Wait], change: Change) -> list[Any]:
    """Start a process for each wait; when all have begun, `change`. What each wait returned, if it did so in time."""

    ready = FORK.Semaphore(0)

    def wait(wait: Wait) -> tuple[Any, float]:
        with PickleShareDB(root, wakeups=wakeups) as db:
            ready.release()
            return wait(db), time.monotonic()

    def bring_about() -> float:
        with PickleShareDB(root, wakeups=wakeups) as db:
            for _ in waits:
                ready.acquire()
            time.sleep(0.1)  # in which they fall asleep
            begin = time.monotonic()
            change(db)
        return begin

    *answers, changed = together([*[partial(wait, one) for one in waits], bring_about], patience=40)
    for _, at in answers:
        assert changed <= at < changed + PROMPT
    return [value for value, _ in answers]


# -- what wakes whom ---------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("verb", ["set", "add", "setdefault", "modify"])
def test_waitget_wakes_in_another_process(root: Path, wakeups: Wakeups, verb: str, no_second_look: None) -> None:
    changes: dict[str, Change] = {
        "set": lambda db: db.__setitem__("a/key", 7),
        "add": lambda db: db.add("a/key", 7),
        "setdefault": lambda db: db.setdefault("a/key", 7),
        "modify": lambda db: db.modify("a/key", lambda old: old + 1, default=6),
    }
    assert woken(root, wakeups, [lambda db: db.waitget("a/key", 10)], changes[verb]) == [7]


@both_ways
def test_waitget_takes_none_and_false_for_values(root: Path, wakeups: Wakeups, no_second_look: None) -> None:
    waits: list[Wait] = [lambda db: db.waitget("none", 10), lambda db: db.waitget("false", 10)]
    assert woken(root, wakeups, waits, lambda db: db.update(none=None, false=False)) == [None, False]


@both_ways
def test_waitany_gives_the_key_that_came(root: Path, wakeups: Wakeups, no_second_look: None) -> None:
    keys = [f"key {number}" for number in range(8)]
    wait: Wait = lambda db: db.waitany(keys, 10)  # noqa: E731
    assert woken(root, wakeups, [wait, wait], lambda db: db.__setitem__("key 5", "five")) == [("key 5", "five")] * 2


@both_ways
@pytest.mark.parametrize("verb", ["hset", "hadd", "hupdate"])
def test_hwait_wakes_in_another_process(root: Path, wakeups: Wakeups, verb: str, no_second_look: None) -> None:
    changes: dict[str, Change] = {
        "hset": lambda db: db.hset("category", "key", 7),
        "hadd": lambda db: db.hadd("category", "key", 7),
        "hupdate": lambda db: db.hupdate("category", {"key": 7, **{number: number for number in range(20)}}),
    }
    assert woken(root, wakeups, [lambda db: db.hwait("category", "key", 10)], changes[verb]) == [7]


def test_hwait_finds_what_was_compressed(root: Path) -> None:
    with PickleShareDB(root) as db:
        db.hset("category", "key", 7)
        db.hcompress("category")
        assert db.hwait("category", "key", 0) == 7


@both_ways
@pytest.mark.parametrize("verb", ["del", "pop", "popitem", "clear"])
def test_waitgone_wakes_in_another_process(root: Path, wakeups: Wakeups, verb: str, no_second_look: None) -> None:
    changes: dict[str, Change] = {
        "del": lambda db: db.__delitem__("key"),
        "pop": lambda db: db.pop("key"),
        "popitem": lambda db: db.popitem(),
        "clear": lambda db: db.clear(),
    }
    with PickleShareDB(root) as db:
        db["key"] = 1
    assert woken(root, wakeups, [lambda db: db.waitgone("key", 10)], changes[verb]) == [None]


@both_ways
def test_who_was_woken_in_vain_is_woken_again(root: Path, wakeups: Wakeups, no_second_look: None) -> None:
    neighbours = [f"item {number}" for number in range(2_000)]
    neighbours = [key for key in neighbours if gethashfile(key) == gethashfile("item")]
    assert len(neighbours) > 1

    def change(db: PickleShareDB) -> None:
        for number, neighbour in enumerate(neighbours[:3]):
            db["key"] = number
            db.hset("category", neighbour, number)
            time.sleep(0.05)
        del db["key"]
        db.hset("category", "item", 1)

    with PickleShareDB(root) as db:
        db["key"] = "first"
    waits: list[Wait] = [lambda db: db.waitgone("key", 10), lambda db: db.hwait("category", "item", 10)]
    assert woken(root, wakeups, waits, change) == [None, 1]


@files
def test_a_value_that_a_foreign_program_put_there_is_found(root: Path) -> None:
    """A plain pickle, renamed into place: nobody announces it."""

    def rename(db: PickleShareDB) -> None:
        (root / "new").write_bytes(pickle.dumps(["foreign"], protocol=2))
        os.rename(root / "new", root / "key")

    for wakeups in ("inotify", "poll"):
        assert woken(root, wakeups, [lambda db: db.waitget("key", 10)], rename) == [["foreign"]]
        (root / "key").unlink()


# -- what is not there in time -----------------------------------------------------------------

WAITS = pytest.mark.parametrize(
    "wait",
    [
        lambda db, seconds: db.waitget("key", seconds),
        lambda db, seconds: db.waitany(["key", "another"], seconds),
        lambda db, seconds: db.hwait("category", "key", seconds),
        lambda db, seconds: db.waitgone("there", seconds),
    ],
    ids=["waitget", "waitany", "hwait", "waitgone"],
)


@both_ways
@WAITS
def test_a_deadline_raises_an_error_that_is_a_key_error_and_a_timeout(
    root: Path, wakeups: Wakeups, wait: Callable[[PickleShareDB, float], Any]
) -> None:
    with PickleShareDB(root, wakeups=wakeups) as db:
        db["there"] = 1
        for seconds in (0, 0.2):
            begin = time.monotonic()
            with pytest.raises(WaitTimeout) as caught:
                wait(db, seconds)
            assert seconds <= time.monotonic() - begin < seconds + 1
            assert isinstance(caught.value, KeyError) and isinstance(caught.value, TimeoutError)
            assert caught.value.waited >= seconds


@WAITS
def test_changes_of_other_keys_do_not_move_a_deadline(root: Path, wait: Callable[[PickleShareDB, float], Any]) -> None:
    stop = threading.Event()
    with PickleShareDB(root) as db, ThreadPoolExecutor(1) as pool:
        db["there"] = 1

        def disturb() -> None:
            for number in range(1_000_000):
                if stop.is_set():
                    return
                db[f"other/{number % 300}"] = number
                db["there"] = number
                db.hset("category", number % 300, number)

        busy = pool.submit(disturb)
        try:
            begin = time.monotonic()
            with pytest.raises(WaitTimeout):
                wait(db, 0.5)
            assert 0.5 <= time.monotonic() - begin < 2
        finally:
            stop.set()
        busy.result()


# -- many at once ------------------------------------------------------------------------------


@both_ways
def test_sixteen_waiters_on_sixteen_keys_are_all_woken(root: Path, wakeups: Wakeups, no_second_look: None) -> None:
    waits: list[Wait] = [lambda db, key=f"key/{number}": db.waitget(key, 10) for number in range(16)]  # type: ignore[misc]

    def set_all(db: PickleShareDB) -> None:
        for number in range(16):
            db[f"key/{number}"] = number

    assert woken(root, wakeups, waits, set_all) == list(range(16))


@both_ways
def test_sixteen_waiters_on_one_key_are_all_woken(root: Path, wakeups: Wakeups, no_second_look: None) -> None:
    assert (
        woken(root, wakeups, [lambda db: db.waitget("key", 10)] * 16, lambda db: db.__setitem__("key", 1)) == [1] * 16
    )


@both_ways
def test_sixteen_threads_that_wait_with_one_handle_are_all_woken(
    root: Path, wakeups: Wakeups, no_second_look: None
) -> None:
    with PickleShareDB(root, wakeups=wakeups) as db, ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(db.waitget, f"key/{number % 8}", 10) for number in range(16)]
        time.sleep(0.2)
        for number in range(8):
            db[f"key/{number}"] = number
        assert [one.result(PROMPT) for one in waiting] == [*range(8), *range(8)]


JOBS = ".psync/queue/jobs"


def test_of_many_who_wait_to_take_each_record_wakes_one(root: Path, no_second_look: None) -> None:
    crowd = 6
    ready = FORK.Semaphore(0)

    def take() -> tuple[int, int]:
        engine = DirectoryEngine(root)
        pauses = 0
        with engine.watch([], taking=JOBS) as watch:
            while not engine.log(JOBS).take(engine.owner()):
                ready.release()
                watch.pause(None)
                pauses += 1
        engine.close()
        return os.getpid() % WAITER_SLOTS, pauses

    def put() -> None:
        engine = DirectoryEngine(root)
        for _ in range(crowd):
            ready.acquire()
        for _ in range(crowd):
            engine.log(JOBS).append([b"a record"])
        engine.close()

    *woken, _ = together([*[take] * crowd, put], patience=40)
    slots = Counter(slot for slot, _ in woken)
    assert [pauses for slot, pauses in woken if slots[slot] == 1] == [1] * list(slots.values()).count(1)


class Sleeper:
    """A process that takes one record, and sleeps until there is one."""

    def __init__(self, root: Path) -> None:
        self.asleep = FORK.Event()
        self._root = root
        self._pid = FORK.Value("i", 0)

    def __call__(self) -> None:
        self._pid.value = os.getpid()
        engine = DirectoryEngine(self._root)
        with engine.watch([], taking=JOBS) as watch:
            while not engine.log(JOBS).take(engine.owner()):
                self.asleep.set()
                watch.pause(None)
        engine.close()

    def shares_its_seat(self) -> bool:
        """With the process that asks. For when it is asleep."""
        return os.getpid() % WAITER_SLOTS == self._pid.value % WAITER_SLOTS


def test_a_record_wakes_who_sleeps_and_not_who_has_found_something(root: Path, no_second_look: None) -> None:
    crowd, sleep, gone = 5, Sleeper(root), FORK.Semaphore(0)

    def leave() -> None:
        sleep.asleep.wait()
        engine = DirectoryEngine(root)
        if not sleep.shares_its_seat():
            with engine.watch([], taking=JOBS):
                """What was looked for is there."""
        engine.close()
        gone.release()

    def put() -> None:
        for _ in range(crowd):
            gone.acquire()
        engine = DirectoryEngine(root)
        engine.log(JOBS).append([b"a record"])
        engine.close()

    together([*[leave] * crowd, sleep, put], patience=40)


def test_a_call_to_one_who_has_found_something_goes_on_to_one_who_sleeps(root: Path, no_second_look: None) -> None:
    sleep, looking, put_in = Sleeper(root), FORK.Event(), FORK.Event()

    def find() -> None:
        sleep.asleep.wait()
        engine = DirectoryEngine(root)
        if not sleep.shares_its_seat():
            with engine.watch([], taking=JOBS):
                looking.set()
                put_in.wait()
        looking.set()
        engine.close()

    def put() -> None:
        looking.wait()
        engine = DirectoryEngine(root)
        engine.log(JOBS).append([b"a record"])
        engine.close()
        put_in.set()

    together([find, sleep, put], patience=40)


@both_ways
def test_a_killed_waiter_does_not_keep_the_others_from_waking(
    root: Path, wakeups: Wakeups, no_second_look: None
) -> None:
    def wait_in_vain() -> None:
        PickleShareDB(root, wakeups=wakeups).waitget("key", 10)

    killed = [FORK.Process(target=wait_in_vain) for _ in range(3)]
    for process in killed:
        process.start()

    def kill_then_set(db: PickleShareDB) -> None:
        for process in killed:
            os.kill(process.pid or 0, 9)
        db["key"] = 1

    try:
        assert woken(root, wakeups, [lambda db: db.waitget("key", 10)] * 3, kill_then_set) == [1] * 3
    finally:
        for process in killed:
            end(process)


# -- no wake-up is lost ------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("pairs", [1, 3])
def test_no_wake_up_is_lost_in_hundreds_of_rounds_of_ping_pong(
    root: Path, wakeups: Wakeups, pairs: int, no_second_look: None
) -> None:
    rounds = scaled(300) // pairs

    def play(pair: int, mine: str, theirs: str, serve: bool) -> list[float]:
        """Seconds that each answer took."""
        took = []
        with PickleShareDB(root, wakeups=wakeups) as db:
            for number in range(rounds):
                if serve:
                    db[f"{mine}/{pair}/{number}"] = number
                begin = time.monotonic()
                assert db.waitget(f"{theirs}/{pair}/{number}", 20) == number
                took.append(time.monotonic() - begin)
                if not serve:
                    db[f"{mine}/{pair}/{number}"] = number
        return took

    players = [
        partial(play, pair, *names)
        for pair in range(pairs)
        for names in (("ping", "pong", True), ("pong", "ping", False))
    ]
    took = [seconds for times in together(players, patience=50) for seconds in times]
    assert len(took) == 2 * rounds * pairs
    assert max(took) < PROMPT
    assert statistics.median(took) < 0.2


@both_ways
def test_no_wake_up_is_lost_when_one_key_comes_and_goes(root: Path, wakeups: Wakeups, no_second_look: None) -> None:
    """One letter box for two: it is filled when it is empty, and emptied when it is full."""
    rounds = scaled(150)

    def fill() -> None:
        with PickleShareDB(root, wakeups=wakeups) as db:
            for number in range(rounds):
                db.waitgone("box", 20)
                assert db.add("box", number)

    def empty() -> list[int]:
        found = []
        with PickleShareDB(root, wakeups=wakeups) as db:
            for _ in range(rounds):
                found.append(db.waitget("box", 20))
                del db["box"]
        return found

    assert together([fill, empty], patience=50)[1] == list(range(rounds))
