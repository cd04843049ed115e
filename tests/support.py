"""What tests share: how much work to do (`scaled`), and where to do it (`everywhere`, `PLACE`)."""

from __future__ import annotations

import os

import pytest

SCALE = float(os.environ.get("PSYNC_TEST_SCALE", "1.0"))

PLACE = os.environ.get("PSYNC_TEST_PLACE")
"""A folder in which every test works, instead of where it would: on a file system that is to be tried."""

SLACK = 4.0 if PLACE else 1.0
"""How much longer things may take there than on this machine's own file systems."""

everywhere = pytest.mark.parametrize("root", ["tmpfs", "disk"], indirect=True)
"""Runs a test that takes `root` twice: in /dev/shm and on a disk."""


def scaled(count: float) -> int:
    """`count` times the environment's PSYNC_TEST_SCALE, at least 1."""
    return max(1, int(count * SCALE))
