"""A file system that fails like a server: an error, a late answer or a lost one leaves the state before or after."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psync import Barrier, Counter, Event, Lock, Mailbox
from psync.errors import PsyncError, StoreFailed
from tests.crash import fuse
from tests.crash.children import in_child
from tests.crash.harness import Operation, shown
from tests.crash.operations import OPERATIONS
from tests.crash.small_process import in_small_process
from tests.support import SCALE, scaled

pytestmark = pytest.mark.crash
TROUBLES = {
    "EIO": (fuse.ERROR, errno.EIO),
    "ESTALE": (fuse.ERROR, errno.ESTALE),
    "a lost answer": (fuse.LOST, errno.EIO),
    "a late answer": (fuse.LATE, 0),
}
POINTS = scaled(2)
"""Requests of an operation that go wrong, as evenly as can be; all of them in a long run."""
FAR = 1 << 40
NAMES = {
    "set a new key", "overwrite in place", "overwrite more than a page", "add", "modify", "del", "hset of a new item",
    "hset of a big new item", "hdel", "hcompress", "put", "get", "done with a result", "retry", "post",
}  # fmt: skip


def _visit(db: Any) -> int:
    with Lock(db, "door"):
        return Counter(db, "visits").add()


def _visits(db: Any) -> int:
    return Counter(db, "visits").value


PRIMITIVES = [
    Operation("a first visit under a lock", _visit, look=_visits, looking_changes=True),
    Operation("a visit under a lock", _visit, _visit, look=_visits, looking_changes=True),
    Operation(
        "a barrier",
        lambda db: Barrier(db, "epoch", 1).wait(),
        look=lambda db: Barrier(db, "epoch", 1).statistics().round,
    ),
    Operation("an event", lambda db: Event(db, "go").set(), look=lambda db: Event(db, "go").is_set()),
    Operation(
        "the first letter",
        lambda db: Mailbox(db, "box").post("a", 1),
        look=lambda db: sorted(Mailbox(db, "box").collect(timeout=0)),
    ),
]
CHOSEN = [operation for operation in OPERATIONS if operation.name in NAMES]


@pytest.fixture
def tracer() -> None:
    """Not needed here."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, fuse.Trouble]]:
    folder = tmp_path_factory.mktemp("fuse")
    (folder / "shown").mkdir()
    with fuse.served(folder / "mounted", folder / "shown") as trouble:
        yield folder / "mounted", trouble


def act(operation: Operation, path: str, trouble: fuse.Trouble, *fault: int) -> tuple[BaseException | None, int]:
    """What was raised, and how many requests were still to come before the fault: 0 if it came so far."""
    thing = operation.opened(path)
    trouble.at(*fault)
    raised = None
    try:
        operation.act(thing)
    except BaseException as error:
        raised = error
    left = trouble.left
    trouble.never()
    return raised, left


def _opened(operation: Operation, path: str) -> tuple[None, int]:
    """The one who opened it, and may hold something, ends without having done anything."""
    operation.opened(path)
    return None, 0


def look(operation: Operation, path: str) -> Any:
    with operation.store(path) as db:
        operation.recover(db)
        return operation.look(db)


@pytest.mark.parametrize("trouble_name", TROUBLES)
@pytest.mark.parametrize(
    "operation", [*OPERATIONS, *PRIMITIVES] if SCALE >= 5 else CHOSEN, ids=lambda operation: operation.name
)
def test_a_server_that_fails_leaves_the_state_before_or_after(
    operation: Operation, trouble_name: str, server: tuple[Path, fuse.Trouble]
) -> None:
    requests, refused = fail_everywhere(operation, trouble_name, *server)
    print(f"{operation.name}: {trouble_name} at {requests} requests, {refused} times refused")
    assert refused or trouble_name == "a late answer" or POINTS < 20


@in_small_process
def fail_everywhere(operation: Operation, trouble_name: str, place: Path, trouble: fuse.Trouble) -> tuple[int, int]:
    """How many requests the operation makes, and how often it was refused."""
    kind, code = TROUBLES[trouble_name]

    def strike(*fault: int) -> Any:
        path = tempfile.mkdtemp(dir=place)
        in_child(lambda: operation.prepared(path))
        ended = in_child(lambda: act(operation, path, trouble, *fault) if fault else _opened(operation, path))
        found = in_child(lambda: look(operation, path))
        shutil.rmtree(path)
        return *ended, found

    *_, first = strike()
    _, left, after = strike(FAR, fuse.ERROR, 0)
    requests = FAR - left
    refused = 0
    for n in range(1, requests + 1, max(1, requests // POINTS)):
        raised, left, found = strike(n, kind, code)
        if left:
            continue  # it was one of those that are not made each time
        where = f"{operation.name}: {trouble_name} at request {n}"
        assert found in (first, after), f"{where}: found {shown(found)}, neither {shown(first)} nor {shown(after)}"
        if raised is None:
            assert found == after, f"{where}: it returned, and found {shown(found)}"
        else:
            refused += 1
            assert isinstance(raised, PsyncError) and isinstance(raised, StoreFailed), f"{where}: {raised!r}"
            if kind == fuse.ERROR and not operation.looking_changes:  # a task is done once its letter is there
                assert found == first, f"{where}: it raised {raised!r}, and found {shown(found)}"
    return requests, refused
