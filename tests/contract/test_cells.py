"""The contract of cells: one name, one value, replaced whole."""

from __future__ import annotations

import time

import pytest

from psync.engine import Engine
from psync.errors import InvalidKey
from tests.contract.harness import Harness
from tests.contract.payloads import SIZES, loaded, pickle_of, pickled

# -- read and write --------------------------------------------------------------------------------


def test_a_name_that_was_never_written_reads_as_none(engine: Engine) -> None:
    assert engine.read("a") is None
    assert engine.read("a/b/c") is None


@pytest.mark.parametrize("value", [None, "", 0, "ä" * 5000, {"k": [1, 2.5]}, b"\x80\x05}" * 3000], ids=range(6))
def test_what_was_written_is_read(harness: Harness, value: object) -> None:
    harness.engine.write("a", pickled(value))
    for engine in (harness.engine, harness.other()):
        cell = engine.read("a")
        assert cell is not None and cell.payload == pickled(value) and cell.sealed


def test_a_value_of_any_size_comes_back_whole(engine: Engine) -> None:
    for size in SIZES:
        engine.write(f"a{size}", pickle_of(size))
        assert engine.create(f"b/{size}", pickle_of(size))
        for name in (f"a{size}", f"b/{size}"):
            cell = engine.read(name)
            assert cell is not None and cell.payload == pickle_of(size), f"{size} bytes"


@pytest.mark.parametrize("old", [4, 100, 4070, 4096, 5000, 1 << 20])
def test_a_value_of_any_size_replaces_one_of_any_other(harness: Harness, old: int) -> None:
    other = harness.other()
    for new in SIZES:
        harness.engine.write("a", pickle_of(old))
        harness.engine.write("a", pickle_of(new, seed=1))
        cell = other.read("a")
        assert cell is not None and cell.payload == pickle_of(new, seed=1), f"{new} bytes over {old}"


def test_folders_come_as_they_are_needed(engine: Engine) -> None:
    engine.write("a/b/c", pickled(1))
    assert engine.create("d/e/f", pickled(2))
    assert engine.update("g/h/i", lambda old: pickled(3)) == pickled(3)
    assert engine.move("a/b/c", "j/k/l")
    assert sorted(engine.list()) == ["d/e/f", "g/h/i", "j/k/l"]


def test_any_name_that_fits_can_be_used(engine: Engine) -> None:
    names = ["ä", "a b", "x" * 255, "日本/語", "a.b", "%41", "c\nd", "d/" * 40 + "n", "xx", "e/0f", "~", "-", "A"]
    for name in names:
        assert engine.create(name, pickled(name)) and not engine.create(name, pickled(2))
    for name in names:
        cell = engine.read(name)
        assert cell is not None and cell.payload == pickled(name)
    assert sorted(engine.list()) == sorted(names)
    assert all(map(engine.delete, names)) and list(engine.list()) == []


# -- known and version -----------------------------------------------------------------------------


def test_a_cell_that_is_still_current_is_returned_itself(engine: Engine) -> None:
    engine.write("a", pickled(1))
    time.sleep(0.05)  # an engine may not trust time stamps that are too fresh
    known = engine.read("a")
    assert known is not None
    assert engine.read("a", known) is known
    assert engine.read("b", known) is None


@pytest.mark.parametrize("size", [100, 5000])
def test_a_known_cell_is_never_served_after_a_write_of_the_same_size(harness: Harness, size: int) -> None:
    other = harness.other()
    payloads = [pickle_of(size, seed) for seed in range(8)]
    known = None
    for turn in range(300):
        writer = other if turn % 3 else harness.engine
        writer.write("a", payloads[turn % 8])
        known = harness.engine.read("a", known)
        assert known is not None and known.payload == payloads[turn % 8], f"stale in turn {turn}"


@pytest.mark.parametrize("size", [100, 5000])
def test_a_known_cell_is_never_served_after_its_name_was_made_anew(harness: Harness, size: int) -> None:
    other = harness.other()
    payloads = [pickle_of(size, seed) for seed in range(8)]
    known = None
    for turn in range(200):
        writer = other if turn % 3 else harness.engine
        assert writer.create("a", payloads[turn % 8])
        known = harness.engine.read("a", known)
        assert known is not None and known.payload == payloads[turn % 8], f"stale in turn {turn}"
        assert writer.delete("a")
        assert harness.engine.read("a", known) is None


def test_versions_of_different_values_differ(engine: Engine) -> None:
    seen = set()
    for turn in range(100):
        engine.write("a", pickle_of(50, turn))
        cell = engine.read("a")
        assert cell is not None and cell.version not in seen
        seen.add(cell.version)


