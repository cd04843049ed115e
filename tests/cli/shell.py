"""Typing a command: what it printed, what it complained of, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import psync as package

ENVIRON = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
"""So that the psync under test is the one that runs, in whatever folder."""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def psync(
    *arguments: str | Path, typed: str = "", cwd: Path | None = None, module: str = "psync", encoding: str = "utf-8"
) -> Ran:
    """Run ``python -m psync`` (or other_process `module`) with `typed` as its standard input."""
    run = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        input=typed,
        cwd=cwd,
        env=ENVIRON | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        encoding=encoding,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in run.stderr, run.stderr
    return Ran(run.returncode, run.stdout, run.stderr)
