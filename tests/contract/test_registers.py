"""The contract of registers: a small value that many look at and change; no change is lost, torn or seen late."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from psync.engine import Engine
from psync.engine.directory.engine import MAX_OPEN_HANDLES
from psync.errors import CorruptValue, StoreFailed
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.support import scaled

NAME = ".psync/thing/x"
AROUND_A_PAGE = [4030, 4062, 4063, 4064, 4065, 4096, 4097]
SIZES = [0, 1, 9, 100, 1000, *AROUND_A_PAGE, 8192, 20_000, 70_000]
SOON = 3.0


def put(engine: Engine, value: bytes) -> bytes | None:
    return engine.register(NAME).update(lambda _: value)


def value_of(number: int) -> bytes:
    """Begins with `number`; of many lengths, mostly below a page."""
    return b"%d " % number + b"%d" % (number % 10) * (number * 37 % 300 + number % 7 // 6 * 6000)


def test_one_that_was_never_set_is_none_and_looking_sets_nothing(harness: Harness) -> None:
    seen: list[bytes | None] = []
    register = harness.engine.register(NAME)
    assert register.read() is None
    assert register.update(seen.append) is None
    assert seen == [None]
    assert register.read() is None and harness.other().register(NAME).read() is None


def test_an_update_is_seen_by_every_handle(harness: Harness) -> None:
    mine, theirs = harness.engine.register(NAME), harness.other().register(NAME)
    assert theirs.read() is None
    assert mine.update(lambda old: b"first") == b"first"
    assert (mine.read(), theirs.read(), harness.other().register(NAME).read()) == (b"first",) * 3
    assert theirs.update(lambda old: (old or b"") + b" second") == b"first second"
    assert (mine.read(), theirs.read()) == (b"first second",) * 2
    assert harness.crowd([lambda engine: engine.register(NAME).read()]) == [b"first second"]


def test_registers_of_other_names_are_others(engine: Engine) -> None:
    names = ("a", "b", "folder/a", "folder/b")
    for name in names:
        engine.register(f".psync/thing/{name}").update(lambda _, name=name: name.encode())
    assert [engine.register(f".psync/thing/{name}").read() for name in names] == [name.encode() for name in names]
    assert engine.register(".psync/other/a").read() is None


@pytest.mark.parametrize("same", [True, False], ids=["the very object", "None"])
def test_a_function_that_returns_the_object_it_got_or_none_leaves_it(harness: Harness, same: bool) -> None:
    put(harness.engine, b"old")
    assert harness.engine.register(NAME).update(lambda old: old if same else None) == b"old"
    assert harness.other().register(NAME).read() == b"old"


def test_values_may_grow_and_shrink_to_any_size(harness: Harness) -> None:
    mine, theirs = harness.engine.register(NAME), harness.other().register(NAME)
    for turn, size in enumerate([*SIZES, *SIZES[::-1], *SIZES[::3], 70_000, 5_000, 70_000, 9_000, 9_000]):
        value = bytes([turn]) * size
        assert mine.update(lambda _, value=value: value) == value
        assert theirs.read() == mine.read() == value
        assert harness.other().register(NAME).read() == value
        mine, theirs = theirs, mine


class Refused(Exception):
    pass


@pytest.mark.parametrize("error", [Refused("no"), ValueError("no"), OSError(5, "mine"), KeyboardInterrupt()], ids=repr)
def test_what_the_function_raises_comes_out_as_it_is_and_changes_nothing(
    harness: Harness, error: BaseException
) -> None:
    def refuse(old: bytes | None) -> bytes:
        raise error

    put(harness.engine, b"old")
    with pytest.raises(type(error)) as raised:
        harness.engine.register(NAME).update(refuse)
    assert raised.value is error
    assert harness.other().register(NAME).read() == b"old"
    assert harness.other().register(NAME).update(lambda old: b"new") == b"new"


@pytest.mark.parametrize("who", ["threads", "processes"])
def test_no_update_is_lost(harness: Harness, who: str) -> None:
    times = scaled(200)

    def count(engine: Engine) -> list[int]:
        register, mine = engine.register(NAME), []
        for _ in range(times):
            after = register.update(lambda old: value_of(int((old or b"0").split()[0]) + 1))
            mine.append(int((after or b"").split()[0]))
        return mine

    parts = threads([lambda: count(harness.engine)] * 4) if who == "threads" else harness.crowd([count] * 4)
    assert sorted(number for part in parts for number in part) == list(range(1, 4 * times + 1))
    assert harness.engine.register(NAME).read() == value_of(4 * times)


def test_who_looks_never_sees_half_a_change_nor_an_older_value_than_before(harness: Harness) -> None:
    times = scaled(300)
    put(harness.engine, value_of(0))

    def write(engine: Engine) -> int:
        for number in range(1, times + 1):
            put(engine, value_of(number))
        return times

    def look(engine: Engine) -> int:
        register, last = engine.register(NAME), 0
        while last < times:
            seen = register.read() or b""
            number = int(seen.split()[0])
            assert seen == value_of(number) and number >= last
            last = number
        return last

    assert harness.crowd([write, look, look]) == [times] * 3


def test_who_looks_waits_for_no_change_that_is_being_made(disk: DirectoryHarness) -> None:
    put(disk.engine, b"old")
    other = disk.other().register(NAME)
    seen: list[bytes | None] = []

    def change(old: bytes | None) -> bytes:
        seen.append(other.read())
        return b"new"

    threads([lambda: disk.engine.register(NAME).update(change)])
    assert (seen, other.read()) == ([b"old"], b"new")


def test_a_change_ends_the_pause_of_who_watches_its_name_and_no_change_does_not(harness: Harness) -> None:
    put(harness.engine, b"old")
    for function, ends in ((lambda old: b"new", True), (lambda old: old, False)):
        with harness.engine.watch([NAME]) as watch:
            harness.other().register(NAME).update(function)
            begun = time.monotonic()
            watch.pause(0.3)
            if ends:
                assert time.monotonic() - begun < 0.25
    assert harness.engine.register(NAME).read() == b"new"


@pytest.mark.parametrize("size", [20, 3000, 9000])
def test_who_is_killed_in_the_middle_of_many_updates_leaves_a_whole_value_and_no_lock(
    harness: Harness, size: int
) -> None:
    def write(engine: Engine) -> bytes:
        for number in range(50):
            put(engine, b"%d" % number * size)
        return b"49" * size

    last = harness.killed(write)
    assert harness.engine.register(NAME).read() == last
    assert put(harness.engine, b"after") == b"after"


def test_who_is_killed_while_it_changes_a_register_keeps_nobody_out(disk: DirectoryHarness) -> None:
    put(disk.engine, b"old")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:

        def stay(old: bytes | None) -> bytes:
            os.write(writing, b"!")
            time.sleep(100)
            return b"never"

        disk.engine.register(NAME).update(stay)
        os._exit(1)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    os.close(writing)
    os.kill(child, 9)
    os.waitpid(child, 0)
    begun = time.monotonic()
    assert disk.engine.register(NAME).read() == b"old"
    assert put(disk.other(), b"new") == b"new"
    assert time.monotonic() - begun < SOON


def test_more_registers_than_are_kept_open_all_work(disk: DirectoryHarness) -> None:
    before = len(os.listdir("/proc/self/fd"))
    engine = disk.other()
    names = [f"many/{number}" for number in range(500)]
    for name in names:
        engine.register(name).update(lambda old, name=name: name.encode())
    assert [engine.register(name).read() for name in names] == [name.encode() for name in names]
    assert len(os.listdir("/proc/self/fd")) - before < 2 * MAX_OPEN_HANDLES + 10  # a map has a descriptor of its own


def test_a_register_is_used_on_after_its_engine_was_closed(harness: Harness) -> None:
    register = harness.engine.register(NAME)
    register.update(lambda old: b"one")
    harness.engine.close()
    assert register.read() == b"one"
    assert register.update(lambda old: b"two") == b"two"
    assert harness.other().register(NAME).read() == b"two"


def test_damage_is_reported_once_and_kept_and_the_register_begins_anew(disk: DirectoryHarness) -> None:
    put(disk.engine, b"value" * 20)
    path = disk.root / NAME
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    for verb in ("read", "update"):
        path.write_bytes(data)
        other = disk.other()
        with pytest.raises(CorruptValue, match=r"'\.psync/thing/x' is damaged") as caught:
            other.register(NAME).read() if verb == "read" else other.register(NAME).update(lambda old: b"new")
        assert Path(caught.value.quarantine).read_bytes() == bytes(data)
        assert other.register(NAME).read() is None
        put(other, b"new")
        assert disk.engine.register(NAME).read() == b"new"


def test_a_folder_in_its_place_is_an_error_that_says_so(disk: DirectoryHarness) -> None:
    (disk.root / NAME).mkdir(parents=True)
    with pytest.raises((StoreFailed, KeyError), match="x"):
        put(disk.engine, b"value")


def test_a_forked_child_changes_it_beside_its_parent(disk: DirectoryHarness) -> None:
    register = disk.engine.register(NAME)
    register.update(lambda old: b"")
    children = []
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            for _ in range(50):
                register.update(lambda old: (old or b"") + b".")
            os._exit(0)
    for _ in range(50):
        register.update(lambda old: (old or b"") + b".")
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert register.read() == b"." * 150