# -- create, delete, pop, move ---------------------------------------------------------------------


def test_create_leaves_a_name_that_exists_as_it_is(engine: Engine) -> None:
    assert engine.create("a", pickled(1)) is True
    assert engine.create("a", pickled(2)) is False
    cell = engine.read("a")
    assert cell is not None and cell.payload == pickled(1)
    assert engine.delete("a")
    assert engine.create("a", pickled(3)) is True


def test_delete_says_whether_it_removed_something(engine: Engine) -> None:
    engine.write("a", pickled(1))
    assert engine.delete("a") is True
    assert engine.read("a") is None
    assert engine.delete("a") is False
    assert engine.delete("never/there") is False


@pytest.mark.parametrize("size", [4, 4096, 100_000])
def test_pop_returns_the_last_value_and_removes_it(engine: Engine, size: int) -> None:
    engine.write("a/b", pickle_of(size))
    cell = engine.pop("a/b")
    assert cell is not None and cell.payload == pickle_of(size)
    assert engine.read("a/b") is None
    assert engine.pop("a/b") is None
    assert engine.pop("never/there") is None


def test_move_takes_the_value_along(engine: Engine) -> None:
    engine.write("a", pickled(1))
    assert engine.move("a", "b/c") is True
    assert engine.read("a") is None
    cell = engine.read("b/c")
    assert cell is not None and cell.payload == pickled(1)
    assert engine.move("a", "d") is False
    assert engine.read("d") is None


def test_move_never_replaces(engine: Engine) -> None:
    engine.write("a", pickled(1))
    engine.write("b", pickled(2))
    assert engine.move("a", "b") is False
    assert engine.move("a", "a") is False
    assert [loaded(cell.payload) for cell in map(engine.read, "ab") if cell] == [1, 2]


def test_a_moved_cell_is_not_mistaken_for_the_one_that_stood_there(engine: Engine) -> None:
    engine.write("a", pickle_of(60, 1))
    time.sleep(0.05)
    known = engine.read("a")
    engine.write("b", pickle_of(60, 2))
    assert engine.delete("a") and engine.move("b", "a")
    cell = engine.read("a", known)
    assert cell is not None and cell.payload == pickle_of(60, 2)


# -- update ----------------------------------------------------------------------------------------


def test_update_replaces_the_payload_by_what_the_function_returns(harness: Harness) -> None:
    engine = harness.engine
    assert engine.update("n", lambda old: pickled(0) if old is None else None) == pickled(0)
    for turn in range(1, 5):
        assert engine.update("n", lambda old: pickled(loaded(old or b"") + 1)) == pickled(turn)
    cell = harness.other().read("n")
    assert cell is not None and cell.payload == pickled(4)


@pytest.mark.parametrize("answer", ["none", "same"])
def test_an_update_that_changes_nothing_leaves_the_cell(engine: Engine, answer: str) -> None:
    engine.write("a", pickled(1))
    time.sleep(0.05)
    known = engine.read("a")
    assert engine.update("a", lambda old: old if answer == "same" else None) == pickled(1)
    assert engine.read("a", known) is known
    assert engine.update("b", lambda old: None) is None
    assert engine.read("b") is None


def test_an_update_whose_function_raises_leaves_the_cell_and_lets_go_of_it(engine: Engine) -> None:
    def fail(old: bytes | None) -> bytes:
        raise ZeroDivisionError

    engine.write("a", pickled(1))
    for name in "ab":
        with pytest.raises(ZeroDivisionError):
            engine.update(name, fail)
    cell = engine.read("a")
    assert cell is not None and cell.payload == pickled(1)
    assert engine.read("b") is None
    engine.write("a", pickled(2))
    assert engine.create("b", pickled(3))


@pytest.mark.parametrize("old", [4, 4096, 300_000])
def test_an_update_may_change_the_size(engine: Engine, old: int) -> None:
    before = pickle_of(old)
    for after in (pickle_of(new, 1) for new in (4, 4000, 5000, 300_000)):
        engine.write("a", before)
        assert engine.update("a", lambda payload, after=after: after if payload == before else None) == after
        cell = engine.read("a")
        assert cell is not None and cell.payload == after


def test_the_function_of_an_update_may_look_at_other_names(engine: Engine) -> None:
    engine.write("a", pickled(1))
    engine.write("b", pickled(2))

    def add(old: bytes | None) -> bytes:
        other = engine.read("b")
        assert other is not None and old is not None
        engine.write("c", old)
        return pickled(loaded(old) + loaded(other.payload))

    assert engine.update("a", add) == pickled(3)
    assert engine.read("c") is not None


# -- values and folders ----------------------------------------------------------------------------


