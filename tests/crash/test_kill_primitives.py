"""kill -9 at every system call of every primitive: before or after, nothing unreadable, and everybody else goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import (
    Barrier,
    BoundedSemaphore,
    BrokenBarrierError,
    Condition,
    Counter,
    DoubleBarrier,
    Election,
    Event,
    Group,
    Latch,
    Lock,
    ReadWriteLock,
    RLock,
    Semaphore,
)
from psync.engine import Sharing
from psync.engine.directory import DirectoryEngine
from tests.crash.harness import Operation, kill_everywhere
from tests.crash.pairs import End, Pair, Side, Stage, die_everywhere
from tests.crash.primitives import on, warm
from tests.support import SCALE

pytestmark = pytest.mark.crash
STRIDE = max(1, round(4 / SCALE))
SOON = 5.0

# -- alone -----------------------------------------------------------------------------------------


def take_and_give(lock: Any) -> None:
    """By somebody new: nobody holds it who is dead."""
    assert lock.acquire(timeout=SOON)
    lock.release()


def can_be_written(view: Any) -> bool:
    writer = view._lock.writer
    had = writer.acquire(timeout=0)
    writer.release()
    return bool(had)


def free_permits(slots: Any) -> int:
    """How many can be had; all of them go back."""
    had = 0
    while slots.acquire(blocking=False):
        had += 1
    if had:
        slots.release(had)
    return had


def raise_and_lower(event: Any) -> None:
    was = event.is_set()
    event.set()
    assert event.wait(timeout=SOON)
    if not was:
        event.clear()


def lead_and_resign(election: Any) -> None:
    assert election.campaign(timeout=SOON)
    election.resign()


def join_and_leave(crew: Any) -> None:
    crew.join()
    assert len(crew.wait_for(1, timeout=SOON)) == 1
    crew.leave()


def count_up_and_down(counter: Any) -> None:
    counter.add(1)
    counter.add(-1)


def meet_alone(barrier: Any) -> None:
    assert barrier.wait(timeout=SOON) == 0


def step_alone(step: Any) -> None:
    step.enter(timeout=SOON)
    step.leave(timeout=SOON)


def notify_and_wait(condition: Any) -> None:
    with condition:
        condition.notify_all()
        assert not condition.wait(timeout=0)


KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], object]]] = {
    "lock": (lambda db: Lock(db, "x"), lambda lock: lock.locked(), take_and_give),
    "rlock": (lambda db: RLock(db, "x"), lambda lock: lock.locked(), take_and_give),
    "semaphore": (lambda db: Semaphore(db, "x", 2), free_permits, take_and_give),
    "bounded semaphore": (lambda db: BoundedSemaphore(db, "x", 2), free_permits, take_and_give),
    "reader": (lambda db: ReadWriteLock(db, "x").reader, can_be_written, take_and_give),
    "writer": (lambda db: ReadWriteLock(db, "x").writer, can_be_written, take_and_give),
    "barrier": (lambda db: Barrier(db, "x", 1), lambda barrier: barrier.broken, meet_alone),
    "barrier with an action": (lambda db: Barrier(db, "x", 1, int), lambda barrier: barrier.broken, meet_alone),
    "double barrier": (lambda db: DoubleBarrier(db, "x", 1), lambda step: step.inside, step_alone),
    "event": (lambda db: Event(db, "x"), lambda event: event.is_set(), raise_and_lower),
    "counter": (lambda db: Counter(db, "x"), lambda counter: counter.value, count_up_and_down),
    "latch": (lambda db: Latch(db, "x", 1), lambda latch: latch.count, lambda latch: latch.count),
    "condition": (lambda db: Condition(db, "x"), lambda condition: condition.locked(), notify_and_wait),
    "election": (lambda db: Election(db, "x"), lambda election: election.leader(), lead_and_resign),
    "group": (lambda db: Group(db, "x"), lambda crew: crew.members(), join_and_leave),
}
"""How it is made, what somebody new sees of it, and what that one can do and undo."""


def of(
    kind: str, verb: str, act: Callable[[Any], object], *, ready: Any = None, prepare: Any = None, lasts: bool = False
) -> Operation:
    """`lasts`: what was done is seen when the one who did it is dead."""
    make, look, use = KINDS[kind]

    def made(db: Any) -> Any:
        handle = make(db)
        if ready is not None:
            ready(handle)
        return handle

    return Operation(
        f"{verb} of a {kind}",
        act,
        prepare=lambda db: prepare and prepare(make(db)),
        look=lambda db: look(make(db)),
        ready=made,
        use=lambda db: use(make(db)),
        silent=not lasts,
    )


ALONE = [
    of("lock", "acquire", Lock.acquire),
    of("lock", "release", Lock.release, ready=Lock.acquire),
    of("rlock", "acquire and release", take_and_give),
    of("semaphore", "acquire", Semaphore.acquire),
    of("semaphore", "release, as a signal,", Semaphore.release, lasts=True),
    of("bounded semaphore", "release", BoundedSemaphore.release, ready=BoundedSemaphore.acquire),
    of("reader", "release", lambda reader: reader.release(), ready=lambda reader: reader.acquire()),
    of("writer", "acquire", lambda writer: writer.acquire()),
    of("barrier", "wait", Barrier.wait),
    of("barrier", "abort", Barrier.abort),
    of("barrier", "reset", Barrier.reset, ready=Barrier.abort),
    of("barrier with an action", "wait", Barrier.wait),
    of("double barrier", "enter and leave", step_alone),
    of("event", "set", Event.set, lasts=True),
    of("event", "clear", Event.clear, prepare=Event.set, lasts=True),
    of("counter", "first add", Counter.add, lasts=True),
    of("counter", "add", Counter.add, prepare=Counter.add, lasts=True),
    of("latch", "count down", Latch.count_down, lasts=True),
    of("condition", "notify", notify_and_wait),
    of("election", "campaign", Election.campaign),
    of("election", "resign", Election.resign, ready=Election.campaign),
    of("group", "join", Group.join),
    of("group", "leave", Group.leave, ready=Group.join),
]


@pytest.mark.parametrize("operation", ALONE, ids=lambda operation: operation.name)
def test_a_kill_leaves_the_state_before_or_after_and_everything_usable(operation: Operation, root: Path) -> None:
    seen = kill_everywhere(operation, root, stride=STRIDE)
    assert seen.points
    if not operation.silent and STRIDE == 1:
        assert seen.before and seen.after


# -- beside another --------------------------------------------------------------------------------


def meets_and_dies(sharing: Sharing, met: int, *, last: bool) -> Side:
    """Has met the other one, so that it is expected, and after two times has a slot; comes again."""

    def ready(stage: Stage) -> Barrier:
        barrier = warm(Barrier(DirectoryEngine(stage.path, sharing=sharing), "x", 2))
        for _ in range(met):
            barrier.wait()
        while last and not barrier.n_waiting:
            time.sleep(0.001)
        return barrier

    return Side(ready, Barrier.wait)


def meets_once_more(sharing: Sharing, met: int, *, first: bool) -> Side:
    def meet(barrier: Barrier) -> Any:
        for _ in range(met):
            barrier.wait()
        try:
            if not first:
                time.sleep(0.05)
            return barrier.wait(timeout=30)
        except BrokenBarrierError as error:
            return str(error)

    return Side(lambda stage: warm(Barrier(DirectoryEngine(stage.path, sharing=sharing), "x", 2)), meet)


def _passed_or_told(end: End) -> bool:
    """The other one passed, or was told who is gone."""
    mine, theirs = end.said
    told = isinstance(theirs, str) and f" on {socket.gethostname()}, since " in theirs and "a party ended" in theirs
    return told if theirs not in (0, 1) else mine in (None, 1 - theirs)


def _waits_for_news(condition: Condition) -> bool:
    with condition:
        condition.wait(timeout=0.1)
    return True


def _notifies(condition: Condition) -> None:
    with condition:
        condition.notify()


def _is_free(end: End) -> bool:
    condition = Condition(end.path, "x")
    assert condition.acquire(timeout=SOON)
    condition.notify()  # passes over the dead
    condition.release()
    return end.said[1] is True and condition.statistics().waiting == ()


def _takes_for_a_while(lock: Lock) -> bool:
    had = lock.acquire(timeout=30)
    lock.release()
    return had


_waits, _notifies_one = on(Condition, _waits_for_news), on(Condition, _notifies)
_holds = on(Lock, _takes_for_a_while)
BESIDE = [
    Pair("one that notifies beside one that waits", _notifies_one, _waits, _is_free),
    Pair("one that waits beside one that waits", _waits, _waits, _is_free),
    Pair("a holder beside one that waits", _holds, _holds, lambda end: end.said[1]),
]


@pytest.mark.parametrize("pair", BESIDE, ids=lambda pair: pair.name)
def test_who_is_killed_at_any_call_keeps_nobody_waiting(pair: Pair, root: Path) -> None:
    assert die_everywhere(pair, root, orders=[True])


@pytest.mark.parametrize("last", [True, False], ids=["comes last", "comes first"])
@pytest.mark.parametrize(("sharing", "met"), [("host", 1), ("host", 2), ("network", 2)])
def test_a_party_that_is_killed_at_any_call_lets_the_other_pass_or_learn_of_it(
    last: bool, sharing: Sharing, met: int, root: Path
) -> None:
    dies, lives = meets_and_dies(sharing, met, last=last), meets_once_more(sharing, met, first=last)
    pair = Pair("a party", dies, lives, _passed_or_told)
    assert die_everywhere(pair, root, orders=[True])
