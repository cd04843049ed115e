"""Parties of a barrier that arrive by their slots, in processes of their own: what there is in a file, and damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from psync import Barrier, BrokenBarrierError
from psync.engine import Sharing
from psync.engine.directory import DirectoryEngine
from psync.engine.directory.registers.register import PAGE_BYTES
from psync.engine.directory.registers.slots import SLOTS_BYTES
from psync.sync.barrier.state import MAX_ROUND, MAX_TIMES, times_of, word_of
from tests.concurrency.simultaneous import SharedNumbers, together
from tests.support import scaled
from tests.sync.other_process import Channel, OtherProcess, eventually, other_process

pytestmark = pytest.mark.parametrize("sharing", ["host", "network"])


@pytest.fixture
def root(root: Path, sharing: Sharing) -> Path:
    engine = DirectoryEngine(str(root), sharing=sharing)
    slots = engine.register(".psync/barrier/x").slots
    engine.close()
    if slots is None:
        pytest.skip("no slots on this file system, or this processor")
    return root


def comes_when_told(root: Path, sharing: Sharing) -> Callable[[Channel], None]:
    def come(talk: Channel) -> None:
        engine = DirectoryEngine(str(root), sharing=sharing)
        while True:
            talk.say(wait(Barrier(engine, talk.hear(), 2)))

    return come


def wait(barrier: Barrier) -> int | None:
    try:
        return barrier.wait(10.0)
    except BrokenBarrierError:
        return None


def meet(barrier: Barrier, other: OtherProcess) -> bool:
    other.tell(barrier.name)
    return {wait(barrier), other.hear()} == {0, 1}


def slots(root: Path) -> bytes:
    return (root / ".psync/barrier/x").read_bytes()[PAGE_BYTES - SLOTS_BYTES : PAGE_BYTES]


def test_the_state_is_not_written_while_the_same_ones_come(root: Path, sharing: Sharing) -> None:
    engine = DirectoryEngine(str(root), sharing=sharing)
    barrier = Barrier(engine, "x", 2)
    with other_process(comes_when_told(root, sharing)) as other:
        for _ in range(3):
            assert meet(barrier, other)
        state = engine.register(".psync/barrier/x").read()
        for _ in range(5):
            before = slots(root)
            assert meet(barrier, other)
            assert slots(root) != before
        assert engine.register(".psync/barrier/x").read() == state
        assert barrier.statistics().round == 8
        assert meet(Barrier(engine, "x", 2), other)  # a new handle
        barrier.leave()
        assert engine.register(".psync/barrier/x").read() != state
        assert meet(barrier, other)
    engine.close()


def test_nobody_passes_alone_whoever_comes_by_a_seat_or_not(root: Path, sharing: Sharing) -> None:
    parties, rounds = 4, scaled(1000 if sharing == "host" else 200)
    came = SharedNumbers(parties)

    def party(me: int) -> None:
        engine = DirectoryEngine(str(root), sharing=sharing)
        plain, acting = Barrier(engine, "x", parties), Barrier(engine, "x", parties, action=int)
        chance = random.Random(me)
        for number in range(1, rounds + 1):
            came[me] = number
            (acting if chance.random() < 0.02 else plain).wait(20.0)
            assert min(came[each] for each in range(parties)) >= number
        engine.close()

    together([lambda me=me: party(me) for me in range(parties)])


def test_damage_to_a_seat_breaks_the_barrier_or_does_not_matter(root: Path, sharing: Sharing) -> None:
    """Nobody passes alone, and nobody waits for ever."""
    chance = random.Random(5)
    engine = DirectoryEngine(str(root), sharing=sharing)
    broken = 0
    with other_process(comes_when_told(root, sharing)) as other:
        for number in range(scaled(60)):
            barrier = Barrier(engine, str(number), 2)
            for _ in range(chance.randrange(2, 5)):
                assert meet(barrier, other)
            other.tell(barrier.name)
            eventually(lambda barrier=barrier: barrier.n_waiting == 1)
            with open(root / ".psync/barrier" / barrier.name, "r+b") as file:
                file.seek(
                    at := PAGE_BYTES - SLOTS_BYTES + chance.choice((*range(32), *range(SLOTS_BYTES - 8, SLOTS_BYTES)))
                )
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 1 << chance.randrange(8)]))
            said = {wait(barrier), other.hear()}
            assert said in ({None}, {0, 1})
            broken += said == {None}
            if barrier.broken:  # as those who came found, or this look
                barrier.reset()
            assert meet(barrier, other)
    assert broken
    engine.close()


def test_words_grow_and_show_damage(sharing: Sharing) -> None:
    numbers = (0, 1, 2, 1000, MAX_TIMES, MAX_ROUND)
    words = [word_of(number, times) for number in numbers for times in numbers if times <= MAX_TIMES]
    assert words == sorted(set(words)) and words[-1] < 1 << 64
    for word in words:
        since, times = word >> 32, word >> 8 & MAX_TIMES
        assert times_of(word, since) == times and times_of(word, since + 1) == 0
        assert {times_of(word ^ 1 << bit, since) for bit in range(64)} == {-1}
