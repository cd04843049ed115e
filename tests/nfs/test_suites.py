"""The suites of the engine's contract and of the store, run on an NFS client, on a mount with default options."""

from __future__ import annotations

import sys

import pytest

from tests.nfs.conftest import Place

MINUTES = 60.0


@pytest.mark.parametrize("suite", ["contract", "store"])
def test_a_suite_passes_on_nfs(place: Place, suite: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{suite}"]
    command += ["-o", f"faulthandler_timeout={MINUTES * 60}"]  # an ordinary test takes minutes there
    if suite == "contract":
        command += ["-k", "directory or slots"]
    environment = {
        "PSYNC_TEST_PLACE": place.path,
        "PSYNC_TEST_SCALE": "0.1",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
    }
    running = place.c3.start(command, environment=environment)
    assert " passed" in running.output(timeout=MINUTES * 60)
