"""``psync copy`` from a directory to a server and back, killed again and again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from psync import PickleShareDB, WorkQueue, copy_store
from tests.cli.shell import ENVIRON, psync
from tests.redis_server import RedisServer, why_not
from tests.support import scaled
from tests.sync.full_store import contents, fill, work_off

KEYS = scaled(500)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """In memory only: what is tried here does not depend on its disk."""
    if reason := why_not():
        pytest.skip(reason)
    running = RedisServer()
    yield running
    running.close()


@contextmanager
def copying(source: str, destination: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "psync", "copy", source, destination, "--json"]
    process = subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_when(ready: Callable[[], bool], source: str, destination: str) -> None:
    """A copy that is killed as soon as it has come so far; not at all, if it was too quick for that."""
    with copying(source, destination) as process:
        while process.poll() is None and not ready():
            time.sleep(0.002)


def copied(source: str, destination: str, values: dict[str, Any], random: Random) -> dict[str, Any]:
    """Killed twice, once among the values and once among the tasks, and then brought to its end."""
    some, tasks = random.randrange(1, KEYS), random.randrange(1, max(2, KEYS // 10))
    with PickleShareDB(destination) as db:
        killed_when(lambda: len(db.keys("values/*/*")) >= some, source, destination)
        queue = WorkQueue(db, "jobs")
        killed_when(lambda: queue.qsize() >= tasks, source, destination)
    ran = psync("copy", source, destination, "--json")
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert told["differences"] == []
    with PickleShareDB(destination) as db:
        return contents(db, values)


@pytest.mark.crash
@pytest.mark.parametrize("seed", [scaled(1)])
def test_killed_twice_each_way_all_is_the_same_and_the_queue_is_worked_to_its_end(
    server: RedisServer, tmp_path: Path, seed: int
) -> None:
    random, old, url, back = Random(seed), str(tmp_path / "old"), server.url("copy"), str(tmp_path / "back")
    with PickleShareDB(old) as db:
        values = fill(db, KEYS)
        before = contents(db, values)
    assert copied(old, url, values, random) == before
    assert copied(url, back, values, random) == before
    left = {id for id, state in before["states"].items() if state not in ("done", "dead")}
    with PickleShareDB(back) as db:
        queue = WorkQueue(db, "jobs", max_attempts=2)
        assert work_off(queue).keys() == left
        results = dict(queue.results.collect(timeout=0))
        assert results == before["results"] | {id: ["result of", values[id]] for id in left}


def test_on_one_server_from_prefix_to_prefix(server: RedisServer) -> None:
    with PickleShareDB(server.url("one")) as one, PickleShareDB(server.url("two")) as two:
        values = fill(one, 60)
        before = contents(one, values)
        assert copy_store(one, two).differences == ()
        assert contents(two, values) == before


def test_a_sealed_directory_goes_to_a_server_under_another_key(server: RedisServer, tmp_path: Path) -> None:
    files = {}
    for name in ("from", "to"):
        files[name] = tmp_path / f"{name} key"
        files[name].write_text(f"the key that is for the store {name}")
        files[name].chmod(0o600)
    key, other = (files[name].read_bytes() for name in ("from", "to"))
    with PickleShareDB(tmp_path / "old", key=key) as db:
        db["a"] = "secret"
    url = server.url("sealed")
    ran = psync("copy", "--from-key", files["from"], "--to-key", files["to"], tmp_path / "old", url)
    assert (ran.code, ran.err) == (0, "") and ran.out.startswith("1 values, ")
    with PickleShareDB(url, key=other) as db:
        assert db["a"] == "secret"
    ran = psync("copy", "--from-key", files["to"], tmp_path / "old", server.url("wrong"))
    assert ran.code == 1 and "is sealed with another key" in ran.err
    ran = psync("copy", "--from-key", "none", tmp_path / "old", server.url("wrong"))
    assert ran.code == 1 and "is sealed, and no key was given" in ran.err
