"""Killed anywhere while a file is replaced as on a network file system: the old content is there, or the new one.

An NFS client takes the name from a file that its host has open before another one gets it; so beside every call each
rename over a file is struck in its middle, and so is the recovery.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from tests.crash.concurrent_reader import look_everywhere
from tests.crash.harness import Operation, kill_everywhere
from tests.crash.interruption import interrupt_everywhere
from tests.crash.operations import APART, HASHED, LETTERS, SETTING, hashed, put, text, use_category
from tests.crash.refusal import refuse_everywhere
from tests.support import SCALE, scaled

pytestmark = pytest.mark.crash
far = functools.partial(PickleShareDB, sharing="network")
LONG = "n" * 255
"""No successor's name has room for it."""


def _move_a_big_one(db: Any) -> None:
    db.engine.move("box/value", "box/moved")


def _compressed_and_new_ones(db: Any) -> None:
    db.hupdate("cat", dict.fromkeys(APART, "old"))
    db.hcompress("cat")
    db.hupdate("cat", dict.fromkeys(APART[::2], "newer"))


REPLACING = [
    *SETTING[5:6],
    *SETTING[7:],
    hashed(
        "hcompress of a compressed category",
        lambda db: db.hcompress("cat"),
        _compressed_and_new_ones,
        use=use_category,
        silent=True,
    ),
    put("add a new key to a folder", None, text("n", 20)),
    Operation(
        "replace under a long name",
        lambda db: db.__setitem__(f"box/{LONG}", text("n", 9001)),
        lambda db: db.__setitem__(f"box/{LONG}", text("o", 9000)),
        says="box",
    ),
    Operation(
        "move",
        _move_a_big_one,
        lambda db: db.__setitem__("box/value", text("o", 9000)),
        look=lambda db: sorted({key[:3]: value for key, value in db.items()}.items()),
        silent=True,
    ),
    *(
        each
        for each in HASHED
        if each.name in ("hdel", "hpop", "hcompress", "hset into a new bucket", "hdel of the last item")
    ),
    *LETTERS,
]


MADE = ("add a new key to a folder", "hset into a new bucket", "hdel of the last item", "post")
"""Nothing is replaced: a new file gets its name."""


def distant(operation: Operation) -> Operation:
    return dataclasses.replace(operation, open=far)


@pytest.mark.parametrize("operation", REPLACING, ids=lambda operation: operation.name)
def test_a_kill_leaves_the_old_content_or_the_new_one(operation: Operation, root: Path) -> None:
    stride = 3 if "hcompress" in operation.name and SCALE < 5 else 1  # they make hundreds of calls
    seen = kill_everywhere(distant(operation), root, stride=stride, again=scaled(4), network=True)
    assert seen.before
    assert seen.after
    assert seen.halfway or operation.name in MADE, "no rename over a file was struck"


@pytest.mark.parametrize(
    "operation", [each for each in REPLACING if not each.looking_changes], ids=lambda operation: operation.name
)
def test_a_reader_beside_a_replacement_sees_the_old_content_or_the_new_one(operation: Operation, root: Path) -> None:
    """Also while the name leads to nothing."""
    assert look_everywhere(distant(operation), root, network=True).before


@pytest.mark.parametrize("operation", [SETTING[7], SETTING[5], REPLACING[-1]], ids=lambda operation: operation.name)
def test_a_refused_replacement_changes_nothing_or_is_made(operation: Operation, root: Path) -> None:
    assert refuse_everywhere(distant(operation), root).points


@pytest.mark.parametrize("operation", [SETTING[7], REPLACING[-1]], ids=lambda operation: operation.name)
def test_an_interrupted_replacement_is_made_or_not(operation: Operation, root: Path) -> None:
    assert interrupt_everywhere(distant(operation), root).points
