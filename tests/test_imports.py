"""Opening is quick: a store in a local directory loads only the modules that it needs.

The tests count modules and name those that must stay unloaded. They measure no time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import files

PROJECT = Path(__file__).parent.parent
MAX_MODULES = 45
"""Modules of psync's, packages included."""
UNNEEDED = [
    "psync.engine.admin",
    "psync.engine.contract.log",
    "psync.engine.directory.admin",
    "psync.engine.directory.buckets",
    "psync.engine.directory.cells.nfs",
    "psync.engine.directory.fs.nfs_files",
    "psync.engine.directory.fs.nfs_lookup",
    "psync.engine.directory.fs.nfs_replace",
    "psync.engine.directory.fs.nfs_temporary",
    "psync.engine.directory.locks",
    "psync.engine.directory.log",
    "psync.engine.directory.notify.inotify",
    "psync.engine.directory.notify.nfs_poll",
    "psync.engine.directory.registers",
    "psync.engine.directory.scan",
    "psync.engine.memory",
    "psync.engine.redis",
    "psync.engine.signed",
    "psync.engine.system.process_identity",
    "psync.store.category",
    "psync.store.json_values",
    "psync.sync",
    "psync.work",
    "_hashlib",
    "argparse",
    "ctypes",
    "dataclasses",
    "datetime",
    "filelock",
    "hashlib",
    "heapq",
    "inspect",
    "json",
    "logging",
    "numbers",
    "pathlib",
    "platform",
    "psutil",
    "queue",
    "random",
    "redis",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "urllib",
    "uuid",
]
"""Modules of psync's and of the standard library, each with all that is in it."""


def loaded(program: str) -> set[str]:
    """The modules that a program has imported at its end and a bare interpreter has not."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PSYNC_")}
    program = f"import sys; bare = set(sys.modules)\n{program}\nprint(*set(sys.modules) - bare)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=environ, check=True, capture_output=True, text=True
    )
    return set(ran.stdout.split())


def unneeded(modules: set[str]) -> list[str]:
    return sorted(each for each in modules if any(f"{each}.".startswith(f"{name}.") for name in UNNEEDED))


@files
def test_opening_a_local_store_loads_only_what_it_needs(root: Path) -> None:
    modules = loaded(f"import psync; psync.PickleShareDB({str(root)!r})")
    assert unneeded(modules) == []
    assert len([module for module in modules if module.partition(".")[0] == "psync"]) <= MAX_MODULES


@files
def test_getting_and_setting_values_loads_nothing_more(root: Path) -> None:
    opening = f"import psync; db = psync.PickleShareDB({str(root)!r})"
    using = (
        "db['key'] = 1; db['key'], db.get('other'), db.add('key', 2), 'key' in db, db.keys(), len(db), db.pop('key')"
    )
    assert loaded(f"{opening}; {using}") == loaded(opening)


def test_importing_psync_loads_only_itself() -> None:
    modules = loaded("import psync")
    assert {module for module in modules if module.partition(".")[0] == "psync"} == {"psync"}
    assert unneeded(modules) == []
