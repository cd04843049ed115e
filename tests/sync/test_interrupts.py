"""A signal whose handler raises (Ctrl-C, an alarm) may come at any moment: nothing stays locked that nobody holds.

With an audit hook in the process it may come into any system call, before the kernel is asked. Since Python 3.12 every
process has one that once imported filelock, which compacting does.
"""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from psync import Counter, Lock, RLock
from psync.engine import Engine
from psync.engine.directory import DirectoryEngine
from tests.support import scaled
from tests.sync.other_process import Channel, OtherProcess, other_process


class Struck(Exception):
    pass


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """SIGALRM raises `Struck`."""

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def until_struck(work: Callable[[], object], chance: random.Random) -> None:
    with contextlib.suppress(Struck):
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00005, 0.0008))
        while True:
            work()
    signal.setitimer(signal.ITIMER_REAL, 0)


def tries(root: Path | str | Engine, kind: Any) -> Callable[[Channel], None]:
    """Another process that says, of each name it hears, whether it can have the lock."""

    def work(talk: Channel) -> None:
        while True:
            lock = kind(root, talk.hear())
            had = lock.acquire(timeout=0)
            if had:
                lock.release()
            talk.say(had)

    return work


def could_have(other: OtherProcess, name: str) -> bool:
    other.tell(name)
    return bool(other.hear())


def interrupt_holders(kind: Any, root: Path | str | Engine, rounds: int = 200) -> None:
    chance = random.Random(7)
    with other_process(tries(root, kind)) as other, handled():
        for number in range(scaled(rounds)):
            lock = kind(root, str(number))

            def hold(lock: Any = lock) -> None:
                with lock:
                    pass

            hold()
            until_struck(hold, chance)
            held = lock.token != 0
            assert lock.locked() == held
            assert could_have(other, lock.name) == (not held)
            if held:  # it was struck before `release` had begun
                lock._mutex.release()
                assert not lock.locked() and could_have(other, lock.name)


def interrupt_counting(root: Path) -> None:
    counter, chance = Counter(root, "x"), random.Random(8)
    counter.add()

    def count(talk: Channel) -> None:
        theirs = Counter(root, "x")
        while True:
            talk.hear()
            talk.say(theirs.add())

    with other_process(count) as other, handled():
        for _ in range(scaled(200)):
            until_struck(counter.add, chance)
            before = counter.value
            other.tell()
            assert other.hear() == before + 1 == counter.value


@pytest.mark.parametrize("kind", [Lock, RLock], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("sharing", ["host", "network"])
def test_a_lock_whose_holder_was_interrupted_is_free_or_can_be_released(
    kind: Any, sharing: Literal["host", "network"], root: Path
) -> None:
    engine = DirectoryEngine(root, sharing=sharing)
    interrupt_holders(kind, engine)
    engine.close()


def test_a_count_that_was_interrupted_keeps_nobody_from_counting(root: Path) -> None:
    interrupt_counting(root)


@pytest.mark.parametrize(
    "interrupt", [functools.partial(interrupt_holders, Lock), interrupt_counting], ids=["Lock", "Counter"]
)
def test_so_it_is_when_the_interrupt_comes_before_a_call_has_begun(
    interrupt: Callable[[Path], None], root: Path
) -> None:
    def work(talk: Channel) -> None:
        sys.addaudithook(lambda *_: None)  # which nothing removes, so not in this process
        interrupt(root)
        talk.say("done")

    with other_process(work) as other:
        assert other.hear() == "done"
