"""Fixtures for every test: a fresh `root`, and a watch that fails a test which leaves something behind.

A test that ends with more descriptors, threads or child processes than it began with has failed.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from hypothesis import settings

from psync.engine import Engine
from psync.engine.system import fork_hooks
from tests.busy_handler import BusyHandler
from tests.redis_server import SERVERS, RedisServer, why_not
from tests.support import ENGINE, PLACE, SIGNALS_HZ, scaled

settings.register_profile("psync", deadline=None, max_examples=scaled(100), print_blob=True)
settings.load_profile("psync")

signal.signal(signal.SIGINT, signal.default_int_handler)
"""Who starts the tests in the background has SIGINT ignored, and so would every process that they start."""
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
"""Else each of the hundreds of processes compiles psync anew."""

PATIENCE = 4.0
"""What was told to end may take a moment: pauses double up to this, in seconds."""

collect_ignore_glob = ["nfs/guest/*"]
"""Programs that run in machines of their own."""

KEPT_INOTIFY = 4
"""As many inotify instances stay open for the next wait: a user has few."""

KERNEL_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


# -- a place to work ---------------------------------------------------------------------------


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """A fresh, empty, private directory: in memory where that is possible; `tests.support.everywhere` asks for both.

    With PSYNC_TEST_ENGINE, the URL of a fresh store on a server instead.
    """
    wanted = getattr(request, "param", None)
    if ENGINE:
        if wanted == "disk":
            pytest.skip(f"once is enough on {ENGINE}")
        server = request.getfixturevalue("servers")(ENGINE)
        yield server.url(f"r{next(_prefixes)}")
        close_engines()
        server.clear()
        lose_leases()
        return
    if PLACE:
        parent = Path(PLACE)
    elif wanted == "disk":
        parent = disk(tmp_path)
    elif wanted == "tmpfs":
        parent = memory() or pytest.skip("/dev/shm is not a writable tmpfs with 256 MB free")
    else:
        parent = memory() or tmp_path
    folder = Path(tempfile.mkdtemp(prefix="psync-test-", dir=parent))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


_prefixes = itertools.count()


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], RedisServer]]:
    """The one server of its kind that this test session has, started when the first test asks for it."""
    running: dict[str, RedisServer] = {}

    def of(kind: str) -> RedisServer:
        if kind not in running:
            if reason := why_not():
                pytest.skip(reason)
            running[kind] = RedisServer(*SERVERS[kind])
        return running[kind]

    yield of
    for server in running.values():
        server.close()


def close_engines() -> None:
    """To find out that nobody uses an engine any more takes the collector long."""
    for one in list(fork_hooks._concerned):
        if isinstance(one, Engine):
            one.close()


def lose_leases() -> None:
    """Of what a test left locked, on a server that has forgotten it: else it is kept locked for as long as we live."""
    for one in list(fork_hooks._concerned):
        if type(one).__name__ == "RedisEngine":
            one.store.sessions.renew()
            one.close()


@pytest.fixture(scope="session", autouse=True)
def busy_handler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusyHandler | None]:
    if not SIGNALS_HZ:
        yield None
        return
    made = BusyHandler(tmp_path_factory.mktemp("handler") / "store")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def interrupted(busy_handler: BusyHandler | None) -> Iterator[None]:
    """With PSYNC_TEST_SIGNALS: a signal's handler makes changes of its own, that often a second, during each test."""
    if busy_handler is None:
        yield
    else:
        with busy_handler.at_work(SIGNALS_HZ):
            yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ENGINE and item.get_closest_marker("files"):
            item.add_marker(pytest.mark.skip(reason=f"it is about files; {ENGINE} has none"))
        if SIGNALS_HZ and item.path.name in ("test_interrupts.py", "test_descriptors.py"):
            item.add_marker(pytest.mark.skip(reason="it sends that signal, or counts descriptors, itself"))


def memory() -> Path | None:
    shm = Path("/dev/shm")
    if kind_of(shm) == "tmpfs" and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 256 << 20:
        return shm
    return None


def disk(preferred: Path) -> Path:
    for folder in (preferred, Path("/var/tmp"), Path.cwd()):
        if kind_of(folder) not in ("tmpfs", "ramfs") and os.access(folder, os.W_OK):
            return folder
    pytest.skip("every writable folder is on a tmpfs")


def kind_of(folder: Path) -> str | None:
    """The type of the file system that `folder` is on, as the kernel names it; None when it doesn't say."""
    try:
        device = folder.stat().st_dev
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        if line.split()[2] == wanted:
            return line.partition(" - ")[2].split()[0]
    return None


def pytest_collection_finish() -> None:
    """The collector leaves alone what the thousands of tests consist of: here, and in a forked child, which would get a
    copy of all of it by that."""
    gc.collect()
    gc.freeze()


# -- nothing left behind -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails the test that leaves a descriptor, a thread or a child process."""
    descriptors, threads, children = open_descriptors(), set(threading.enumerate()), child_processes()
    yield
    if SIGNALS_HZ:
        return  # the handler's files come and go
    left = leftovers(descriptors, threads, children)
    pause = 0.01
    while left and pause < PATIENCE:
        gc.collect()  # what is only waiting for the collector is not a leak
        time.sleep(pause)
        pause *= 2
        left = leftovers(descriptors, threads, children)
    for pid in child_processes() - children:
        os.kill(pid, signal.SIGKILL)  # so that the next test begins clean
    if left:
        pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)


def leftovers(descriptors: dict[int, Open], threads: set[threading.Thread], children: set[int]) -> list[str]:
    multiprocessing.active_children()  # reaps those that have ended
    left = [f"child process {describe(pid)}" for pid in child_processes() - children]
    left += [f"thread {thread.name!r}" for thread in threading.enumerate() if thread not in threads]
    for number, now in open_descriptors().items():
        before = descriptors.get(number)
        if before is None or before.inode != now.inode:
            left.append(f"descriptor {number} ({now.target})")
    return left


class Open(NamedTuple):
    """What a descriptor leads to: a name may change meanwhile, the inode doesn't."""

    target: str
    inode: tuple[int, int]


def open_descriptors() -> dict[int, Open]:
    """Every open descriptor of this process and what it leads to, but for those that are kept on purpose."""
    found: dict[int, Open] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
            found[int(name)] = Open(os.readlink(f"/proc/self/fd/{name}"), (status.st_dev, status.st_ino))
        except OSError:
            continue  # the listing's own
    for number in (
        multiprocessing.resource_tracker._resource_tracker._fd,
        multiprocessing.forkserver._forkserver._forkserver_alive_fd,
    ):
        found.pop(number, None)
    for number in [number for number, leads in found.items() if "/pym-" in leads.target]:
        del found[number]  # the heap of `multiprocessing.Value`, which is never given back
    idle = [number for number, leads in found.items() if leads.target == "anon_inode:inotify"]
    for number in idle[:KEPT_INOTIFY]:
        del found[number]
    return found


def child_processes() -> set[int]:
    """The pids of this process's children, but for multiprocessing's own helpers, which live as long as it does."""
    found: set[int] = set()
    if not KERNEL_LISTS_CHILDREN:
        found.update(child.pid for child in psutil.Process().children())
    for task in os.listdir("/proc/self/task") if KERNEL_LISTS_CHILDREN else ():
        try:
            found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
        except FileNotFoundError:
            continue  # the thread has ended
    return found - {
        multiprocessing.resource_tracker._resource_tracker._pid,
        multiprocessing.forkserver._forkserver._forkserver_pid,
    }


def describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{pid} ({process.status()}: {' '.join(process.cmdline())[:80]})"
    except psutil.Error:
        return str(pid)
