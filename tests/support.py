"""What tests share: how much work to do (`scaled`), and where to do it (`everywhere`, `PLACE`, `ENGINE`, `files`)."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

SCALE = float(os.environ.get("PSYNC_TEST_SCALE", "1.0"))

PLACE = os.environ.get("PSYNC_TEST_PLACE")
"""A folder in which every test works, instead of where it would: on a file system that is to be tried."""

ENGINE = os.environ.get("PSYNC_TEST_ENGINE")
"""The engine of the stores of every test that takes `root`: a kind of `tests.redis_server.SERVERS`, or a directory."""

SIGNALS_HZ = float(os.environ.get("PSYNC_TEST_SIGNALS", "0"))
"""How often a second a signal's handler that uses psync interrupts each test."""

files = pytest.mark.files
"""Marks a test that is about the files of a directory: on another engine it is skipped."""

SLACK = 4.0 if PLACE else 1.0
"""How much longer things may take there than on this machine's own file systems."""

everywhere = pytest.mark.parametrize("root", ["tmpfs", "disk"], indirect=True)
"""Runs a test that takes `root` twice: in /dev/shm and on a disk."""


def scaled(count: float) -> int:
    """`count` times the environment's PSYNC_TEST_SCALE, at least 1."""
    return max(1, int(count * SCALE))


def combined(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Every combination in the long form; else each value of each axis once, beside the first ones of the others."""
    whole = [list(axis) for axis in axes]
    if SCALE >= 5:
        return list(itertools.product(*whole))
    first = tuple(axis[0] for axis in whole)
    rest = [(*first[:at], value, *first[at + 1 :]) for at, axis in enumerate(whole) for value in axis[1:]]
    return [first, *rest]


class Deadly:
    """A bucket; who appends to it dies when that is done."""

    def __init__(self, bucket: Any, die: Callable[[], object]) -> None:
        self._bucket = bucket
        self._die = die

    def append(self, ops: bytes) -> int:
        size: int = self._bucket.append(ops)
        self._die()
        return size


def die_before_the_mark(results: Any, die: Callable[[], object]) -> None:
    """Who answers a task through this queue's `results` dies between the answer and the mark that the task is done."""
    box = results._box
    growing = box.growing
    box.growing = lambda id: Deadly(growing(id), die)


def about_files() -> None:
    """For a fixture that makes files in `root`."""
    if ENGINE:
        pytest.skip(f"it is about files; {ENGINE} has none")


def fresh_in(root: Any) -> Any:
    """A new, empty place for a store, beside all others in the test's `root`: a folder there, or another URL."""
    return Path(tempfile.mkdtemp(dir=root)) if isinstance(root, Path) else f"{root}-{os.urandom(4).hex()}"
