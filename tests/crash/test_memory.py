"""An allocation fails, at each in turn: the operation is done or not done, and others go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from psync.errors import PsyncError
from tests.crash.harness import Operation, directory, finish, no_litter, shown, undisturbed, unharmed
from tests.crash.operations import OPERATIONS
from tests.crash.small_process import in_small_process
from tests.support import scaled

_testcapi = pytest.importorskip("_testcapi", reason="this Python has no _testcapi, which makes allocations fail")

pytestmark = pytest.mark.crash
POINTS = scaled(8)
FINE, REFUSED, ODD = range(3)


def allocations(operation: Operation, folder: Path) -> int:
    """How many there are, about: the first power of 2 that is not reached."""
    n = 8
    while True:
        with directory(folder) as path:
            operation.prepared(path)
            if _strike(operation, path, n)[0] == FINE:
                return n
        n *= 2


def _strike(operation: Operation, path: str, n: int) -> tuple[int, str]:
    """In a child, the n-th allocation fails, and that one only. How it ended, and what was raised."""
    told = os.memfd_create("told")
    child = os.fork()
    if not child:
        code, said = ODD, "it could not even begin"
        try:
            signal.alarm(20)
            thing = operation.opened(path)
            code, said = _without_memory(operation, thing, n)
        finally:
            os.write(told, said.encode())
            os._exit(code)
    _, status = os.waitpid(child, 0)
    said = os.pread(told, 1000, 0).decode()
    os.close(told)
    assert status != signal.SIGALRM, f"{operation.name}: hung after allocation {n} had failed"
    return (REFUSED, "died") if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), said)


def _without_memory(operation: Operation, thing: Any, n: int) -> tuple[int, str]:
    try:
        _testcapi.set_nomemory(n, n + 1)
        try:
            operation.act(thing)
        finally:
            _testcapi.remove_mem_hooks()
    except (MemoryError, PsyncError) as error:
        return REFUSED, repr(error)
    except BaseException as error:  # without memory, another exception may come in the place of a MemoryError
        return ODD, repr(error)
    return FINE, ""


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_allocation_that_fails_leaves_the_state_before_or_after(operation: Operation, root: Path) -> None:
    many, refused = fail_everywhere(operation, root)
    assert refused, f"{operation.name}: none of {many} allocations was ever missed"


@in_small_process
def fail_everywhere(operation: Operation, folder: Path) -> tuple[int, int]:
    """How many allocations there are, about, and how many of those that failed were missed."""
    reference = undisturbed(operation, folder)
    many = allocations(operation, folder)
    refused = 0
    for n in range(1, many, max(1, many // POINTS)):
        with directory(folder) as path:
            operation.prepared(path)
            how, said = _strike(operation, path, n)
            where = f"{operation.name}: allocation {n} failed ({said or 'nothing raised'})"
            with unharmed(where):
                end, files = finish(operation, path)
            assert end in (reference.before, reference.after), (
                f"{where}: found {shown(end)}, not {shown(reference.before)} or {shown(reference.after)}"
            )
            assert how != FINE or end == reference.after, f"{where}: it returned, but found {shown(end)}"
            no_litter(files, reference, where)
            refused += how != FINE
    return many, refused


def test_what_is_refused_for_want_of_memory_can_be_done_by_the_same_process(root: Path) -> None:
    (operation,) = [operation for operation in OPERATIONS if operation.name == "hset of a new item"]

    def twice(thing: Any) -> None:
        for n in range(1, 60, 3):
            try:
                _testcapi.set_nomemory(n, n + 1)
                try:
                    operation.act(thing)
                finally:
                    _testcapi.remove_mem_hooks()
            except MemoryError:
                operation.act(thing)

    with directory(root) as path, operation.store(path) as db:
        operation.prepare(db)
        twice(operation.ready(db))
        assert operation.look(db)
