"""A Python on which ``import pickleshare`` (or IPython's own copy of it) is psync.pickleshare.

How: `sitecustomize`, which every Python imports first, puts psync.pickleshare into `sys.modules`
under that name. So the same holds in whatever that Python starts in its turn.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psync

PROJECT = Path(psync.__file__).parents[1]

INSTEAD = """\
import sys
import psync.pickleshare
sys.modules[{name!r}] = psync.pickleshare
"""


class Bench:
    """Runs Pythons that see `site` and, under the module name `name`, psync's drop-in."""

    def __init__(self, site: Path, folder: Path, name: str) -> None:
        self.site = site
        self.folder = folder
        shim = folder / "shim"
        shim.mkdir(parents=True)
        (shim / "sitecustomize.py").write_text(INSTEAD.format(name=name))
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        self.environ |= {
            "PYTHONPATH": os.pathsep.join(map(str, (shim, site, PROJECT))),
            "HOME": str(folder),
        }

    def python(self, *arguments: str, cwd: Path, typed: str = "", seconds: float = 120.0) -> str:
        """What ``python *arguments`` prints, `typed` being its standard input; an exit code but 0 fails the test."""
        command = [sys.executable, *arguments]
        environ = self.environ | {"IPYTHONDIR": str(cwd / "ipython")}
        run = subprocess.run(
            command, cwd=cwd, env=environ, input=typed, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert run.returncode == 0, f"{' '.join(command)}: {run.returncode}\n{run.stdout[-6000:]}\n{run.stderr[-3000:]}"
        return run.stdout

    def ipython(self, *lines: str, cwd: Path) -> list[str]:
        """Type `lines` into a fresh IPython session; what it printed, a string for each line typed."""
        options = ("--no-banner", "--simple-prompt", "--colors=nocolor", "--no-confirm-exit")
        printed = self.python("-m", "IPython", *options, cwd=cwd, typed="\n".join(lines) + "\n")
        return [part.strip() for part in re.split(r"In \[\d+\]: ", printed)][1 : len(lines) + 1]

    def passed(self, *arguments: str, cwd: Path) -> int:
        """Run pytest there; how many tests passed. None may fail, and none may be skipped."""
        options = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", str(cwd), "-c", os.devnull)
        printed = self.python("-m", "pytest", *options, *arguments, cwd=cwd)
        last = printed.strip().splitlines()[-1]
        assert "skipped" not in last, printed
        found = re.search(r"(\d+) passed", last)
        assert found, printed
        return int(found[1])
