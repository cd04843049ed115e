"""Opening is quick: a store in a local directory loads only the modules that it needs.

The tests count modules and name those that must stay unloaded. They measure no time.
"""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import psync.store.db
from psync.engine.system import fork_hooks
from tests.support import files

PROJECT = Path(__file__).parent.parent
MAX_MODULES = 46
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
if sys.version_info >= (3, 13):  # `QueueClosed` is a `queue.ShutDown`, which came with it
    UNNEEDED.remove("heapq")
    UNNEEDED.remove("queue")


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


# -- what is loaded later, and forks ------------------------------------------------------------

NOT_BEFORE_FORKS = {
    "psync.engine": "loaded with every store",
    "psync.engine.contract.bucket": "loaded with buckets; else for an error",
    "psync.engine.contract.report": "read by commands",
    "psync.engine.directory": "loaded with every directory",
    "psync.engine.directory.buckets.folder": "for a value at a name that a bucket could have",
    "psync.engine.directory.buckets.transaction": "for `hupdate`",
    "psync.engine.directory.cells.nfs": "loaded when a network directory is opened",
    "psync.engine.directory.fs.nfs_files": "loaded when a network directory is opened",
    "psync.engine.directory.fs.nfs_lookup": "loaded when a network directory is opened",
    "psync.engine.directory.fs.nfs_replace": "for a folder with a replacement under way",
    "psync.engine.directory.fs.refusals": "for the text of an error",
    "psync.engine.directory.fs.remedies": "for the text of an error",
    "psync.engine.directory.locks.guard": "for compactions; it loads filelock",
    "psync.engine.directory.log.reading": "for users who may only read",
    "psync.engine.directory.notify.nfs_poll": "loaded when a network directory is opened",
    "psync.engine.directory.registers.nfs": "loaded when a network directory is opened",
    "psync.engine.directory.scan": "read by commands",
    "psync.engine.encoding": "for pickles of other programs",
    "psync.engine.encoding.pickle_scan": "for pickles of other programs",
    "psync.engine.encoding.pickle_split": "for values that can't be unpickled here",
    "psync.engine.system": "loaded with every store",
    "psync.store.allowed": "loaded when a store with `allow` is opened",
    "psync.store.foreign": "for `items`, `hdict`, `clear`, `popitem`",
    "psync.store.glob": "for `keys` with a pattern",
    "psync.store.json_values": "loaded when a store with JSON is opened",
    "psync.store.link": "for `getlink`",
    "psync.store.unreadable": "for values that can't be unpickled here, and with every category",
    "psync.store.views": "for `items` and `values`",
}
"""Modules that a directory loads when they are needed, and not before a fork; a fork waits for a thread that loads them
all the same."""


def deferred_imports() -> Iterator[str]:
    """The modules of psync's that functions of a directory or a store import."""
    for room in ("engine/directory", "store"):
        for path in (PROJECT / "psync" / room).rglob("*.py"):
            if "admin" not in path.parts and path.name != "__init__.py":
                for function in ast.walk(ast.parse(path.read_text())):
                    if isinstance(function, ast.FunctionDef):
                        for each in ast.walk(function):
                            if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("psync."):
                                yield each.module or ""


def test_what_a_directory_loads_later_is_loaded_before_a_fork() -> None:
    program = "import psync.store.db, psync.engine.directory.engine; from psync.engine.system import fork_hooks"
    named = subprocess.run(
        [sys.executable, "-c", f"{program}; print(*fork_hooks._deferred)"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert set(deferred_imports()) == {*named, *NOT_BEFORE_FORKS} & {*deferred_imports(), *named}


@pytest.mark.parametrize("how", ["deferred", "by a thread"])
def test_a_fork_waits_for_a_module_that_a_thread_is_loading(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the child's own import of it waited for ever: an executor's worker did, in its first wait for a task."""
    name = "psync.slow_to_load" if how == "by a thread" else "slow_to_load"
    (tmp_path / "slow_to_load.py").write_text("import time; time.sleep(0.3); done = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(psync, "__path__", [*psync.__path__, str(tmp_path)])
    if how == "deferred":
        fork_hooks.load_before_forks(name)
    loading = threading.Thread(target=importlib.import_module, args=(name,))
    loading.start()
    try:
        while name not in sys.modules:
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            os._exit(0 if importlib.import_module(name).done else 1)
        end = time.monotonic() + 10
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
            time.sleep(0.01)
        if not ended[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert ended == (child, 0)
    finally:
        loading.join()
        sys.modules.pop(name, None)
