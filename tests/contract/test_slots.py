"""The contract of slots: words beside a register, each written by its owner alone, without a lock."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psync.engine import Engine, MemoryEngine
from psync.engine.contract.register import Slot, Slots
from psync.engine.directory.registers.register import HEAD_BYTES, MAX_INLINE_BYTES, PAGE_BYTES
from psync.errors import PsyncError
from tests.contract.conftest import build
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.support import PLACE, scaled

NAME = ".psync/thing/x"


@pytest.fixture(params=["memory", "directory", "network"])
def harness(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    monkeypatch.setattr(MemoryEngine, "slots", 8)
    made = build(request.param, folder, pytest.fail)
    if made.engine.register(NAME).slots is None:
        made.close()
        pytest.skip("no slots on this file system, or this processor")
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="psync-seats-", dir=PLACE)) if PLACE else tmp_path / "store"


def seats_of(engine: Engine) -> Slots:
    slots = engine.register(NAME).slots
    assert slots is not None
    return slots


def change(engine: Engine, what: Callable[[Slots], object]) -> None:
    """While the register is locked."""

    def update(old: bytes | None) -> bytes | None:
        what(seats_of(engine))
        return old

    engine.register(NAME).update(update)


def given(engine: Engine, slot: int, owner: int) -> Slots:
    change(engine, lambda slots: slots.give(slot, owner))
    return seats_of(engine)


def test_all_are_free_at_first(harness: Harness) -> None:
    slots = seats_of(harness.engine)
    found, closed = slots.look()
    assert set(found) == {Slot(0, 0)} and len(found) == slots.count and closed == 0
    assert slots.count >= 8


def test_under_a_seal_there_are_none(folder: Path) -> None:
    harness = build("sealed", folder, pytest.fail)
    assert harness.engine.register(NAME).slots is None
    harness.close()


def test_a_word_that_was_put_is_in_every_look_that_begins_after_that(harness: Harness) -> None:
    mine = given(harness.engine, 0, 7)
    other = harness.other()
    theirs = given(other, 1, 2**64 - 1)
    for word in (1, 2**64 - 1, 0, 5):
        mine.put(0, word)
        theirs.put(1, word ^ 3)
        for slots in (mine, theirs, seats_of(harness.other())):
            assert list(slots.look().slots[:3]) == [(7, word), (2**64 - 1, word ^ 3), (0, 0)]
            found, closed = slots.words([1, 0, 2])
            assert [*found, closed] == [word ^ 3, word, 0, 0]
    change(other, lambda slots: slots.close(9))
    assert mine.look().closed == seats_of(harness.other()).look().closed == 9
    assert list(mine.look().slots[:2]) == [(7, 5), (2**64 - 1, 6)]


def test_the_last_seat_is_one_as_the_first(harness: Harness) -> None:
    slots = seats_of(harness.engine)
    given(harness.engine, slots.count - 1, 3).put(slots.count - 1, 4)
    assert slots.look().slots[-1] == (3, 4) and slots.look().closed == 0


def test_nobody_who_puts_a_word_waits_for_who_changes_the_register(harness: Harness) -> None:
    slots = given(harness.engine, 0, 7)
    inside, go_on = threading.Event(), threading.Event()

    def slow(old: bytes | None) -> bytes:
        inside.set()
        assert go_on.wait(20.0)
        return b"new"

    changing = threading.Thread(target=lambda: harness.other().register(NAME).update(slow))
    changing.start()
    assert inside.wait(20.0)
    slots.put(0, 3)
    assert slots.look().slots[0] == (7, 3)
    go_on.set()
    changing.join(20.0)
    assert seats_of(harness.other()).look().slots[0] == (7, 3)
    assert harness.engine.register(NAME).read() == b"new"


def test_changes_of_the_register_leave_the_words(harness: Harness) -> None:
    slots = given(harness.engine, 0, 7)
    last = slots.count - 1
    given(harness.engine, last, 8).put(last, 2)
    change(harness.engine, lambda slots: slots.close(1))
    for size in (
        0,
        100,
        MAX_INLINE_BYTES,
        MAX_INLINE_BYTES + 1,
        PAGE_BYTES - HEAD_BYTES,
        PAGE_BYTES,
        3 * PAGE_BYTES,
        10,
    ):
        slots.put(0, size)
        harness.other().register(NAME).update(lambda _, size=size: b"v" * size)
        seen = seats_of(harness.other()).look()
        assert (seen.slots[0], seen.slots[last], seen.closed) == ((7, size), (8, 2), 1)
        assert harness.other().register(NAME).read() == b"v" * size


def test_words_that_many_put_beside_many_changes_are_all_there(harness: Harness) -> None:
    times = scaled(300)

    def put(slot: int) -> Callable[[Engine], int]:
        def work(engine: Engine) -> int:
            owner = engine.owner()
            slots = given(engine, slot, owner)
            for word in range(1, times + 1):
                slots.put(slot, word)
                assert slots.look().slots[slot] == (owner, word)
            return owner

        return work

    def grow(engine: Engine) -> int:
        for number in range(times):
            engine.register(NAME).update(lambda old, number=number: b"%d" % number * (number % 1500))
        return 0

    owners = harness.crowd([*(put(slot) for slot in range(4)), grow])[:4]
    assert list(seats_of(harness.other()).look().slots[:4]) == [(owner, times) for owner in owners]


def test_what_closes_is_no_older_than_any_word_of_the_same_look(harness: Harness) -> None:
    times, over = scaled(2000), threading.Event()
    slots = given(harness.engine, 0, 7)
    theirs = seats_of(harness.other())

    def write() -> None:
        for number in range(1, times + 1):
            change(harness.engine, lambda slots, number=number: slots.close(number))
            slots.put(0, number)
        over.set()

    def look() -> None:
        while not over.is_set():
            seen = theirs.look()
            assert seen.closed >= seen.slots[0].word

    threads([write, look], patience=60.0)


# -- of a directory --------------------------------------------------------------------------------------


@pytest.fixture
def network(folder: Path) -> Iterator[DirectoryHarness]:
    harness = DirectoryHarness(folder, sharing="network")
    yield harness
    harness.close()


def test_a_forked_child_has_a_lock_of_its_own_and_knows_nothing(network: DirectoryHarness) -> None:
    slots = seats_of(network.engine)
    slots.known = "of the parent"
    with slots.section.lock:
        child = os.fork()
        if not child:
            os._exit(0 if slots.known is None and slots.section.lock.acquire(timeout=5.0) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert slots.known == "of the parent"


def test_one_whose_file_can_not_be_made_says_so(network: DirectoryHarness) -> None:
    slots = seats_of(network.engine)
    (network.root / ".psync/thing").write_bytes(b"in the way")
    with pytest.raises(PsyncError):
        slots.look()
    with pytest.raises(PsyncError):
        slots.put(0, 1)
