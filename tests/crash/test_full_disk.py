"""Disks that really are full, without inodes or read-only, and no descriptors: the old value stays, and all goes on."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.crash import mounts
from tests.crash.harness import Operation, place, strike, undisturbed, unharmed
from tests.crash.operations import HASHED, HSET, OPERATIONS, PLAIN
from tests.crash.ptrace import Kill, Torn
from tests.crash.refusal import hinder

pytestmark = pytest.mark.crash
SIZE = "size=2m"
BIG = [
    "set a new key to a big value",
    "overwrite more than a page",
    "overwrite more than 64 KB",
    "hset of a big new item",
    "put of a big job",
    "put_many",
]


def each(operations: list[Operation]) -> Any:
    return pytest.mark.parametrize("operation", operations, ids=lambda operation: operation.name)


@each(OPERATIONS)
def test_a_full_disk_changes_nothing_and_is_got_over(operation: Operation, root: Path) -> None:
    with mounts.tmpfs(root / "disk", SIZE) as disk:
        error = hinder(operation, disk, root, lambda: mounts.fill(disk), lambda: mounts.empty(disk), errno.ENOSPC)
        assert error is not None or operation.name not in BIG, f"{operation.name} found room on a disk that is full"


@each([operation for operation in OPERATIONS if operation.name in BIG])
def test_a_disk_that_fills_up_in_the_middle_of_a_write_changes_nothing(operation: Operation, root: Path) -> None:
    with mounts.tmpfs(root / "disk", SIZE) as disk:
        hinder(operation, disk, root, lambda: mounts.fill(disk, 8192), lambda: mounts.empty(disk), errno.ENOSPC)


@each(OPERATIONS)
def test_a_disk_without_inodes_changes_nothing_and_is_got_over(operation: Operation, root: Path) -> None:
    with mounts.tmpfs(root / "disk", f"{SIZE},nr_inodes=200") as disk:
        hinder(operation, disk, root, lambda: mounts.use_up_inodes(disk), lambda: mounts.empty(disk), errno.ENOSPC)


@each([*PLAIN, *HASHED])
def test_a_disk_that_is_read_only_can_be_read_and_is_got_over(operation: Operation, root: Path) -> None:
    with mounts.tmpfs(root / "disk", SIZE) as disk:
        error = hinder(
            operation, disk, root,
            lambda: mounts.read_only(disk, SIZE), lambda: mounts.writable(disk, SIZE),
            errno.EROFS, before_opening=True,
        )  # fmt: skip
        assert error is not None, f"{operation.name} says it wrote to a disk that is read-only"


@each(HSET)
def test_what_a_killed_hset_left_can_be_read_on_a_disk_that_is_read_only(operation: Operation, root: Path) -> None:
    expected = undisturbed(operation, root)
    with mounts.tmpfs(root / "disk", SIZE) as disk:
        for n in range(1, len(expected.calls) + 1):
            path = str(disk / f"store{n}")
            os.mkdir(path, 0o700)
            for fault in (Kill(n), Torn(n)):
                hit = strike(operation, path, fault)
                mounts.read_only(disk, SIZE)
                where = place(operation, fault, hit)
                with unharmed(where), operation.store(path) as db:
                    assert operation.look(db) in (expected.before, expected.after), where
                mounts.writable(disk, SIZE)
                shutil.rmtree(path)
                os.mkdir(path, 0o700)


@each(OPERATIONS)
def test_a_process_without_free_descriptors_changes_nothing_and_gets_over_it(operation: Operation, root: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def no_more() -> None:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))

    def enough() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    hinder(operation, root, root, no_more, enough, errno.EMFILE, readable=False)