def test_a_value_can_not_be_put_below_another(engine: Engine) -> None:
    engine.write("a", pickled(1))
    engine.write("x", pickled(2))
    for change in (
        lambda: engine.write("a/b", pickled(3)),
        lambda: engine.create("a/b", pickled(3)),
        lambda: engine.update("a/b", lambda old: pickled(3)),
        lambda: engine.move("x", "a/b"),
        lambda: engine.bucket("a/0b").append(b""),
    ):
        with pytest.raises(InvalidKey):
            change()
    assert sorted(engine.list()) == ["a", "x"]


def test_a_value_can_not_stand_where_a_folder_is(engine: Engine) -> None:
    engine.write("a/b", pickled(1))
    engine.write("x", pickled(2))
    for change in (
        lambda: engine.write("a", pickled(3)),
        lambda: engine.write("a", pickle_of(5000)),
        lambda: engine.create("a", pickled(3)),
        lambda: engine.update("a", lambda old: pickled(3)),
    ):
        with pytest.raises(InvalidKey):
            change()
    assert sorted(engine.list()) == ["a/b", "x"]


def test_a_folder_is_no_value_and_a_value_no_folder(engine: Engine) -> None:
    engine.write("a/b", pickled(1))
    for name in ("a", "a/b/c"):
        assert engine.read(name) is None
        assert engine.pop(name) is None
        assert engine.delete(name) is False
        assert engine.move(name, "new") is False
    assert list(engine.list()) == ["a/b"]


@pytest.mark.parametrize("verb", ["write", "write big", "create", "update", "move", "append"])
def test_a_folder_that_holds_nothing_any_more_does_not_stand_in_the_way(engine: Engine, verb: str) -> None:
    engine.write("x", pickled({}))
    engine.write("c/0f/a/b", pickled(1))
    assert engine.delete("c/0f/a/b")
    if verb.startswith("write"):
        engine.write("c/0f", pickle_of(100 if verb == "write" else 10_000))
    elif verb == "create":
        assert engine.create("c/0f", pickled(2))
    elif verb == "update":
        assert engine.update("c/0f", lambda old: None) is None
        assert engine.update("c/0f", lambda old: pickled(2)) == pickled(2)
    elif verb == "move":
        assert engine.move("x", "c/0f") is True
    else:
        assert engine.bucket("c/0f").tail() is None
        assert engine.bucket("c/0f").append(b"")
    assert "c/0f" in set(engine.list()) and engine.read("c/0f") is not None


# -- listing ---------------------------------------------------------------------------------------


def test_entries_are_what_is_directly_in_a_folder(engine: Engine) -> None:
    for name in ("a", "b", "f/c", "f/d", "f/g/e"):
        engine.write(name, pickled(name))
    names, folders = engine.entries()
    assert sorted(names) == ["a", "b"] and set(folders) - {".psync"} == {"f"}
    names, folders = engine.entries("f")
    assert (sorted(names), folders) == (["c", "d"], ["g"])
    assert engine.entries("nowhere") == engine.entries("f/nowhere") == ([], [])
    assert engine.entries("a") == ([], [])


def test_list_finds_every_name_below_a_folder(engine: Engine) -> None:
    names = {f"{folder}{number}" for folder in ("", "f/", "f/g/", "h/i/j/") for number in range(20)}
    for name in names:
        engine.write(name, pickled(name))
    assert set(engine.list()) == names
    assert len(list(engine.list())) == len(names)
    assert set(engine.list("f")) == {name for name in names if name.startswith("f/")}
    assert set(engine.list("h/i")) == {name for name in names if name.startswith("h/i/")}
    assert list(engine.list("nowhere")) == list(engine.list("0")) == []
    assert engine.delete("f/g/3")
    assert set(engine.list()) == names - {"f/g/3"}


def test_psyncs_own_names_are_listed_only_when_asked_for(harness: Harness) -> None:
    engine = harness.engine
    engine.write("a", pickled(1))
    engine.write(".psync/mailbox/m/0f", pickled({}))
    engine.log(".psync/queue/q").append([b"x"])
    engine.owner()
    assert list(engine.list()) == ["a"]
    assert {"a", ".psync/mailbox/m/0f"} <= set(engine.list(hidden=True))
    assert list(engine.list(".psync/mailbox", hidden=True)) == [".psync/mailbox/m/0f"]
    assert engine.entries(".psync/mailbox") == ([], ["m"])


def test_a_big_folder_is_listed_whole(engine: Engine) -> None:
    for number in range(1200):
        engine.create(f"f/{number}", b"\x80\x05N.")
    assert set(engine.list("f")) == {f"f/{number}" for number in range(1200)}
    assert set(engine.entries("f")[0]) == set(map(str, range(1200)))
