"""Wrong arguments and wrong order are refused with the value in the text, before anything is written."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Counter,
    DoubleBarrier,
    Election,
    Event,
    Group,
    InvalidKey,
    Latch,
    Lock,
    ReadWriteLock,
    RLock,
    Semaphore,
)
from psync.engine import open_engine
from tests.sync.kinds import everything_in
from tests.sync.other_process import eventually

MAKERS: dict[str, Callable[[Any, Any], Any]] = {
    "Barrier": lambda db, name: Barrier(db, name, 2),
    "DoubleBarrier": lambda db, name: DoubleBarrier(db, name, 2),
    "Latch": lambda db, name: Latch(db, name, 2),
    "Lock": Lock,
    "RLock": RLock,
    "ReadWriteLock": ReadWriteLock,
    "Semaphore": Semaphore,
    "BoundedSemaphore": BoundedSemaphore,
    "Event": Event,
    "Condition": Condition,
    "Counter": Counter,
    "Election": Election,
    "Group": Group,
}
BAD_NAMES = ["", "/x", "x/", "a//b", "../x", "a/../b", ".", "a\0b", "x" * 256, 5, None, b"x", ".psync/x"]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_that_can_be_no_name_is_refused_and_nothing_is_written(kind: str, root: Path) -> None:
    engine = open_engine(root)
    before = everything_in(root)
    for name in BAD_NAMES:
        with pytest.raises(InvalidKey):
            MAKERS[kind](engine, name)
    assert everything_in(root) == before


@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_may_be_anything_that_a_key_may_be(kind: str, root: Path) -> None:
    for name in ("with space", "a/b/c", "größe", "x" * 255, "100%", "a.b", "~", "lock%2Fx"):
        assert MAKERS[kind](root, name).name == name
        assert repr(name) in repr(MAKERS[kind](root, name))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_with_slashes_must_fit_into_one_file_name(kind: str, root: Path) -> None:
    with pytest.raises(InvalidKey, match="a slash counting 3; the longest is 255"):
        MAKERS[kind](root, "x" * 200 + "/" + "y" * 60)


WRONG: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    "a barrier of nobody": (lambda db: Barrier(db, "x", 0), ValueError, "1 party or more, not 0"),
    "a barrier of half a party": (lambda db: Barrier(db, "x", 1.5), ValueError, r"not 1\.5"),  # type: ignore[arg-type]
    "a double barrier of nobody": (lambda db: DoubleBarrier(db, "x", -1), ValueError, "not -1"),
    "a latch below 0": (lambda db: Latch(db, "x", -1), ValueError, "not negative, not -1"),
    "a latch of text": (lambda db: Latch(db, "x", "2"), ValueError, "not '2'"),  # type: ignore[arg-type]
    "no step": (lambda db: Latch(db, "x", 1).count_down(0), ValueError, "1 or more, not 0"),
    "a semaphore below 0": (lambda db: Semaphore(db, "x", -1), ValueError, "0 or more permits, not -1"),
    "a bounded one below 0": (lambda db: BoundedSemaphore(db, "x", -1), ValueError, "not -1"),
    "a counter of text": (lambda db: Counter(db, "x", "1"), TypeError, "not '1'"),  # type: ignore[arg-type]
    "half a count": (lambda db: Counter(db, "x").add(0.5), TypeError, r"not 0\.5"),  # type: ignore[arg-type]
    "a lock for less than no time": (lambda db: Lock(db, "x").acquire(timeout=-5), ValueError, "-5"),
    "a lock for not a number": (lambda db: Lock(db, "x").acquire(timeout=math.nan), ValueError, "nan"),
    "a lock for too long": (lambda db: Lock(db, "x").acquire(timeout=1e20), OverflowError, "1e\\+20"),
    "a lock at once, in a second": (lambda db: Lock(db, "x").acquire(False, 1), ValueError, "non-blocking"),
    "an rlock for less than no time": (lambda db: RLock(db, "x").acquire(timeout=-5), ValueError, "-5"),
    "a reader for less than no time": (lambda db: ReadWriteLock(db, "x").reader.acquire(timeout=-5), ValueError, "-5"),
    "a writer at once, in a second": (lambda db: ReadWriteLock(db, "x").writer.acquire(False, 1), ValueError, "non-bl"),
    "a seat for less than no time": (lambda db: Semaphore(db, "x").acquire(timeout=-5), ValueError, "-5"),
    "a lead for less than no time": (lambda db: Election(db, "x").campaign(timeout=-5), ValueError, "-5"),
    "no permit": (lambda db: Semaphore(db, "x").release(0), ValueError, "one or more"),
    "a condition on a lock of threads": (
        lambda db: Condition(db, "x", threading.Lock()),  # type: ignore[arg-type]
        TypeError,
        "a condition's lock is a Lock or RLock of psync's, not <unlocked _thread.lock",
    ),
}


@pytest.mark.parametrize(("wrong", "error", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_before_anything_is_written(
    root: Path, wrong: Callable[[Any], object], error: type[Exception], text: str
) -> None:
    engine = open_engine(root)
    before = everything_in(root)
    with pytest.raises(error, match=text):
        wrong(engine)
    assert everything_in(root) == before


OUT_OF_ORDER: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    "a permit too many": (lambda db: BoundedSemaphore(db, "x", 2).release(), ValueError, "it has 2 permits"),
    "a lock that nobody holds": (lambda db: Lock(db, "x").release(), RuntimeError, "not held"),
    "an rlock that nobody holds": (lambda db: RLock(db, "x").release(), RuntimeError, "'x': this thread does not hold"),
    "a reader that is not inside": (
        lambda db: ReadWriteLock(db, "x").reader.release(),
        RuntimeError,
        "'x' as a reader",
    ),
    "a writer that is not inside": (
        lambda db: ReadWriteLock(db, "x").writer.release(),
        RuntimeError,
        "'x' as a writer",
    ),
    "a lead that is another's": (lambda db: Election(db, "x").resign(), RuntimeError, "does not lead 'x'"),
    "a group one is not in": (lambda db: Group(db, "x").leave(), RuntimeError, "did not join the group 'x'"),
    "to wait without the lock": (lambda db: Condition(db, "x").wait(0), RuntimeError, "cannot wait on .* 'x'"),
    "to notify without the lock": (lambda db: Condition(db, "x").notify(), RuntimeError, "cannot notify on .* 'x'"),
    "to notify all without it": (lambda db: Condition(db, "x").notify_all(), RuntimeError, "its lock is not held here"),
}


@pytest.mark.parametrize(("wrong", "error", "text"), OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_what_comes_out_of_order_is_refused_and_says_why(
    root: Path, wrong: Callable[[Any], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        wrong(root)
    with pytest.raises(error, match=text):
        wrong(root)


def test_parties_that_want_another_number_are_told_so(root: Path) -> None:
    first = Barrier(root, "x", 2)
    thread = threading.Thread(target=first.wait)
    thread.start()
    try:
        eventually(lambda: first.n_waiting)
        with pytest.raises(ValueError, match="'x' is at work for 2 parties, not 3: use the same number everywhere"):
            Barrier(root, "x", 3).wait()
    finally:
        Barrier(root, "x", 2).wait()
        thread.join()
