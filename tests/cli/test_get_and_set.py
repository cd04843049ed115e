"""``psync get``, ``set``, ``del``, ``ls``, ``wait`` and ``compress``: values for shell scripts."""

from __future__ import annotations

import datetime
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.cli.main import main
from tests.cli.shell import ENVIRON, psync
from tests.support import files


def typed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run a command in this process: quicker, where nothing is read and no bytes are printed."""
    code = main([str(each) for each in arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


Shell = pytest.CaptureFixture[str]


@pytest.fixture
def db(root: Path) -> Any:
    with PickleShareDB(root) as db:
        yield db


# -- get and set -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text", "value"),
    [
        ([], "text", "text"),
        ([], "5", "5"),
        ([], "", ""),
        ([], "two\nlines\n", "two\nlines\n"),
        (["--json"], '{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        (["--json"], '"5"', "5"),
        (["--literal"], "{'a': (1, b'x'), 2: {3}}", {"a": (1, b"x"), 2: {3}}),
        (["--literal"], "-5", -5),
    ],
)
def test_set_stores_text_or_what_it_stands_for(
    root: Path, db: Any, capsys: Shell, options: list[str], text: str, value: Any
) -> None:
    assert typed(capsys, "set", *options, root, "a/key", "--", text) == (0, "", "")
    assert db["a/key"] == value
    assert type(db["a/key"]) is type(value)


@pytest.mark.parametrize(
    ("value", "plain", "as_json", "as_literal"),
    [
        ("text", "text\n", '"text"\n', "'text'\n"),
        ("jäätelö \U0001f366", "jäätelö \U0001f366\n", None, "'jäätelö \U0001f366'\n"),
        (5, "5\n", "5\n", "5\n"),
        ({"a": [1, None]}, "{'a': [1, None]}\n", '{"a": [1, null]}\n', "{'a': [1, None]}\n"),
        (b"\x00\xff", None, None, "b'\\x00\\xff'\n"),
    ],
)
def test_get_prints_it(
    root: Path, db: Any, capsys: Shell, value: Any, plain: str, as_json: str, as_literal: str
) -> None:
    db["key"] = value
    if plain is not None:
        assert typed(capsys, "get", root, "key") == (0, plain, "")
    if as_json is not None:
        assert typed(capsys, "get", root, "key", "--json") == (0, as_json, "")
    assert typed(capsys, "get", "--literal", root, "key") == (0, as_literal, "")


def test_bytes_are_printed_as_they_are(root: Path, db: Any) -> None:
    db["key"] = bytes(range(256))
    command = [sys.executable, "-m", "psync", "get", root, "key"]
    run = subprocess.run(command, env=ENVIRON, capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, bytes(range(256)), b"")


def test_what_was_got_can_be_piped_into_set(root: Path, db: Any) -> None:
    name = "not utf-8: \udcff"
    db["from"] = name
    command = "{0} -m psync get {1} from | {0} -m psync set {1} to -"
    subprocess.run(command.format(sys.executable, shlex.quote(str(root))), shell=True, env=ENVIRON, check=True)
    assert db["to"] == name
    assert psync("set", root, "two", "-", typed="\n\n").code == 0
    assert db["two"] == "\n"
    assert psync("set", root, "three", "-", "--json", typed="[1,\n 2]\n").code == 0
    assert db["three"] == [1, 2]


def test_what_is_not_there_is_told_or_replaced_by_the_default(root: Path, db: Any, capsys: Shell) -> None:
    code, out, err = typed(capsys, "get", root, "key")
    assert (code, out, err) == (1, "", f"psync get: there is no key 'key' in {root}\n")
    assert typed(capsys, "get", root, "key", "--default", "none yet") == (0, "none yet\n", "")
    db["key"] = ""
    assert typed(capsys, "get", root, "key", "--default", "none yet") == (0, "\n", "")


def test_set_new_is_for_one_only(root: Path, db: Any, capsys: Shell) -> None:
    assert typed(capsys, "set", "--new", root, "leader", "me") == (0, "", "")
    code, out, err = typed(capsys, "set", "--new", root, "leader", "you")
    assert (code, out, err) == (1, "", f"psync set: there is a key 'leader' in {root} already\n")
    assert db["leader"] == "me"


def test_what_has_no_such_form_is_refused_in_words(root: Path, db: Any, capsys: Shell) -> None:
    db["day"] = datetime.date(2026, 11, 25)
    db["nan"] = float("nan")
    assert typed(capsys, "get", root, "day")[1] == "datetime.date(2026, 11, 25)\n"
    for key, form in ("day", "--json"), ("nan", "--json"), ("day", "--literal"), ("nan", "--literal"):
        code, out, err = typed(capsys, "get", root, key, form)
        assert (code, out) == (1, "")
        assert err.startswith(f"psync get: the value of '{key}' has ")
        assert err.count("\n") == 1


@files
def test_what_cannot_be_unpickled_here_is_said_in_words(root: Path, capsys: Shell) -> None:
    (root / "foreign").write_bytes(b"\x80\x02cno_such_module\nKind\n.")
    for command in "get", "wait":
        code, out, err = typed(capsys, command, root, "foreign")
        assert (code, out) == (1, "")
        assert "can't be unpickled here: ModuleNotFoundError" in err


# -- del and ls ------------------------------------------------------------------------------------


def test_del_removes_keys_and_names_those_that_are_not_there(root: Path, db: Any, capsys: Shell) -> None:
    db.update({"a": 1, "b/c": 2, "d": 3})
    assert typed(capsys, "del", root, "a", "b/c") == (0, "", "")
    code, _, err = typed(capsys, "del", root, "a", "d", "e")
    assert (code, err) == (1, f"psync del: there is no key 'a' in {root}\npsync del: there is no key 'e' in {root}\n")
    assert typed(capsys, "del", "-f", root, "a") == (0, "", "")
    assert list(db) == []
    db["a"] = 1
    assert typed(capsys, "del", root, "a", "../b")[0] == 1
    assert "a" in db, "nothing is removed when one of the names can't be a key"


def test_ls_lists_keys_in_order(root: Path, db: Any, capsys: Shell) -> None:
    db.update({"runs/2/speed": "x" * 100, "runs/10/speed": 2, "note": 3})
    assert typed(capsys, "ls", root) == (0, "note\nruns/10/speed\nruns/2/speed\n", "")
    assert typed(capsys, "ls", root, "runs/*/s*") == (0, "runs/10/speed\nruns/2/speed\n", "")
    assert typed(capsys, "ls", root, "no*") == (0, "note\n", "")
    assert typed(capsys, "ls", root, "none*") == (0, "", "")
    assert json.loads(typed(capsys, "ls", "--json", root)[1]) == ["note", "runs/10/speed", "runs/2/speed"]


@files
def test_ls_long_tells_sizes_and_times(root: Path, db: Any, capsys: Shell) -> None:
    db.update({"small": 1, "large": "x" * 10_000})
    today = datetime.date.today().isoformat()[:7]
    lines = [line.split() for line in typed(capsys, "ls", "-l", root)[1].splitlines()]
    assert [line[3] for line in lines] == ["large", "small"]
    assert all(line[1].startswith(today) for line in lines)
    assert int(lines[0][0]) > 10_000 > int(lines[1][0])
    [large, small] = json.loads(typed(capsys, "ls", "-l", "--json", root)[1])
    assert (large["key"], small["key"], large["bytes"]) == ("large", "small", int(lines[0][0]))


# -- wait ------------------------------------------------------------------------------------------


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "psync", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_wait_prints_the_value_when_it_comes(root: Path, db: Any) -> None:
    with start("wait", root, "a", "b", "--timeout", "60") as waiting:
        time.sleep(0.3)
        db["b"] = "second"
        assert waiting.poll() is None
        db["a"] = "first"
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, err) == (0, "first\nsecond\n", "")


def test_wait_any_prints_which(root: Path, db: Any, capsys: Shell) -> None:
    db["b"] = [1]
    assert typed(capsys, "wait", "--any", root, "a", "b") == (0, "b\t[1]\n", "")
    assert typed(capsys, "wait", "--any", "--json", root, "a", "b") == (0, '{"b": [1]}\n', "")


def test_wait_gone(root: Path, db: Any) -> None:
    db["a"] = 1
    with start("wait", "--gone", root, "a", "b") as waiting:
        time.sleep(0.3)
        assert waiting.poll() is None
        del db["a"]
        assert waiting.communicate(timeout=60) == ("", "")
    assert waiting.returncode == 0


def test_wait_in_vain_exits_124_and_says_for_what(root: Path, db: Any, capsys: Shell) -> None:
    db["b"] = 1
    code, out, err = typed(capsys, "wait", root, "a", "b", "c", "--timeout", "0.05")
    assert (code, out, err) == (124, "", f"psync wait: 'a', 'c' did not come to {root} within 0.05 seconds\n")
    code, out, err = typed(capsys, "wait", root, "a", "b", "--gone", "--timeout", "0")
    assert (code, out, err) == (124, "", f"psync wait: 'b' did not go from {root} within 0 seconds\n")


def test_wait_for_several_as_json_is_one_object(root: Path, db: Any, capsys: Shell) -> None:
    db.update({"a": 1, "b": None})
    assert typed(capsys, "wait", "--json", root, "a", "b") == (0, '{"a": 1, "b": null}\n', "")
    assert typed(capsys, "wait", "--json", root, "a") == (0, "1\n", "")


# -- compress --------------------------------------------------------------------------------------


def test_compress_folds_a_category_and_nothing_else(root: Path, db: Any, capsys: Shell) -> None:
    db.hupdate("hashed", {number: number for number in range(100)})
    assert typed(capsys, "compress", root, "hashed") == (0, "", "")
    assert db.keys("hashed/*") == ["hashed/xx"]
    assert len(db.hdict("hashed")) == 100
    db["folder/key"] = 1
    for name in "folder", "nothing":
        code, out, err = typed(capsys, "compress", root, name)
        assert (code, out, err) == (1, "", f"psync compress: there is no category '{name}' in {root}\n")
    assert db.keys("folder/*") == ["folder/key"]


@files
def test_to_look_makes_no_directory(root: Path, capsys: Shell) -> None:
    nothing = root / "nothing"
    for command in ["get", "key"], ["ls"], ["del", "key"], ["compress", "key"]:
        code, out, err = typed(capsys, command[0], nothing, *command[1:])
        assert (code, out, err) == (1, "", f"psync {command[0]}: {nothing} is not a directory\n")
    assert not nothing.exists()
