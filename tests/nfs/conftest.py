"""One rig for all tests, started when the first asks for it; and one folder of the export for each test, v4 and v3."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.nfs.machines import Machine, Rig
from tests.nfs.packages import Unavailable

WANTED = "PSYNC_TEST_NFS"
LEASE = int(os.environ.get("PSYNC_TEST_LEASE", "15"))
"""Seconds after which the server forgets a client that does not answer; 90 by default, which is long for a test."""
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get(WANTED):
        for item in items:
            if "tests/nfs/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=f"starts virtual machines: tox -e nfs, or {WANTED}=1"))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Machines that are started anew within a test go on after it."""


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    try:
        made = Rig(clients=3, lease=LEASE)
        made.__enter__()
    except Unavailable as error:
        pytest.skip(str(error))
    yield made
    made.__exit__(None, None, None)


class Place(NamedTuple):
    """A folder that all clients have mounted."""

    mount: str
    path: str
    c1: Machine
    c2: Machine
    c3: Machine


@pytest.fixture(params=["v4", "v3"])
def place(request: pytest.FixtureRequest, rig: Rig) -> Place:
    path = f"/nfs/{request.param}/test{next(_numbers)}"
    rig.clients[0].run(["mkdir", "-m", "700", path])
    return Place(request.param, path, *rig.clients)
