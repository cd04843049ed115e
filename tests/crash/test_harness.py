"""The harness takes a new operation in three lines, and finds lost data where data is known to be lost: in PickleShare
0.7.5, and between two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pickleshare
import pytest

from psync import PickleShareDB
from tests.crash.harness import Lost, Operation, kill_everywhere
from tests.crash.refusal import refuse_everywhere

pytestmark = pytest.mark.crash


def old(name: str, act: Any, **more: Any) -> Operation:
    def prepare(db: Any) -> None:
        db["a"] = "old"
        for number in range(9):
            db.hset("cat", f"item {number}", number)

    return Operation(name, act, prepare, open=pickleshare.PickleShareDB, recover=lambda db: None, **more)


def test_the_harness_finds_that_pickleshare_loses_a_value_when_killed_in_setitem(root: Path) -> None:
    with pytest.raises(Lost, match=r"set: killed before call \d+, .*/a\): .*KeyError"):
        kill_everywhere(old("set", lambda db: db.__setitem__("a", "new")), root)


def test_the_harness_finds_that_pickleshare_loses_a_bucket_when_killed_in_hset(root: Path) -> None:
    def act(db: Any) -> None:
        db.hset("cat", "item 3", "new")

    with pytest.raises(Lost, match=r"hset: killed .* call \d+, "):
        kill_everywhere(old("hset", act, look=lambda db: db.hdict("cat")), root)


def test_the_harness_finds_that_pickleshare_loses_a_value_when_the_disk_is_full(root: Path) -> None:
    with pytest.raises(AssertionError, match=r"set: refused with (ENOSPC|EDQUOT) at call \d+, "):
        refuse_everywhere(old("set", lambda db: db.__setitem__("a", "new")), root)


def test_the_harness_is_content_with_a_delete_that_is_one_unlink(root: Path) -> None:
    seen = kill_everywhere(old("del", lambda db: db.__delitem__("a"), look=lambda db: "a" in db), root)
    assert seen.before
    assert seen.after


# -- an operation that nobody has struck before ------------------------------------------------------------


def two_items(db: PickleShareDB) -> None:
    db.hupdate("pair", {"left": 1, "right": 2})


def swap_items(db: PickleShareDB) -> None:
    db.hupdate("pair", {"left": 2, "right": 1})


def swap_in_two_steps(db: PickleShareDB) -> None:
    db.hset("pair", "left", 2)
    db.hset("pair", "right", 1)


def test_a_killed_swap_leaves_one_of_both(root: Path) -> None:
    swap = Operation("swap", act=swap_items, prepare=two_items, look=lambda db: db.hdict("pair"))
    assert kill_everywhere(swap, root).points


def test_a_swap_in_two_steps_is_found_to_be_none(root: Path) -> None:
    swap = Operation("swap", act=swap_in_two_steps, prepare=two_items, look=lambda db: db.hdict("pair"))
    with pytest.raises(Lost, match=r"swap: killed .* call \d+"):
        kill_everywhere(swap, root)
