"""Two processes do one thing each: one stands still before each of its system calls in turn while the other runs.

For a new pair, three lines::

    both = Side(lambda stage: Counter(stage.path, "x"), lambda counter: counter.add())
    pair = Pair("add beside add", both, both, lambda end: sorted(end.said) == [1, 2])
    stand_still_everywhere(pair, root)

Nobody is rescued by looking now and then (`only_woken`): a wake-up that is lost is a process that hangs, and that is
found. Who waits for the one that stands still is no error, as long as it goes on when that one does.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from psync.engine import DirectoryEngine
from psync.engine.directory.locks import mutex
from psync.engine.directory.notify import wakeup
from psync.sync import wait
from psync.sync.queue import claims, put
from tests.concurrency.simultaneous import SharedNumbers
from tests.crash.harness import directory
from tests.crash.ptrace import Kill, Pause, run
from tests.crash.second_process import SecondProcess, second
from tests.crash.small_process import in_small_process
from tests.support import SCALE

FOR_EVER = 1000.0
"""Seconds."""
LONG = 12
"""Calls of one side."""


def only_woken() -> None:
    """In this process nobody who waits looks by himself: whoever is not woken does not go on."""
    wait.PROBE_INTERVAL_S = claims.PROBE_INTERVAL_S = put.PROBE_INTERVAL_S = mutex.DEAD_HOLDER_POLL_S = FOR_EVER
    wakeup.GRACE_S = FOR_EVER
    DirectoryEngine.spin = 0.0  # so that its calls are the same every time


class Stage:
    """Where a pair acts: a directory, and some numbers that both see, without a system call."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.numbers = SharedNumbers(2)
        self.over = SharedNumbers(2)
        """Whether the one that stands still, and the other one, have done what they had to do."""

    def visit(self, me: int) -> bool:
        """Be inside for the length of a system call; False if the other one is inside, too."""
        self.numbers[me] = 1
        alone = not self.numbers[1 - me]
        os.getcwd()  # here one may be made to stand still
        alone = alone and not self.numbers[1 - me]
        self.numbers[me] = 0
        return alone


@dataclasses.dataclass(frozen=True)
class Side:
    ready: Callable[[Stage], Any]
    """Before anything is watched."""
    act: Callable[[Any], Any]
    """Gets what `ready` returned; what it returns is what this side said."""


@dataclasses.dataclass
class End:
    """How it ended."""

    said: list[Any]
    """What the first side said, and the second."""
    path: str
    stood: int
    """Which of them stood still: 0 or 1."""
    n: int
    """Before which of its calls."""
    rescued: bool
    """Whether nobody would have gone on without `Pair.rescue`."""


@dataclasses.dataclass(frozen=True)
class Pair:
    name: str
    first: Side
    second: Side
    right: Callable[[End], object]
    """Whether that is a possible end. May raise instead, to say more."""
    prepare: Callable[[Stage], object] = lambda stage: None
    rescue: Callable[[Stage], object] | None = None
    """What to do when both sides have done what they can and one still waits, if that can be right."""


@dataclasses.dataclass
class Stood:
    """What was seen in all the places where one stood still."""

    points: int = 0
    waited: int = 0
    """How often the other one waited for the one that stood still."""


@in_small_process
def stand_still_everywhere(pair: Pair, folder: object) -> Stood:
    """Each side stands still before each of its calls, while the other one runs to its end, or until it has to wait."""
    stood = Stood()
    for still in (0, 1):
        for n in places():
            with directory(folder) as path:
                if not _stand_still(pair, still, n, Stage(path), stood):
                    break
    return stood


@in_small_process
def stand_still_between_lines(pair: Pair, folder: object, chance: random.Random, stride: int) -> Stood:
    """The same before some lines of psync's own code, about `stride` apart: much is done in memory, without a call."""
    stood = Stood()
    for still, side in enumerate(("first", "second")):
        slow = dataclasses.replace(pair, **{side: _by_lines(getattr(pair, side))})
        n = chance.randint(1, stride)
        while True:
            with directory(folder) as path:
                if not _stand_still(slow, still, n, Stage(path), stood):
                    break
            n += chance.randint(1, 2 * stride - 1)
    return stood


