"""What a queue says is waiting, after a claimer was killed between a record's status and the cursor behind it.

On a local file system both are stores into memory, so no system call lies between them at which the other tests kill.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync import WorkQueue
from psync.engine.directory.log.header import LockedHeader
from tests.support import files


def claim_and_die(root: Path, monkeypatch: pytest.MonkeyPatch, claim: Callable[[WorkQueue], Any]) -> None:
    child = os.fork()
    if child == 0:
        queue = WorkQueue(root, "jobs")
        monkeypatch.setattr(LockedHeader, "save", lambda header: os._exit(7))
        claim(queue)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


CLAIMS: dict[str, Callable[[WorkQueue], Any]] = {
    "get": lambda queue: queue.get(block=False),
    "get_many": lambda queue: queue.get_many(2, block=False),
}


@files
@pytest.mark.parametrize("again", [False, True], ids=["new", "given back"])
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_killed_claim_is_counted_once(
    claim: Callable[[WorkQueue], Any], again: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = WorkQueue(root, "jobs")
    ids = queue.put_many("abc")
    if again:
        for task in queue.get_many(3, block=False):
            task.retry()
    claim_and_die(root, monkeypatch, claim)
    queue.recover()
    assert queue.statistics().waiting == 3
    for id in ids:
        assert queue.cancel(id)
    queue.recover()
    assert queue.statistics()[:4] == (3, 0, 0, 0)
    assert queue.empty()
