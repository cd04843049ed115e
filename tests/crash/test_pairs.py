"""Whatever two processes do to one primitive at the same time: no two inside, none lost, none alone, none forgotten."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from psync import Counter, Event
from tests.crash.barriers_and_letters import BARRIERS, REST
from tests.crash.pairs import Pair, stand_still_between_lines, stand_still_everywhere
from tests.crash.primitives import EXCLUSION, WAKING, on, said, two_visits
from tests.support import SCALE

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("pair", [*EXCLUSION, *WAKING, *BARRIERS, *REST], ids=lambda pair: pair.name)
def test_one_stands_still_at_every_call_while_the_other_goes_on(pair: Pair, root: Path) -> None:
    stood = stand_still_everywhere(pair, root)
    print(f"{pair.name}: {stood.points} places, {stood.waited} waits")
    assert stood.points


CHOSEN = [
    pair
    for pair in [*EXCLUSION, *WAKING, *BARRIERS]
    if pair.name
    in (
        "semaphore beside semaphore",
        "an event is set beside one that waits",
        "wait beside wait",
    )
]


@pytest.mark.parametrize("pair", [*EXCLUSION, *WAKING, *BARRIERS] if SCALE >= 5 else CHOSEN, ids=lambda pair: pair.name)
def test_one_stands_still_between_two_lines_while_the_other_goes_on(pair: Pair, root: Path) -> None:
    assert stand_still_between_lines(pair, root, random.Random(pair.name), stride=max(2, round(50 / SCALE))).points


# -- the machinery finds what it is there to find --------------------------------------------------


def _adds_in_two_steps(counter: Counter) -> int:
    value = counter.value
    return counter._shared.change(lambda number: number._replace(value=value + 1)).value


def _looks_and_then_watches(event: Event) -> bool:
    if not event.is_set():
        with event.engine.watch([event._where]) as watch:
            watch.pause(None)
    return True


def test_a_lost_addition_is_found(root: Path) -> None:
    adds = on(Counter, _adds_in_two_steps)
    with pytest.raises(AssertionError, match=r"stood still before call \d+, .*said=\[1, 1\]"):
        stand_still_everywhere(Pair("add in two steps", adds, adds, said((1, 2), (2, 1))), root)


def test_a_lost_wake_up_is_found(root: Path) -> None:
    pair = Pair(
        "set beside one that does not look again",
        on(Event, Event.set),
        on(Event, _looks_and_then_watches),
        lambda end: not end.rescued,
        rescue=lambda stage: Event(stage.path, "x").engine.announce(".psync/event/x"),
    )
    with pytest.raises(AssertionError, match="rescued=True"):
        stand_still_everywhere(pair, root)


def test_two_inside_are_found(root: Path) -> None:
    class Open:
        def acquire(self, timeout: float | None) -> bool:
            return bool(os.getcwd())

        def release(self) -> None: ...

    pair = two_visits("no lock at all", lambda path: Open(), lambda path: Open(), warm=False)
    with pytest.raises(AssertionError, match=r"said=\[(True, False|False, True|False, False)\]"):
        stand_still_everywhere(pair, root)
