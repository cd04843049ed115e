"""``psync doctor DIR`` says what works there, which problems it finds, and their remedies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from psync import CorruptValue, PickleShareDB
from psync.engine.directory.admin.environment import Mount, network_options, promise
from tests.cli.shell import ENVIRON, psync
from tests.cli.test_status import snapshot
from tests.support import files

pytestmark = files

TRIALS = (
    "file system, space, directory, parents, rename, hard links, unnamed files, locks, locks of the dead, "
    "shared memory, time stamps, wake-ups, inotify, descriptors, promise"
).split(", ")
KILLED = """
import os, signal, sys
from psync.engine.directory.fs.temporary import Temporary
from psync import DirectoryEngine
engine = DirectoryEngine(sys.argv[1])
engine.owner()
Temporary(engine.layout.tmp, b"half written", sync=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


def findings(root: Path, code: int = 0) -> dict[str, dict[str, str]]:
    ran = psync("doctor", root, "--json")
    told = json.loads(ran.out)
    assert (ran.code, ran.err, told["well"]) == (code, "", code == 0), ran.out
    return {each["what"]: each for each in told["findings"]}


def test_a_good_directory_is_well_and_left_as_it_was(root: Path) -> None:
    found = findings(root)
    assert [*found] == [*TRIALS, "psync"]
    assert {each["state"] for each in found.values()} <= {"ok", "note"}
    assert [found[trial]["state"] for trial in ("rename", "hard links", "locks", "locks of the dead")] == ["ok"] * 4
    assert list(root.iterdir()) == []
    ran = psync("doctor", root)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith(f"{root}: all is well\n")


def test_one_that_is_used_is_left_as_it_was_too(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["a"] = 1
        db.engine.owner()
        before = {name: what[0] for name, what in snapshot(root).items()}
        found = findings(root)
        assert {name: what[0] for name, what in snapshot(root).items()} == before
        assert found["at work"]["says"].startswith(f"1 processes: pid {os.getpid()} on ")


def test_what_killed_processes_left_is_named_and_no_trouble(root: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)], env=ENVIRON, check=False)
    assert killed.returncode == -9
    found = findings(root)
    assert found["stale owners"]["says"].startswith("1 processes ended without leaving: pid ")
    assert found["litter"]["says"].startswith("1 files of writers that were killed: ")
    with PickleShareDB(root) as db:  # which clears it away, as was said
        assert db.keys() == []
    assert {"stale owners", "litter"}.isdisjoint(findings(root))


def test_damage_is_told_with_its_reason_and_a_remedy(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["a/b"] = [1, 2, 3]
        (root / "a/b").write_bytes((root / "a/b").read_bytes()[:-2] + b"??")
        with pytest.raises(CorruptValue):
            db.uncache()
            db["a/b"]
    entry = findings(root, 1)["quarantine"]
    assert "'a/b' was damaged (the checksum does not fit the bytes)" in entry["says"]
    assert ".psync/quarantine/" in entry["says"]
    assert "then remove that file" in entry["remedy"]


def test_what_was_set_aside_is_put_back_when_it_was_repaired(root: Path) -> None:
    with PickleShareDB(root) as db:
        db.update({"a/b": [1, 2, 3], "c": 1})
        good = (root / "a/b").read_bytes()
        for damaged in (good[:-2] + b"??", good[:-1]):
            (root / "a/b").write_bytes(damaged)
            with pytest.raises(CorruptValue):
                db["a/b"]
        first, last = sorted(path for path in (root / ".psync/quarantine").iterdir() if path.suffix != ".why")
        ran = psync("doctor", root, "--restore", "a/b")
        assert ran.code == 1 and f"{last} is still damaged (" in ran.err and "repair that file first" in ran.err
        last.write_bytes(good)
        ran = psync("doctor", root, "--restore", "a/b")
        assert (ran.code, ran.out) == (0, "a/b is there again\n")
        assert db["a/b"] == [1, 2, 3]
        first.write_bytes(good)
        ran = psync("doctor", root, "--restore", first.name)
        assert ran.code == 1 and "there is a value at 'a/b' again" in ran.err
        ran = psync("doctor", root, "--restore", "c")
        assert ran.code == 1 and "nothing of the name 'c' is in" in ran.err
        del db["a/b"]
        assert psync("doctor", root, "--restore", first.name).code == 0
        assert db["a/b"] == [1, 2, 3] and list((root / ".psync/quarantine").iterdir()) == []


def test_who_else_could_write_there_is_told(root: Path) -> None:
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    entry = findings(root / "open", 1)["directory"]
    assert "can be written to by everybody (mode 0777)" in entry["says"]
    assert entry["remedy"] == f"chmod o-w '{root}/open'"
    (root / "open" / "below").mkdir(mode=0o700)
    assert findings(root / "open" / "below", 1)["parents"]["state"] == "wrong"
    (root / "open").chmod(0o1777)
    assert findings(root / "open" / "below")["parents"]["state"] == "ok"
    ran = psync("doctor", root / "open")
    assert (ran.code, ran.out.splitlines()[-1]) == (1, f"{root}/open: 1 problem")
    assert "WRONG   directory: " in ran.out and "        remedy: chmod o-w" in ran.out


@pytest.mark.parametrize(
    ("options", "wrong"),
    [("rw,hard,vers=4.2", 0), ("rw,hard,local_lock=flock", 1), ("rw,soft,nolock", 2), ("rw,soft,local_lock=none", 1)],
)
def test_how_a_network_file_system_is_mounted_matters(options: str, wrong: int) -> None:
    mount = Mount("nfs4", "server:/export", "/mnt", tuple(options.split(",")))
    found = [*network_options(mount), promise(mount)]
    assert [each.state for each in found] == ["wrong"] * wrong + ["note"]
    assert all(each.remedy for each in found[:-1])
    assert "among hosts" in found[-1].says


def test_a_link_is_followed_and_told(root: Path) -> None:
    (root / "real").mkdir(mode=0o700)
    (root / "link").symlink_to("real")
    assert findings(root / "link")["links"]["says"] == f"{root}/link is {os.path.realpath(root)}/real"


def test_wrong_use(root: Path) -> None:
    ran = psync("doctor", root / "none")
    assert (ran.code, ran.out, ran.err) == (1, "", f"psync doctor: {root}/none is not a directory\n")
    assert psync("doctor").code == psync("doctor", root, "--no-such").code == 2


def test_two_who_are_started_together_try_the_directory_out(root: Path) -> None:
    command = [sys.executable, "-m", "psync", "doctor", "--pair", "--timeout", "100", "--json", str(root)]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [json.loads(one.communicate(timeout=100)[0]) for one in pair]
    assert [one.returncode for one in pair] == [0, 0]
    assert said[0]["findings"] == said[1]["findings"]
    assert [finding["what"] for finding in said[0]["findings"]] == [
        "flock between the two",
        "fcntl between the two",
        "visibility",
        "clocks",
    ]


def test_who_is_alone_is_told_so(root: Path) -> None:
    command = [sys.executable, "-m", "psync", "doctor", "--pair", "--timeout", "0.5", str(root)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "no other host was there within 0.5 seconds" in ended.stderr
