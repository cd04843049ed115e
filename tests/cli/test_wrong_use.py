"""Whatever a person types, the command answers in words and with a documented exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from psync.cli.main import COMMANDS, main
from tests.cli.shell import ENVIRON, psync
from tests.support import files


def test_help_names_every_command_and_the_exit_codes() -> None:
    ran = psync("--help")
    assert (ran.code, ran.err) == (0, "")
    for command, says in COMMANDS.items():
        assert f"  {command}" in ran.out
        assert says in ran.out
    assert "exit codes: 0" in ran.out


def test_it_tells_its_version() -> None:
    ran = psync("--version")
    assert ran.code == 0 and re.fullmatch(r"psync \d+\.\d+\.\d+\n", ran.out)


@pytest.mark.parametrize(("variable", "wrong"), [("PSYNC_SERIALIZER", "xml"), ("PSYNC_ALLOW", "not-a-name")])
def test_a_variable_that_says_what_can_not_be_is_wrong_use(
    variable: str, wrong: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, wrong)
    assert main(["get", str(root), "key"]) == 2
    assert repr(wrong) in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: psync {command} [-h]")
    assert "exit codes: 0" in said.out
    assert said.err == ""


REST = {
    "get": ["key"],
    "set": ["key", "value"],
    "del": ["key"],
    "wait": ["key", "--timeout", "0"],
    "compress": ["category"],
    "lock": ["name", "--", "true"],
    "barrier": ["name", "--parties", "1"],
    "put": ["queue", "value"],
    "results": ["queue"],
    "copy": ["elsewhere"],
}
"""What a command needs behind the directory, to do something."""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--no-such-option", "get"],
        ["get"],
        ["get", "."],
        ["get", ".", "key", "--json", "--literal"],
        ["set", ".", "key"],
        ["set", ".", "key", "--json", "{"],
        ["set", ".", "key", "--json", "NaN"],
        ["set", ".", "key", "--literal", "open('x')"],
        ["set", ".", "key", "--literal", "'" + "x" * 1000],
        ["del", "."],
        ["ls", ".", "*", "*"],
        ["wait", "."],
        ["wait", ".", "key", "--timeout", "-1"],
        ["wait", ".", "key", "--timeout", "nan"],
        ["wait", ".", "key", "--timeout", "soon"],
        ["wait", ".", "key", "--gone", "--any"],
        ["compress", "."],
        ["lock", "."],
        ["lock", ".", "name"],
        ["lock", ".", "name", "--"],
        ["lock", ".", "name", "true"],
        ["lock", ".", "name", "--timeout", "x", "--", "true"],
        ["barrier", ".", "name"],
        ["barrier", ".", "name", "--parties", "0"],
        ["worker"],
        ["worker", ".", "jobs"],
        ["worker", ".", "-j", "0"],
        ["worker", ".", "--idle", "-1"],
        ["worker", ".", "--max-rss", "0"],
        ["worker", ".", "--max-load", "much"],
        ["put", "."],
        ["put", ".", "queue", "a", "b", "--id", "x"],
        ["put", ".", "queue", "a", "--id", "#1"],
        ["put", ".", "queue", "a", "--priority", "101"],
        ["put", ".", "queue", "a", "--delay", "-1"],
        ["put", ".", "queue", "--json", "x"],
        ["results", "."],
        ["results", ".", "queue", "--timeout", "never"],
        ["no-such-command"],
        ["copy", "."],
        ["copy", ".", "reds://host"],
        ["dump", "--no-such-option"],
        ["dump", "one", "two"],
        ["load"],
        ["test"],
        ["test", ".", "--processes", "0"],
        ["test", ".", "--rounds", "many"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_wrong_use_is_explained_and_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: psync ")
    assert "error: " in said.err


@files
def test_a_directory_that_is_a_file_is_refused_in_words(root: Path) -> None:
    file = root / "file"
    file.write_text("text")
    for command in COMMANDS:
        ran = psync(command, file, *REST.get(command, []), typed="[]")
        assert ran.code == 1
        assert ran.err.startswith(f"psync {command}: ")
        assert str(file) in ran.err


def test_help_imports_nothing_slow() -> None:
    look = "import sys; from psync.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    for slow in ("psync.store.db", "multiprocessing", "pprint", "filelock", "psutil", "asyncio"):
        assert f"'{slow}'" not in ran.stderr


COSTS = """
import argparse, sys
argparse.ArgumentParser().add_argument("-x")  # imports what it needs
import psync.store
before = set(sys.modules)
from psync.cli.main import main
code = main(sys.argv[1:])
print(*(set(sys.modules) - before), file=sys.stderr)
sys.exit(code)
"""


@files
@pytest.mark.parametrize("command", [["set", "key", "text"], ["get", "key"], ["ls"], ["wait", "key"], ["del", "key"]])
def test_a_command_imports_hardly_more_than_argparse_and_the_store(command: list[str], root: Path) -> None:
    psync("set", root, "key", "text")
    name, *rest = command
    ran = subprocess.run(
        [sys.executable, "-c", COSTS, name, root, *rest], env=ENVIRON, capture_output=True, text=True, check=True
    )
    more = {module for module in ran.stderr.split() if not module.startswith("psync.cli")}
    # `ast` reads and checks literals; `tempfile` and `random` would be a sign of something that is done needlessly
    own = {"psync.store.waiting", "psync.engine.admin", "psync.engine.contract.report"}
    own |= {"psync.engine.directory.admin", "psync.engine.directory.admin.read_only"}  # for a look
    theirs = {"ast", "_ast", "math", "importlib", "importlib._bootstrap", "importlib._bootstrap_external"}
    assert more <= own | theirs, more


@files
@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_use_of_any_command_is_one_line_after_its_usage(
    command: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    without_anything = [[command]] if command != "dump" else []  # which looks at this folder then
    for wrong in (*without_anything, [command, str(root / "db"), "--no-such-option"]):
        assert main(wrong) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"usage: psync {command} ")
        assert said.err.splitlines()[-1].startswith(f"psync {command}: error: ")
    assert not (root / "db").exists()
