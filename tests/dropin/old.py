"""The original pickleshare at work: each script runs in a process of its own, with its own hash seed."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

OLDEST = (3, 8)
"""The oldest Python that reads what psync writes."""


class Said(NamedTuple):
    value: Any
    """What the script's `answer` was: a literal."""
    printed: str
    """What pickleshare printed meanwhile: "Corrupt ... deleted" if it met what it can't read."""


class Old:
    """Pickleshare 0.7.5 (from the folder `original`) on the directory `root`."""

    def __init__(self, original: Path, root: Path, python: str = sys.executable) -> None:
        self.original, self.root, self.python = original, root, python

    def __call__(self, script: str, *, seed: int = 0) -> Said:
        """Run `script`, which finds the open store in `db` and leaves a literal in `answer`."""
        lines = ("from pickleshare import *", "import sys", "db = PickleShareDB(sys.argv[1])", "answer = None", script)
        environ = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(self.original)}
        text = "\n".join([*lines, "print('\\nANSWER'); print(repr(answer))"])
        run = subprocess.run(
            [self.python, "-B", "-c", text, str(self.root)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        printed, _, answer = run.stdout.rpartition("\nANSWER\n")
        return Said(ast.literal_eval(answer), printed)

    def hdict(self, hashroot: str, *, seed: int = 0) -> dict[Any, Any]:
        """What old hdict gives; it must find nothing to complain of, and leave every file."""
        value, printed = self(
            f"before = sorted(db.keys()); answer = db.hdict({hashroot!r}), before == sorted(db.keys())", seed=seed
        )
        assert "Corrupt" not in printed
        assert value[1], "pickleshare deleted a file"
        return value[0]


def old_pythons() -> list[str]:
    """The Python that runs the tests, and the oldest other one at hand that pickleshare's reader may have."""
    minors = range(OLDEST[1], sys.version_info[1])
    installed = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3.*"))
    for minor in minors:
        named = [str(path) for path in installed if path.name == f"python3.{minor}"]
        for python in (*named, shutil.which(f"python3.{minor}")):
            if python and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
                return [sys.executable, python]
    return [sys.executable]