def _by_lines(side: Side) -> Side:
    """Makes a system call before each line."""

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            os.getcwd()
        return trace if f"{os.sep}psync{os.sep}" in frame.f_code.co_filename else None

    def act(thing: Any) -> Any:
        sys.settrace(trace)
        try:
            return side.act(thing)
        finally:
            sys.settrace(None)

    return dataclasses.replace(side, act=act)


def places() -> Iterator[int]:
    """Every call, but of a long row only some of the later ones."""
    return itertools.chain(range(1, LONG), itertools.count(LONG, max(1, round(10 / SCALE))))


def _stand_still(pair: Pair, still: int, n: int, stage: Stage, stood: Stood) -> bool:
    pair.prepare(stage)
    mine, theirs = (pair.first, pair.second)[:: 1 if still == 0 else -1]
    rescued = False
    with second(lambda thing: _finished(theirs, thing, stage), lambda: _ready(theirs, stage)) as other:

        def asleep() -> None:
            nonlocal rescued
            begun = other.begun
            other.go()
            if begun and pair.rescue is not None and not rescued:
                rescued = True
                pair.rescue(stage)

        paused = run(
            lambda thing: _act(mine, thing, stage),
            ready=lambda: _ready(mine, stage),
            after=lambda thing, error: _said(thing, error, stage),
            fault=Pause(n, other.go),
            asleep=asleep,
        )
        where = f"{pair.name}: side {still}" + (f" stood still before {paused}" if paused.struck else "")
        assert not paused.hung, (
            f"{where}, and one of both hung; the other one {'had' if other.done else 'had not'} ended"
        )
        if paused.error is not None:
            raise AssertionError(f"{where}, and raised {paused.error!r}") from paused.error
        said = [paused.report, _of(other, where)][:: 1 if still == 0 else -1]
    end = End(said, stage.path, still, n if paused.struck else 0, rescued)
    assert pair.right(end) in (True, None), f"{where}: {end}"
    stood.points += paused.struck
    stood.waited += paused.struck and other.waited
    return paused.struck


def _ready(side: Side, stage: Stage) -> list[Any]:
    only_woken()
    return [side.ready(stage)]


def _act(side: Side, thing: list[Any], stage: Stage) -> None:
    thing.append(side.act(thing[0]))
    stage.over[0] = 1


def _said(thing: list[Any], error: BaseException | None, stage: Stage) -> Any:
    """Not before the other one is done, too: what it waits for may be that this process lives."""
    while error is None and not stage.over[1]:
        time.sleep(0.002)
    return thing[1] if error is None else None


def _finished(side: Side, thing: list[Any], stage: Stage) -> Any:
    try:
        return side.act(thing[0])
    finally:
        stage.over[1] = 1


def _of(other: SecondProcess, where: str) -> Any:
    fine, said = other.end()
    assert fine, f"{where}; the other one raised:\n{said}"
    return said


# -- killed instead --------------------------------------------------------------------------------


@in_small_process
def die_everywhere(pair: Pair, folder: object, orders: Sequence[bool] = (True, False)) -> int:
    """The first side is killed before each of its calls in turn. The second one acts before that, and in another row of
    strikes after it. How many times.

    Here who waits does look for the dead. What the first one said is None when it was killed.
    """
    points = 0
    for before in orders:
        for n in places():
            with directory(folder) as path:
                if not _die(pair, n, Stage(path), before=before):
                    break
                points += 1
    return points


def _die(pair: Pair, n: int, stage: Stage, *, before: bool) -> bool:
    pair.prepare(stage)
    with second(lambda thing: _finished(pair.second, thing, stage), lambda: [pair.second.ready(stage)]) as other:
        if before:
            other.go()
        hit = run(
            lambda thing: _act(pair.first, thing, stage),
            ready=lambda: [pair.first.ready(stage)],
            after=lambda thing, error: _said(thing, error, stage),
            fault=Kill(n),
            asleep=other.go,
        )
        where = f"{pair.name}: {'killed before ' if hit.struck else ''}{hit}"
        assert not hit.hung and hit.error is None, f"{where}: {hit.error!r}"
        other.go()
        end = End([hit.report, _of(other, where)], stage.path, 0, n if hit.struck else 0, False)
    assert pair.right(end) in (True, None), f"{where}: {end}"
    return hit.struck
