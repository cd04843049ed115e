"""The engines that the contract is run on; every test that takes `harness` runs on each of them."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psync.engine import Engine
from psync.engine.contract.log import Log
from tests.contract.harness import DirectoryHarness, Harness, MemoryHarness, RedisHarness
from tests.contract.marks import LOG
from tests.redis_server import SERVERS, RedisServer
from tests.support import PLACE

DIRECTORIES = ["directory", "polling", "sealed", "network"]
SHM = Path("/dev/shm")
if PLACE:
    DIRECTORIES = ["directory"]
elif SHM.is_dir():
    DIRECTORIES.insert(1, "shm")


_prefixes = itertools.count()


def build(kind: str, root: Path, servers: Callable[[str], RedisServer]) -> Harness:
    if kind == "memory":
        return MemoryHarness()
    if kind in SERVERS:
        if os.environ.get("PSYNC_TEST_REDIS") not in ("all", kind):
            pytest.skip("on a server only when asked for, with PSYNC_TEST_REDIS=redis, or all: tox -e redis")
        return RedisHarness(servers(kind), f"t{next(_prefixes)}")
    if kind == "sealed":
        return DirectoryHarness(root, key=b"a key of the tests")
    if kind == "network":
        return DirectoryHarness(root, sharing="network")
    return DirectoryHarness(root, wakeups="poll" if kind == "polling" else "auto")


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty private folder: on a disk for the kind "directory", else in memory if there is such a place."""
    if PLACE:
        made = Path(tempfile.mkdtemp(prefix="psync-contract-", dir=PLACE))
        yield made
        shutil.rmtree(made, ignore_errors=True)
        return
    if not SHM.is_dir() or "directory" in request.node.callspec.params.values():
        yield tmp_path / "store"
        return
    made = Path(tempfile.mkdtemp(prefix="psync-contract-", dir=SHM))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(params=["memory", *DIRECTORIES, *SERVERS])
def harness(request: pytest.FixtureRequest, folder: Path, servers: Callable[[str], RedisServer]) -> Iterator[Harness]:
    built = build(request.param, folder, servers)
    yield built
    built.close()


@pytest.fixture(params=DIRECTORIES)
def disk(
    request: pytest.FixtureRequest, folder: Path, servers: Callable[[str], RedisServer]
) -> Iterator[DirectoryHarness]:
    """For what only real processes can do."""
    built = build(request.param, folder, servers)
    assert isinstance(built, DirectoryHarness)
    yield built
    built.close()


@pytest.fixture
def engine(harness: Harness) -> Engine:
    return harness.engine


@pytest.fixture
def log(engine: Engine) -> Log:
    return engine.log(LOG)
