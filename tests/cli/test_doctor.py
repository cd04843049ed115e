"""``psync doctor DIR`` says what works there, which problems it finds, and their remedies."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from psync import CorruptValue, Event, PickleShareDB
from psync.cli.main import main
from psync.engine.contract.report import ELSEWHERE, NOTE, OK, WRONG, Finding, Identity, verdict
from psync.engine.directory.admin.contents import examine_contents
from psync.engine.directory.admin.environment import Mount, network_options
from psync.engine.directory.admin.pair import FIRST, Invitation, pair_hosts
from psync.engine.directory.admin.promise import APART, promise
from tests.cli.shell import ENVIRON, psync
from tests.cli.test_status import snapshot
from tests.security.test_directories import as_user
from tests.support import files

pytestmark = files

TRIALS = (
    "file system, space, directory, parents, rename, hard links, unnamed files, locks, locks of the dead, "
    "shared memory, time stamps, wake-ups, inotify, descriptors, psync, promise"
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
    assert [*found] == TRIALS
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
            (root / "a").mkdir(exist_ok=True)
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
    assert entry["remedy"].startswith(f"chmod o-w '{root}/open'; or ")
    (root / "open" / "below").mkdir(mode=0o700)
    assert findings(root / "open" / "below", 1)["parents"]["state"] == "wrong"
    (root / "open").chmod(0o1777)
    assert findings(root / "open" / "below")["parents"]["state"] == "ok"
    ran = psync("doctor", root / "open")
    assert (ran.code, ran.out.splitlines()[-1]) == (1, f"{root}/open: 1 problem")
    assert "WRONG   directory: " in ran.out and "        remedy: chmod o-w" in ran.out


@pytest.mark.parametrize("variable", ["PSYNC_SERIALIZER", "PSYNC_KEY_FILE"])
def test_where_nothing_planted_can_run_who_could_write_there_is_a_note(
    root: Path, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("6b" * 32)
    key.chmod(0o600)
    monkeypatch.setenv(variable, {"PSYNC_SERIALIZER": "json", "PSYNC_KEY_FILE": str(key)}[variable])
    monkeypatch.setitem(ENVIRON, variable, os.environ[variable])
    root.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="can run no code"):
        PickleShareDB(root)["a"] = 1
    found = findings(root)
    assert found["directory"]["state"] == "note" and "can be written to by everybody" in found["directory"]["says"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ("rw,hard,vers=4.2", 0),
        ("rw,hard,local_lock=flock", 1),
        ("rw,soft,nolock", 2),
        ("rw,soft,local_lock=none", 1),
        ("rw,localflock", 1),
        ("rw,nobrl", 1),
    ],
)
def test_how_a_network_file_system_is_mounted_matters(options: str, wrong: int) -> None:
    mount = Mount("nfs4", "server:/export", "/mnt", tuple(options.split(",")))
    found = [*network_options(mount)]
    assert [each.state for each in found] == ["wrong"] * wrong
    assert all(each.remedy for each in found)
    summed_up = promise(found, network=True)
    assert summed_up.state == "note"
    assert ("among hosts" in summed_up.says) is (wrong == 0)
    assert all(each.what in summed_up.says for each in found)


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
        "locks",
        "fcntl locks",
        "visibility",
        "clocks",
    ]


def test_who_is_alone_is_told_so(root: Path) -> None:
    command = [sys.executable, "-m", "psync", "doctor", "--pair", "--timeout", "0.5", str(root)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "no other host was there within 0.5 seconds" in ended.stderr


# -- what is promised ------------------------------------------------------------------------------------

EVERY_FINDING = [*TRIALS[:-1], "writing", "reading", "second names", "format", "mount option nolock", "quarantine"]
"""The findings that can be wrong, and some that are never."""


@pytest.mark.parametrize("what", EVERY_FINDING)
@pytest.mark.parametrize("network", [False, True])
def test_nothing_is_promised_that_was_found_wrong(what: str, network: bool) -> None:
    found = [Finding(each, WRONG if each == what else OK, "") for each in EVERY_FINDING]
    summed_up = promise(found, network=network)
    if what == "quarantine":  # damage of the past is no property of the directory
        assert summed_up.state == (NOTE if network else OK)
    else:
        assert summed_up.state != OK
    if what in ("writing", "file system"):
        assert summed_up.state == WRONG and "reading only" in summed_up.says
    elif what == "wake-ups":
        assert "woken by the kernel" not in summed_up.says
        assert "a waiter looks" in summed_up.says
    elif what not in APART:
        assert what in summed_up.says and "all that the README promises:" not in summed_up.says
    assert verdict([*found, summed_up]) == "1 problem"


def test_each_finding_that_can_be_wrong_is_in_the_table() -> None:
    from psync.engine.directory import admin

    written = "".join(path.read_text() for path in Path(admin.__file__).parent.glob("*.py") if path.name != "pair.py")
    named = set(re.findall(r'Finding\(\s*"([^"]+)", WRONG', written)) | set(
        re.findall(r'Finding\(\s*"([^"]+)"', written)
    )
    assert named - {"contents", "foreign files", "links", "at work", "unknown", "stale owners", "litter"} <= set(
        EVERY_FINDING
    )


def test_without_other_hosts_in_view_all_is_not_well() -> None:
    found = [Finding("locks", OK, ""), Finding(ELSEWHERE, NOTE, "")]
    assert "all is well" not in verdict(found)
    assert verdict([*found, Finding("locks", WRONG, "")]) == "1 problem"


# -- real directories in which something is missing ------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and be somebody else")


def in_namespace(script: str, *arguments: object, options: str = "-m") -> subprocess.CompletedProcess[str]:
    """Run a shell script in mount and user namespaces of its own; `$PSYNC` is the command there."""
    command = ["unshare", options, "sh", "-ec", script, "sh", *map(str, arguments)]
    environ = {**ENVIRON, "PSYNC": f"{sys.executable} -m psync", "PYTHON": sys.executable}
    return subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=120)


def told(text: str) -> dict[str, dict[str, str]]:
    return {each["what"]: each for each in json.loads(text)["findings"]}


@as_root
@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_without_inotify_a_waiter_looks_every_50_ms(root: Path, limit: str) -> None:
    PickleShareDB(root)["a"] = 1
    ran = in_namespace(f'echo 0 > /proc/sys/user/{limit}; $PSYNC doctor "$1" --json', root, options="-Ur")
    if limit in ran.stderr:
        pytest.skip("the kernel has no such limit")
    found = told(ran.stdout)
    assert (ran.returncode, found["wake-ups"]["state"], found["promise"]["state"]) == (1, "wrong", "note")
    assert found["promise"]["says"].endswith("a waiter looks every 50 ms")


@as_root
@pytest.mark.parametrize("used", [False, True])
def test_a_read_only_mount_is_for_reading_only(root: Path, used: bool) -> None:
    if used:
        PickleShareDB(root)["a"] = 1
    script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; $PSYNC doctor "$1" --json'
    ran = in_namespace(script, root)
    found = told(ran.stdout)
    assert [found[what]["state"] for what in ("file system", "writing", "promise")] == ["wrong"] * 3
    assert ran.returncode == 1 and "reading only" in found["promise"]["says"]


@as_root
@pytest.mark.parametrize("closed", ["parent", "directory", ".psync", ".psync/tmp", "folder", "value"])
def test_a_user_that_may_not_read_or_write_is_told_which_folder_refuses(root: Path, closed: str) -> None:
    root.chmod(0o755)
    store = root / "parent" / "store"
    store.mkdir(parents=True)
    with PickleShareDB(store) as db:
        db["folder/key"] = 1
        db.engine.owner()
    for path in (root / "parent", *(root / "parent").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    refuses = {"parent": store.parent, "directory": store, "value": store / "folder/key"}.get(closed, store / closed)
    refuses.chmod(0o700 if refuses.is_dir() else 0o600)

    def doctor() -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            return main(["doctor", "--json", str(store)]), out.getvalue()

    doctor()  # which imports all that it needs: the user may not be let into the folders of Python
    code, out = as_user(20001, [], doctor)
    found = told(out)
    mode = "0600" if closed == "value" else "0700"
    assert code == 1
    assert (
        f"{refuses} belongs to user root, group root, has mode {mode}, and refuses user 20001"
        in (found["reading"]["says"])
    )
    assert "umask=0o022" in found["reading"]["remedy"]
    assert found["promise"]["state"] != "ok"
    if closed not in ("parent", "directory", ".psync"):
        assert found["writing"]["state"] == found["promise"]["state"] == "wrong"


def test_a_snapshot_of_hard_links_is_told(root: Path) -> None:
    store = root / "store"
    with PickleShareDB(store) as db:
        db["value"] = 1
        db.hset("category", "item", 1)
        Event(db, "e").set()
        assert not any(each.what == "second names" for each in examine_contents(str(store)))
        shutil.copytree(store, root / "snapshot", copy_function=os.link)
        ran = psync("doctor", store, "--json")
        entry = told(ran.out)["second names"]
        assert ran.code == 1 and ".psync/event/e" in entry["says"] and "/category/" in entry["says"]
        assert "/value" not in entry["says"]  # a value is replaced
        command = entry["remedy"].partition(": ")[2].partition(" ; ")[0]
    subprocess.run(command, shell=True, check=True)
    assert psync("doctor", store).code == 0
    with PickleShareDB(store) as db:
        db.hset("category", "item", 2)
        assert Event(db, "e").is_set()


# -- two sides between which locks do not reach ----------------------------------------------------------

bindfs = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("bindfs") is None or not os.path.exists("/dev/fuse"),
    reason="needs root, bindfs and /dev/fuse",
)
TWO_MOUNTS = 'mkdir -m 700 "$1/src" "$1/m1" "$1/m2"; bindfs "$1/src" "$1/m1"; bindfs "$1/src" "$1/m2"; '


@as_root
@bindfs
def test_two_sides_that_do_not_see_each_others_locks_find_each_other_all_the_same(root: Path) -> None:
    pair = '$PSYNC doctor --pair --timeout 60 "$1/m{0}" > "$1/out{0}" || echo $? > "$1/code{0}"'
    ran = in_namespace(f"{TWO_MOUNTS}{pair.format(1)} & {pair.format(2)}; wait", root)
    assert ran.returncode == 0, ran.stderr
    for side in "12":
        said = (root / f"out{side}").read_text()
        assert "WRONG   locks: both sides had it at the same time\n        remedy: mount it" in said
        assert (root / f"code{side}").read_text() == "1\n"
    assert not (root / "src/.psync/pair").exists()


@as_root
@bindfs
def test_a_bind_mount_of_such_a_file_system_is_one_too(root: Path) -> None:
    script = f'{TWO_MOUNTS}mkdir "$1/bound"; mount --bind "$1/m1" "$1/bound"; $PSYNC doctor --json "$1/bound"'
    ran = in_namespace(script, root)
    assert ran.returncode == 0, ran.stderr
    assert told(ran.stdout)[ELSEWHERE]["state"] == "note"


@as_root
@bindfs
def test_one_side_alone_says_that_it_cannot_tell_whether_locks_reach_the_other(root: Path) -> None:
    ran = in_namespace(f'{TWO_MOUNTS}$PSYNC doctor "$1/m1"; $PSYNC doctor --json "$1/m1"', root)
    assert ran.returncode == 0, ran.stderr
    plain, _, rest = ran.stdout.partition("{")
    assert "all is well" not in plain and "--pair" in plain.splitlines()[-1]
    found = told("{" + rest)
    assert (found[ELSEWHERE]["state"], found["promise"]["state"]) == ("note", "note")


def test_an_invitation_whose_owner_lock_is_free_stands_until_its_time_is_over(root: Path) -> None:
    """Where locks do not reach, the inviting side always looks dead."""
    with PickleShareDB(root, sharing="network") as db:
        invitation = Invitation(7, 1.0, Identity("another boot", 1, 1, 1, "elsewhere", 0.0)).packed()
        db.engine.create(FIRST, invitation)
        with pytest.raises(TimeoutError):
            list(pair_hosts(str(root), 0.4))
        cell = db.engine.read(FIRST)
        assert cell is not None and cell.payload == invitation
        assert list(db.engine.list(".psync/pair")) == [FIRST]
        with pytest.raises(TimeoutError):
            list(pair_hosts(str(root), 1.5))  # in which its time ends
        assert not (root / ".psync/pair").exists()


def test_the_invitation_of_a_killed_process_of_this_host_is_taken_away_at_once(root: Path) -> None:
    command = [sys.executable, "-m", "psync", "doctor", "--pair", "--timeout", "1000", str(root)]
    one = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (root / ".psync/pair/first").exists():
        time.sleep(0.01)
    one.kill()
    one.wait()
    pair = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [each.wait(100) for each in pair] == [0, 0]
    assert not (root / ".psync/pair").exists()


def test_who_waited_in_vain_leaves_nothing_behind(root: Path) -> None:
    PickleShareDB(root)["a"] = 1
    before = set(snapshot(root))
    for _ in range(2):
        with pytest.raises(TimeoutError, match="no other host"):
            list(pair_hosts(str(root), 0.2))
    assert set(snapshot(root)) == before
