"""The README tells all and tells the truth: every name stands in it, and its examples do what they say.

Its python blocks are one program and its bash blocks another, each run in a fresh directory. A line that ends in
``# -> value`` is an expression with that repr. (Its sh blocks are the commands that install it.)
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import psync
import psync.cli.main
import psync.errors
import psync.pickleshare
from psync.engine.system.fork_hooks import Forked

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
NAMED = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", TEXT))))
"""Every word that stands in the README as code, within a line."""

CHECK = "def _check(found, wanted): assert repr(found) == wanted, f'{found!r} is not {wanted}'\n"


def blocks(language: str) -> str:
    """All blocks of a language as one program that keeps the README's line numbers."""
    kept, inside = [], False
    for line in TEXT.splitlines():
        fence = line.startswith("```")
        inside = line == f"```{language}" if fence else inside
        kept.append(line if inside and not fence else "")
    return "\n".join(kept) + "\n"


def with_checks(program: str) -> str:
    return re.sub(r"^( *)(.+?) +# -> (.+)$", lambda m: f"{m[1]}_check({m[2]}, {m[3]!r})", program, flags=re.MULTILINE)


def run(command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(README.parent)}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert ran.stderr == ""


def test_the_python_blocks_do_what_they_say(tmp_path: Path) -> None:
    program = tmp_path / "README.py"
    program.write_text(CHECK.strip() + ";" + with_checks(blocks("python")), encoding="utf-8")
    assert program.read_text().count("_check(") > 10
    (tmp_path / "work").mkdir(mode=0o700)
    run([sys.executable, "-W", "error", str(program)], tmp_path / "work")


def test_the_shell_blocks_run(tmp_path: Path) -> None:
    program = f'set -euo pipefail\npsync() {{ {sys.executable} -m psync "$@"; }}\n' + blocks("bash")
    assert len(re.findall(r"\bpsync [a-z]", program)) >= 3
    run(["bash", "-c", program], tmp_path)


def test_a_block_that_says_something_wrong_is_found(tmp_path: Path) -> None:
    program = tmp_path / "wrong.py"
    program.write_text(CHECK + with_checks("1 + 1  # -> 3\n"))
    with pytest.raises(AssertionError, match="2 is not 3"):
        run([sys.executable, str(program)], tmp_path)


@pytest.mark.parametrize("name", psync.__all__)
def test_every_public_name_is_in_the_readme(name: str) -> None:
    assert name in NAMED


@pytest.mark.parametrize("kind", [kind for name in psync.__all__ if inspect.isclass(kind := getattr(psync, name))])
def test_every_public_method_is_in_the_readme(kind: type) -> None:
    known = [*dir(tuple), *dir(psync.errors.StoreFull), *dir(psync.MemoryEngine), *dir(psync.DirectoryEngine)]
    known += dir(Forked)
    names = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")} - {*known}
    assert sorted(names - NAMED) == []


def test_every_error_is_in_the_readme() -> None:
    errors = {
        name for name, thing in vars(psync.errors).items() if inspect.isclass(thing) and issubclass(thing, Exception)
    }
    assert sorted(errors - NAMED) == []
    assert "PsyncError" in errors


@pytest.mark.parametrize("command", psync.cli.main.COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`psync {command}" in TEXT


@pytest.mark.parametrize("command", psync.cli.main.COMMANDS)
def test_every_option_of_a_command_is_in_the_readme(command: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    psync.cli.main.command_module(command).options(parser)
    named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", TEXT))
    assert [
        action.option_strings for action in parser._actions if named.isdisjoint(action.option_strings or named)
    ] == []


INSIDE = {"DirectoryEngine", "MemoryEngine", *vars(psync.errors)}
"""What its users do not call: what the verbs of an engine take stands in `psync.engine.contract`."""


@pytest.mark.parametrize("name", [name for name in psync.__all__ if name not in INSIDE])
def test_every_option_of_a_public_call_is_in_the_readme(name: str) -> None:
    thing = getattr(psync, name)
    calls = [thing, *(call for verb, call in inspect.getmembers(thing, inspect.isfunction) if not verb.startswith("_"))]
    options = {
        option.name
        for call in calls
        for option in inspect.signature(call).parameters.values()
        if option.default is not option.empty
    }
    assert sorted(options - NAMED - {"other"}) == []  # `other`: of a dict's `update`


def test_every_environment_variable_is_in_the_readme() -> None:
    sources = [*(README.parent / "psync").rglob("*.py"), README.parent / "tests" / "support.py"]
    found = {name for path in sources for name in re.findall(r"\bPSYNC_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    assert found >= {"PSYNC_KEY_FILE", "PSYNC_TEST_SCALE"}
    assert sorted(found - NAMED) == []


@pytest.mark.parametrize("name", psync.pickleshare.__all__)
def test_every_name_of_the_drop_in_is_in_the_readme(name: str) -> None:
    assert name in NAMED


def test_every_test_that_the_promises_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", TEXT)
    assert len(named) > 10
    assert [test for test in named if not (README.parent / test).is_file()] == []
