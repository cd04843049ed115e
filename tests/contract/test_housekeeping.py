"""The contract of quarantine, sweep and close: nothing is lost, nothing in use is taken away."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

import pytest

from psync.engine import Engine
from psync.engine.contract.log import Mark, State
from psync.engine.contract.values import Alive
from psync.errors import CorruptValue
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.contract.payloads import bucket_dict, item, pickle_of, pickled

BUCKET, LOG = "c/0f", ".psync/queue/q"

# -- quarantine ------------------------------------------------------------------------------------

LOOKS: dict[str, Callable[[Engine, str], object]] = {
    "read": lambda engine, name: engine.read(name),
    "pop": lambda engine, name: engine.pop(name),
    "update": lambda engine, name: engine.update(name, lambda old: pickled("from nothing")),
    "tail": lambda engine, name: engine.bucket(name).tail(),
    "append": lambda engine, name: engine.bucket(name).append(item(9, 9)),
}


def look_held(engine: Engine, name: str) -> None:
    with engine.bucket(name).held() as held:
        assert held is not None
        held.tail()


@pytest.mark.parametrize("look", [*LOOKS, "held"])
@pytest.mark.parametrize("kind", ["cell", "big cell", "bucket", "big bucket"])
def test_damaged_bytes_are_never_returned_and_never_lost(harness: Harness, kind: str, look: str) -> None:
    engine = harness.engine
    if "cell" in kind:
        engine.write(BUCKET, pickle_of(20_000 if "big" in kind else 200))
    else:
        engine.bucket(BUCKET).append(item("k", "v" * (20_000 if "big" in kind else 200)))
    harness.spoil(BUCKET)
    other = harness.other()
    with pytest.raises(CorruptValue) as caught:
        look_held(other, BUCKET) if look == "held" else LOOKS[look](other, BUCKET)
    assert caught.value.key == BUCKET and caught.value.reason
    assert caught.value.quarantine, "it was not kept"
    assert BUCKET in str(caught.value) and str(caught.value.quarantine) in str(caught.value)
    assert any("quarantine" in name for name in engine.list(hidden=True))
    assert engine.read(BUCKET) is None
    assert engine.create(BUCKET, pickled("set again"))


def test_a_damaged_value_can_simply_be_set_again(harness: Harness) -> None:
    harness.engine.write("a", pickle_of(300))
    harness.spoil("a")
    harness.engine.write("a", pickled(1))
    cell = harness.engine.read("a")
    assert cell is not None and cell.payload == pickled(1)


def test_the_damaged_bytes_are_kept_exactly(disk: DirectoryHarness) -> None:
    for size in (100, 9000):
        disk.engine.write("f/a", pickle_of(size))
        disk.spoil("f/a")
        damaged = (disk.root / "f/a").read_bytes()
        with pytest.raises(CorruptValue) as caught:
            disk.engine.read("f/a")
        with open(caught.value.quarantine, "rb") as kept:
            assert kept.read() == damaged


@pytest.mark.parametrize("cut", [0, 1, 2, 10, 18, 60, 99])
def test_a_file_cut_short_is_damaged_and_not_missing(disk: DirectoryHarness, cut: int) -> None:
    def write() -> None:
        disk.engine.write(BUCKET, pickle_of(100))

    def append() -> None:
        disk.engine.bucket(BUCKET).append(item(1, "v" * 95))

    for make in (write, append):
        make()
        os.truncate(disk.root / BUCKET, cut)
        with pytest.raises(CorruptValue):
            disk.engine.read(BUCKET)
        disk.engine.delete(BUCKET)  # what is cut so short that it bears no seal stays where it is
        make()
        os.truncate(disk.root / BUCKET, cut)
        with pytest.raises(CorruptValue):
            disk.other().bucket(BUCKET).tail()
        disk.engine.delete(BUCKET)


def test_what_can_be_read_is_not_set_aside(harness: Harness) -> None:
    harness.engine.write("a", pickled(1))
    harness.engine.bucket(BUCKET).append(item(1, 1))
    assert harness.engine.set_aside("a", "just so") is None
    assert harness.engine.set_aside(BUCKET, "just so") is None
    assert harness.engine.set_aside("missing", "just so") is None
    assert harness.engine.read("a") is not None and bucket_dict(harness.engine, BUCKET) == {1: 1}


def test_what_was_seen_to_be_undecodable_is_set_aside_if_it_is_still_that(harness: Harness) -> None:
    engine = harness.engine
    engine.write("a", pickle_of(100, 1))
    seen = engine.read("a")
    assert seen is not None
    engine.write("a", pickle_of(200, 2))
    assert engine.set_aside("a", "a class that fails", seen.version) is None
    now = engine.read("a")
    assert now is not None and now.payload == pickle_of(200, 2)
    assert engine.set_aside("a", "a class that fails", now.version)
    assert engine.read("a") is None
    assert engine.set_aside("a", "a class that fails", now.version) is None
    engine.write("a", pickled(1))
    assert engine.set_aside("a", "whatever it is", ())
    assert engine.read("a") is None and engine.set_aside("a", "whatever it is", ()) is None


def test_damage_that_many_meet_at_once_is_set_aside_once(harness: Harness) -> None:
    for number in range(10):
        harness.engine.write(f"f/{number}", pickle_of(500))
        harness.spoil(f"f/{number}")

    def look(engine: Engine) -> int:
        caught = 0
        for number in range(10):
            try:
                assert engine.read(f"f/{number}") is None
            except CorruptValue as error:
                caught += error.quarantine is not None
        return caught

    assert sum(harness.crowd([look] * 4)) == 10


# -- sweep -----------------------------------------------------------------------------------------


def furnish(engine: Engine) -> None:
    engine.write("a", pickled(1))
    engine.write("f/b", pickle_of(10_000))
    engine.bucket(BUCKET).append(item(1, 1))
    engine.log(LOG).append([b"x", b"y"])
    engine.log(LOG).take(engine.owner())


def use_hundreds(engine: Engine) -> None:
    """More than an engine keeps open."""
    for number in range(400):
        engine.bucket(f"d{number}/0f").append(b"")
    for number in range(100):
        engine.log(f".psync/queue/{number}").counts()


def check_furniture(engine: Engine) -> None:
    cells = engine.read("a"), engine.read("f/b")
    assert [cell and cell.payload for cell in cells] == [pickled(1), pickle_of(10_000)]
    assert bucket_dict(engine, BUCKET) == {1: 1}
    assert engine.log(LOG).counts()[:2] == (1, 2) and len(engine.log(LOG).claims()) == 1


def test_a_sweep_takes_nothing_away_that_anybody_uses(harness: Harness) -> None:
    furnish(harness.engine)
    owner = harness.engine.owner()
    mutex = harness.engine.mutex("m")
    assert mutex.acquire()
    for engine in (harness.engine, harness.other()):
        assert engine.sweep() >= 0
        check_furniture(engine)
        assert engine.alive(owner) is Alive.YES
        assert engine.mutex("m").acquire(0) is False
    mutex.release()


def test_a_second_sweep_finds_nothing_more(harness: Harness) -> None:
    harness.killed(furnish)
    harness.engine.sweep()
    assert harness.other().sweep() == 0
    check_furniture(harness.engine)


def test_sweeps_beside_work_disturb_nothing(harness: Harness) -> None:
    def work(engine: Engine) -> bool:
        for turn in range(60):
            engine.write(f"f/{turn}", pickle_of(8000, turn))
            engine.create(f"g/{turn}", pickle_of(100, turn))
            engine.bucket(BUCKET).append(item(turn, turn))
            with engine.bucket(BUCKET).held() as held:
                assert held is not None
                held.replace(held.tail().ops)
        return all(
            cell is not None and cell.payload == payload
            for turn in range(60)
            for cell, payload in (
                (engine.read(f"f/{turn}"), pickle_of(8000, turn)),
                (engine.read(f"g/{turn}"), pickle_of(100, turn)),
            )
        )

    def sweep(engine: Engine) -> bool:
        return all(engine.sweep() >= 0 for _ in range(150))

    assert all(harness.crowd([work, sweep, sweep]))
    assert bucket_dict(harness.engine, BUCKET) == {turn: turn for turn in range(60)}


# -- close -----------------------------------------------------------------------------------------


def test_a_closed_engine_can_be_used_again(harness: Harness) -> None:
    engine = harness.engine
    bucket, log, mutex = engine.bucket(BUCKET), engine.log(LOG), engine.mutex("m")
    furnish(engine)
    position = bucket.tail()
    assert mutex.acquire()
    mutex.release()
    for _ in range(3):
        engine.close()
        engine.close()
        check_furniture(engine)
    assert bucket.append(item(2, 2)) and engine.bucket(BUCKET).append(item(3, 3))
    tail = bucket.tail(position.position if position else None)
    assert tail is not None
    assert bucket_dict(engine, BUCKET) == {1: 1, 2: 2, 3: 3}
    claim = log.claims()[0]
    assert log.settle(claim.position, claim.mark, Mark(State.DONE, 1))
    assert mutex.acquire(0) and not harness.other().mutex("m").acquire(0)
    mutex.release()
    engine.close()
    assert engine.alive(engine.owner()) is Alive.YES
    with engine.watch(["a"]) as watch:
        engine.write("a", pickled(5))
        watch.pause(5.0)


def test_what_is_held_stays_held_when_the_engine_is_closed(harness: Harness) -> None:
    mutex = harness.engine.mutex("m")
    assert mutex.acquire()
    harness.engine.close()
    theirs = harness.other().mutex("m")
    assert theirs.acquire(0) is False
    mutex.release()
    assert theirs.acquire(0) is True
    theirs.release()


def test_a_closed_engine_gives_its_descriptors_back(disk: DirectoryHarness) -> None:
    def ours() -> set[str]:
        links = set()
        for number in os.listdir("/proc/self/fd"):
            try:
                links.add(os.readlink(f"/proc/self/fd/{number}"))
            except FileNotFoundError:
                continue
        return {link for link in links if link.startswith(str(disk.root))}

    furnish(disk.engine)
    assert disk.engine.mutex("m").acquire()
    disk.engine.mutex("m").release()
    with disk.engine.guard("g"), disk.engine.watch(["a"]) as watch:
        watch.pause(0)
    bucket, log = disk.engine.bucket(BUCKET), disk.engine.log(LOG)
    for _ in range(2):
        assert ours()
        disk.engine.close()
        assert ours() == set()
        assert bucket.append(b"") and log.counts().appended == 2  # a handle may be kept, and opens again
    disk.engine.close()
    assert ours() == set()


@pytest.mark.parametrize("why", ["closed", "crowded out"])
@pytest.mark.parametrize("kind", ["bucket", "log"])
def test_a_handle_that_was_opened_again_excludes_a_forked_child_too(
    disk: DirectoryHarness, kind: str, why: str
) -> None:
    """A child that shared its parent's descriptor would share its lock, and come in beside it."""
    bucket, log = disk.engine.bucket(BUCKET), disk.engine.log(LOG)
    bucket.append(b"")
    log.append([b"x"])
    if why == "closed":
        disk.engine.close()
    else:
        use_hundreds(disk.engine)
    bucket.append(b"")
    log.append([b"x"])
    reading, writing = os.pipe()
    with bucket.held() if kind == "bucket" else log.held():
        child = os.fork()
        if not child:
            bucket.append(b"") if kind == "bucket" else log.append([b"x"])
            os.write(writing, b".")
            os._exit(0)
        came_in, _, _ = select.select([reading], [], [], 0.2)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    assert not came_in


