"""Programs that use psync as the README says it is used are typed as strictly as psync itself is.

mypy --strict reads `snippets/`: what `assert_type` says there must hold, a line that ends in ``# error: [code]`` must
be refused with that code, and no other line may be.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import psync

SNIPPETS = sorted((Path(__file__).parent / "snippets").glob("*.py"))
Errors = set[tuple[str, int, str]]
"""(file name, line, mypy's code)."""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """What mypy has to say of all snippets at once: it reads the whole of psync first."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed (extra `types`)")
    home = tmp_path_factory.mktemp("outside")
    # As psync may be there without being installed, but not by way of the folder that one happens to be in.
    environment = {**os.environ, "MYPYPATH": str(Path(psync.__file__).parent.parent)}
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-error-summary", "--follow-imports=silent"]
    command += ["--cache-dir", str(home / "cache"), "--config-file", os.devnull, *map(str, SNIPPETS)]
    ran = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode in (0, 1), f"{ran.stdout}\n{ran.stderr}"
    lines = re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", ran.stdout, flags=re.MULTILINE)
    assert len(lines) == ran.stdout.count(": error: "), ran.stdout
    return {(file, int(line), code) for file, line, code in lines}


def expected(path: Path) -> Errors:
    text = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    marks = ((number, re.search(r"# error: \[([\w-]+)\]$", line)) for number, line in text)
    return {(path.name, number, mark[1]) for number, mark in marks if mark}


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_a_program_is_typed_as_it_says(path: Path, errors: Errors) -> None:
    assert {error for error in errors if error[0] == path.name} == expected(path)


def test_mypy_refuses_what_is_wrong() -> None:
    """Or the test above could not fail."""
    assert len(set().union(*map(expected, SNIPPETS))) >= 10


def test_every_public_name_is_used_in_a_snippet() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SNIPPETS)
    assert [name for name in psync.__all__ if not re.search(rf"\b{name}\b", text)] == []
