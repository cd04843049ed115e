"""100,000 calls by eight processes on four keys: one order of events explains all the answers.

The same calls on PickleShare 0.7.5 can't be explained: the test is able to fail.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pickleshare
import pytest

from psync import PickleShareDB
from tests.concurrency.history import MISSING, Operation, Recorder, never_raced
from tests.concurrency.linearizable import assert_linearizable, find_violation
from tests.concurrency.simultaneous import together
from tests.support import everywhere, files, scaled

PROCESSES = 8
KEYS = ("counter", "in/a/folder", "in/another", "last one")

VERBS: dict[str, tuple[Callable[[Recorder, str], None], int]] = {
    "get": (Recorder.get, 40),
    "set": (Recorder.set, 24),
    "modify": (Recorder.modify, 10),
    "modify_existing": (Recorder.modify_existing, 4),
    "delete": (Recorder.delete, 6),
    "pop": (Recorder.pop, 5),
    "add": (Recorder.add, 6),
    "setdefault": (Recorder.setdefault, 5),
}
"""Each verb with its share of the calls in per cent."""

Store = Callable[[Path], Any]


def test_a_hundred_thousand_calls_by_eight_processes_are_linearizable(root: Path) -> None:
    operations = record(PickleShareDB, root, max(5_000, scaled(100_000)), list(VERBS))
    assert not never_raced(operations)
    assert_linearizable(operations)
    answered = Counter((one.verb, one.result is False or one.result == MISSING) for one in operations)
    for verb in ("get", "del", "add", "pop", "modify"):
        assert answered[verb, False] and answered[verb, True], f"{verb} has not met both an existing and a missing key"


@everywhere
def test_reads_beside_overwrites_are_linearizable_and_never_miss(root: Path) -> None:
    operations = record_overwrites(PickleShareDB, root, scaled(20_000), ["get", "set", "modify_existing"])
    assert not never_raced(operations)
    assert_linearizable(operations)


@files
@pytest.mark.parametrize("kind", ["with its cache", "without its cache"])
def test_the_same_calls_on_pickleshare_are_not(root: Path, kind: str) -> None:
    store = open_old if kind == "with its cache" else open_old_without_cache
    violation = find_violation(record_overwrites(store, root, max(5_000, scaled(10_000)), ["get", "set"]))
    assert violation is not None
    assert violation.operation.verb == "get"


def record_overwrites(store: Store, root: Path, calls: int, verbs: list[str]) -> list[Operation]:
    """What is recorded when every key exists from the start and is never deleted."""
    first = Recorder(store(root), PROCESSES)
    for key in KEYS:
        first.set(key)
    operations = first.operations + record(store, root, calls, verbs)
    if hasattr(first.db, "close"):
        first.db.close()
    return operations


def record(store: Store, root: Path, calls: int, verbs: list[str]) -> list[Operation]:
    each = calls // PROCESSES
    parts = together([partial(call_at_random, store, root, process, each, verbs) for process in range(PROCESSES)])
    return [operation for part in parts for operation in part]


def call_at_random(store: Store, root: Path, process: int, calls: int, verbs: list[str]) -> list[Operation]:
    """One process's part: `calls` calls of verbs drawn by their shares, on keys drawn at random."""
    chance = random.Random(process)
    recorder = Recorder(store(root), process)
    for verb in chance.choices(verbs, [VERBS[verb][1] for verb in verbs], k=calls):
        VERBS[verb][0](recorder, chance.choice(KEYS))
    return recorder.operations


def open_old(root: Path) -> Any:
    return pickleshare.PickleShareDB(str(root))


class WithoutCache(pickleshare.PickleShareDB):
    """PickleShare that looks at the disk for every read: what it answers wrongly is not for its one-second cache."""

    def __getitem__(self, key: str) -> Any:
        self.uncache()
        return super().__getitem__(key)


def open_old_without_cache(root: Path) -> Any:
    return WithoutCache(str(root))
