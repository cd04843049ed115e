"""Values whose class is not there, on the command line: they are named, and everything else is shown and done."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from psync import Mailbox, PickleShareDB, WorkQueue
from tests.cli.shell import psync
from tests.store.test_not_corruption import module

GONE = "a_module_of_yesterday"


class Visitor:
    pass


Visitor.__qualname__ = "Visitor"


@pytest.fixture
def ids(place: str) -> list[str]:
    """The ids of three tasks in a store with a bad value, item and message among good ones."""
    with module(GONE, Visitor=Visitor), PickleShareDB(place) as db:
        db.update({"a": 1, "bad": Visitor(), "c": 3})
        db.hupdate("cat", {"bad": Visitor(), "good": 1})
        db.hcompress("cat")
        Mailbox(db, "m").post("bad", Visitor())
        queue = WorkQueue(db, "jobs")
        ids = queue.put_many(range(3))
        for task in queue:
            task.done(Visitor() if task.value == 1 else task.value)
    return ids


def test_dump_gives_all_others_and_names_it(place: str, ids: list[str]) -> None:
    ran = psync("dump", place)
    assert (ran.code, ast.literal_eval(ran.out)) == (1, [("a", 1), ("c", 3), ("cat/xx", {"good": 1})])
    assert "'bad': can't be unpickled here: ModuleNotFoundError" in ran.err
    assert "'cat/xx': can't be unpickled here: ModuleNotFoundError" in ran.err
    assert len(ran.err.splitlines()) == 2


def test_results_gives_all_others_and_names_it(place: str, ids: list[str]) -> None:
    ran = psync("results", place, "jobs")
    assert (ran.code, sorted(ran.out.splitlines())) == (1, [f"{ids[0]}\t0", f"{ids[2]}\t2"])
    assert ran.err.startswith(f"psync results: the result of task {ids[1]!r} of the queue 'jobs' can't be unpickled")
    assert len(ran.err.splitlines()) == 1
    ran = psync("results", place, "jobs", *ids)
    assert (ran.code, ran.out.splitlines()) == (1, ["0", "2"])
    assert ran.err.startswith(f"psync results: the result of task {ids[1]!r}")
    ran = psync("results", "--json", place, "jobs")
    told = {each["id"]: each for each in map(json.loads, ran.out.splitlines())}
    assert (ran.code, told[ids[0]]["result"], told[ids[2]]["result"]) == (1, 0, 2)
    assert f"{GONE}.Visitor" in told[ids[1]]["error"]


def test_the_other_commands_need_not_read_it(place: str, ids: list[str], tmp_path: Path) -> None:
    for command in (
        ("ls", place),
        ("ls", "-l", place),
        ("status", place),
        ("compress", place, "cat"),
        ("copy", place, f"{place}-copy"),
        ("get", place, "a"),
        ("set", place, "d", "4"),
        ("del", place, "bad"),
    ):
        ran = psync(*command)
        assert (ran.code, ran.err) == (0, ""), command
    with module(GONE, Visitor=Visitor), PickleShareDB(f"{place}-copy") as db:
        assert type(db["bad"]) is type(db.hdict("cat")["bad"]) is type(Mailbox(db, "m").get("bad", 0)) is Visitor
        assert type(WorkQueue(db, "jobs").results.get(ids[1], 0)) is Visitor


@pytest.mark.parametrize("command", ["get", "wait"])
def test_to_read_it_is_a_failure_in_one_line(place: str, ids: list[str], command: str) -> None:
    ran = psync(command, place, "bad")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert f"It needs {GONE}.Visitor" in ran.err