def test_work_on_hundreds_of_names_needs_few_descriptors(disk: DirectoryHarness) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(500):
        disk.engine.bucket(f"c/{number}/0f").append(item(1, number))
        disk.engine.log(f".psync/queue/{number}").append([b"x"])
    assert len(os.listdir("/proc/self/fd")) - before < 900  # below the usual limit of 1,024
    assert bucket_dict(disk.engine, "c/0/0f") == {1: 0}
    assert disk.engine.log(".psync/queue/0").counts()[:2] == (1, 1)


@pytest.mark.parametrize("kind", ["bucket", "log"])
def test_what_is_held_stays_held_while_hundreds_of_others_are_used(harness: Harness, kind: str) -> None:
    engine, other, order = harness.engine, harness.other(), []
    bucket, log = engine.bucket(BUCKET), engine.log(LOG)
    bucket.append(item(0, 0))

    def hold() -> None:
        with bucket.held() if kind == "bucket" else log.held():
            use_hundreds(engine)
            order.append("used")
            late.start()
            late.join(0.2)
            order.append("let go")

    def change() -> None:
        other.bucket(BUCKET).append(item(1, 1)) if kind == "bucket" else other.log(LOG).append([b"x"])
        order.append("changed")

    late = threading.Thread(target=change)
    threads([hold], patience=10)
    late.join(10)
    assert order == ["used", "let go", "changed"]
