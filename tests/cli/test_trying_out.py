"""``psync test DIR`` says whether a directory will do, and leaves it as it was."""

from __future__ import annotations

import re
from pathlib import Path

from psync import PickleShareDB
from psync.cli import test as trial
from tests.cli.shell import psync
from tests.support import files


@files
def test_a_good_directory_passes_and_is_left_as_it_was(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["mine"] = 1
    before = sorted(root.rglob("*"))
    ran = psync("test", root, "--processes", "3", "--rounds", "50")
    assert (ran.code, ran.err) == (0, "")
    assert re.sub(r"\([\d.]+ s\)", "(...)", ran.out) == (
        "ok      values: 4 stored, read and removed (...)\n"
        "ok      hashed categories: 300 items set, compressed and read (...)\n"
        "ok      waiting: another process answered (...)\n"
        "ok      processes at once: 3 processes made 50 changes each of the same keys, none is lost (...)\n"
        f"{root}: all is well\n"
    )
    assert sorted(root.rglob("*")) == before


@files
def test_a_directory_that_is_not_there_is_refused(root: Path) -> None:
    ran = psync("test", root / "nothing")
    assert (ran.code, ran.err) == (1, f"psync test: {root}/nothing is not a directory\n")


@files
def test_what_goes_wrong_is_printed_and_exits_1(root: Path, monkeypatch, capsys) -> None:
    from psync.cli.main import main

    def forgetful(db: PickleShareDB, *args: object) -> str:
        trial.expect(False, "the sky is down")
        return ""

    monkeypatch.setattr(trial, "waiting", forgetful)
    monkeypatch.setattr(trial, "stress", lambda db, processes, rounds: "fine")
    assert main(["test", str(root)]) == 1
    said = capsys.readouterr().out
    assert "FAILED  waiting: AssertionError: the sky is down\n" in said
    assert said.endswith(f"{root}: 1 of 4 failed\n")
    assert list(root.iterdir()) == []
