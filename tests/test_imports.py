"""Opening is quick: a store in a local directory loads only the modules that it needs.

The tests count modules and name those that must stay unloaded. They measure no time.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import psync.store.db
from tests.support import files, scaled

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


@pytest.mark.parametrize("name", ["psync.slow_to_load", "slow_to_load"])
def test_a_fork_waits_for_a_module_that_a_thread_is_loading(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the child's own import of it waited for ever: an executor's worker did, in its first wait for a task."""
    (tmp_path / "slow_to_load.py").write_text("import time; time.sleep(0.3); done = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(psync, "__path__", [*psync.__path__, str(tmp_path)])
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


def test_forks_at_any_moment_of_imports_by_threads_leave_children_that_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [f"module_{number}_of_many" for number in range(400)]
    for name in names:
        (tmp_path / f"{name}.py").write_text("import time; time.sleep(0.002); done = True")
    here = iter(names)
    over = threading.Event()

    def work() -> None:
        while not over.is_set() and (name := next(here, None)):
            importlib.import_module(name)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(scaled(25)):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                begun = [name for name in names if name in sys.modules]
                os._exit(0 if all(importlib.import_module(name).done for name in begun) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for name in names:
            sys.modules.pop(name, None)
