"""What two processes may do to one primitive at the same time, as pairs; and how each pair may end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psync import (
    Condition,
    Counter,
    Election,
    Event,
    Group,
    Latch,
    Lock,
    ReadWriteLock,
    RLock,
    Semaphore,
)
from tests.crash.pairs import FOR_EVER, End, Pair, Side, Stage
from tests.support import SCALE

FROM_NOTHING = SCALE >= 5
"""Whether files are not there yet when a pair begins, nor is either of both known: many more calls."""


def warm(handle: Any) -> Any:
    """A handle whose files are there and open, of a process that is known there."""
    if not FROM_NOTHING:
        engine = getattr(handle, "engine", None) or handle._engine
        engine.owner()
        if hasattr(handle, "_shared"):
            handle._shared.change(lambda state: state)
        with engine.watch([".psync/nothing"]) as watch:
            watch.pause(0)
    return handle


def said(*possible: Any) -> Callable[[End], bool]:
    return lambda end: end.said in [list(one) for one in possible]


# -- nobody is inside beside another ---------------------------------------------------------------


def visits(me: int, make: Callable[[str], Any], *, warm: bool, timeout: float | None = None) -> Side:
    """Goes in, and out again; says whether it was alone."""

    def ready(stage: Stage) -> Any:
        handle = make(stage.path)
        if warm:
            handle.acquire()
            handle.release()
        return stage, handle

    def visit(found: tuple[Stage, Any]) -> bool:
        stage, handle = found
        assert handle.acquire(timeout=timeout)
        alone = stage.visit(me)
        handle.release()
        return alone

    return Side(ready, visit)


def two_visits(name: str, first: Callable[[str], Any], second: Callable[[str], Any], **terms: Any) -> Pair:
    return Pair(name, visits(0, first, **terms), visits(1, second, **terms), said((True, True)))


def new_lock(path: str) -> Lock:
    return Lock(path, "x")


def _seat(path: str) -> Semaphore:
    return Semaphore(path, "x")


def _reader(path: str) -> Any:
    return ReadWriteLock(path, "x").reader


def _writer(path: str) -> Any:
    return ReadWriteLock(path, "x").writer


EXCLUSION = [
    two_visits("a new lock beside itself", new_lock, new_lock, warm=False),
    two_visits("lock beside lock", new_lock, new_lock, warm=True),
    two_visits("lock beside lock, each for a limited time", new_lock, new_lock, warm=True, timeout=FOR_EVER),
    two_visits("rlock beside rlock", lambda path: RLock(path, "x"), lambda path: RLock(path, "x"), warm=True),
    two_visits("a new semaphore beside itself", _seat, _seat, warm=False),
    two_visits("semaphore beside semaphore", _seat, _seat, warm=True),
    two_visits("a reader beside a writer", _reader, _writer, warm=True),
    two_visits("a writer beside a writer", _writer, _writer, warm=True),
]

# -- who waits is woken ----------------------------------------------------------------------------


def holder(make: Callable[[str], Any]) -> Side:
    """Holds it before anything is watched, and lets go."""

    def ready(stage: Stage) -> Any:
        handle = make(stage.path)
        assert handle.acquire()
        return handle

    return Side(ready, lambda handle: handle.release())


def waits(make: Callable[[str], Any], **terms: Any) -> Side:
    def ready(stage: Stage) -> Any:
        handle = make(stage.path)
        warm(getattr(handle, "_lock", handle))
        return handle

    return Side(ready, lambda handle: handle.acquire(**terms))


def on(kind: Callable[..., Any], act: Callable[[Any], Any], *arguments: Any) -> Side:
    return Side(lambda stage: warm(kind(stage.path, "x", *arguments)), act)


def _leads(stage: Stage) -> Election:
    election = Election(stage.path, "x")
    assert election.campaign()
    return election


def _set_and_clear(event: Event) -> None:
    event.set()
    event.clear()


def _waits_and_tells_from_when_on(event: Event) -> tuple[bool, int]:
    """How often it had been raised at the first look of the wait."""
    looks: list[int] = []
    look = event._shared.look

    def noted() -> Any:
        flag = look()
        looks.append(flag.raised)
        return flag

    event._shared.look = noted  # type: ignore[method-assign]
    return event.wait(), looks[0]


def _no_pulse_is_missed(end: End) -> bool:
    """Who waits in vain has begun to wait after the pulse."""
    woken, raised_before = end.said[1]
    return woken is True and (raised_before == 2 or not end.rescued)


def _takes(stage: Stage) -> tuple[Condition, Counter]:
    condition, stock = warm(Condition(stage.path, "x")), warm(Counter(stage.path, "stock"))
    with condition:
        return condition, stock


def _take_one(found: tuple[Condition, Counter]) -> int:
    condition, stock = found
    with condition:
        condition.wait_for(lambda: stock.value)
        return stock.add(-1)


def _put_one(found: tuple[Condition, Counter]) -> int:
    condition, stock = found
    with condition:
        number = stock.add()
        condition.notify()
        return number


def _counts_then_waits(latch: Latch) -> int:
    left = latch.count_down()
    latch.wait()
    return left


def _numbers(end: End) -> bool:
    return (
        sorted(member.number for member in end.said) == [1, 2] and len(Group(end.path, "x").statistics().members) <= 2
    )


_acquires, _releases = on(Semaphore, Semaphore.acquire, 0), on(Semaphore, Semaphore.release, 0)
_campaigns, _resigns = on(Election, Election.campaign), Side(_leads, Election.resign)
_sets, _awaits = on(Event, Event.set), on(Event, Event.wait)
_adds, _awaits_one = on(Counter, Counter.add), on(Counter, lambda counter: counter.wait_for(1))
_opens, _passes = on(Latch, Latch.count_down, 1), on(Latch, Latch.wait, 1)
_one_of_two = on(Latch, _counts_then_waits, 2)
_joins, _awaits_member = on(Group, Group.join), on(Group, lambda crew: len(crew.wait_for(1)))
_puts_one, _takes_one = Side(_takes, _put_one), Side(_takes, _take_one)

WAKING = [
    Pair("lock released beside one that waits", holder(new_lock), waits(new_lock), said((None, True))),
    Pair(
        "lock released beside one with a timeout",
        holder(new_lock),
        waits(new_lock, timeout=FOR_EVER),
        said((None, True)),
    ),
    Pair("a permit released beside one that waits", holder(_seat), waits(_seat), said((None, True))),
    Pair("a signal beside one that waits", _releases, _acquires, said((None, True))),
    Pair("a reader leaves beside a writer that waits", holder(_reader), waits(_writer), said((None, True))),
    Pair("a writer leaves beside a reader that waits", holder(_writer), waits(_reader), said((None, True))),
    Pair("a leader resigns beside a candidate", _resigns, _campaigns, said((None, True))),
    Pair("an event is set beside one that waits", _sets, _awaits, said((None, True))),
    Pair(
        "an event is set and cleared beside one that waits",
        on(Event, _set_and_clear),
        on(Event, _waits_and_tells_from_when_on),
        _no_pulse_is_missed,
        prepare=lambda stage: _set_and_clear(Event(stage.path, "x")),
        rescue=lambda stage: Event(stage.path, "x").set(),
    ),
    Pair("a condition is notified beside one that waits", _puts_one, _takes_one, said((1, 0))),
    Pair("add beside add", _adds, _adds, said((1, 2), (2, 1))),
    Pair("add beside one that waits", _adds, _awaits_one, said((1, 1))),
    Pair("a latch is counted down beside one that waits", _opens, _passes, said((0, None))),
    Pair("both count a latch down and wait", _one_of_two, _one_of_two, said((0, 1), (1, 0))),
    Pair("join beside one that waits", _joins, _awaits_member, lambda end: end.said[1] == 1),
    Pair("join beside join", _joins, _joins, _numbers),
]
