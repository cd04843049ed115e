"""A network file system whose server did what it was asked, but its reply was lost: the client asks once more.

Then a link, a folder or a new file is in the way of itself (EEXIST), and what was renamed or removed is not there any
more (ENOENT). Whoever asked must not notice: it did happen, and once.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.crash import fuse
from tests.crash.children import in_child
from tests.crash.harness import Operation, shown
from tests.crash.operations import OPERATIONS
from tests.crash.small_process import in_small_process
from tests.crash.test_fuse import CHOSEN, PRIMITIVES, look, server, tracer  # noqa: F401
from tests.support import SCALE, scaled

pytestmark = pytest.mark.crash
NAMES = fuse.kinds("rename", "rename2", "link", "unlink", "mkdir", "create", "rmdir")
FAR = 1 << 40
POINTS = scaled(1)
"""Requests of an operation whose reply is lost; all of them in a long run."""


ASKED = [*OPERATIONS, *PRIMITIVES] if SCALE >= 5 else [*CHOSEN, *PRIMITIVES]


def act(operation: Operation, path: str, trouble: fuse.Trouble, n: int) -> tuple[str, int]:
    """What it returned, in words, and how many requests were still to come before the fault."""
    thing = operation.opened(path)
    trouble.at(n, fuse.AGAIN, 0, NAMES)
    try:
        said = operation.act(thing)
        return repr(said), trouble.left
    finally:
        trouble.never()


@pytest.mark.parametrize("operation", ASKED, ids=lambda operation: operation.name)
def test_a_lost_reply_is_not_noticed(operation: Operation, server: tuple[Path, fuse.Trouble]) -> None:  # noqa: F811
    lose_replies(operation, *server)


@in_small_process
def lose_replies(operation: Operation, place: Path, trouble: fuse.Trouble) -> None:
    def strike(n: int) -> tuple[str, int, Any]:
        path = tempfile.mkdtemp(dir=place)
        in_child(lambda: operation.prepared(path))
        said, left = in_child(lambda: act(operation, path, trouble, n))
        found = in_child(lambda: look(operation, path))
        shutil.rmtree(path)
        return said, left, found

    said, left, after = strike(FAR)
    requests = FAR - left
    for n in range(1, requests + 1, max(1, requests // POINTS)):
        says, left, found = strike(n)
        if left:
            continue  # it was one of those that are not made each time
        where = f"{operation.name}: the reply to request {n} of {requests} was lost"
        assert found == after, f"{where}: found {shown(found)}, not {shown(after)}"
        assert says == said, f"{where}: it returned {says}, not {said}"
