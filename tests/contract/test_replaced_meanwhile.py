"""On a network file system: a file that others replace again and again before its lock is had is waited for; a name
that goes on leading to one dead file is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psync import DirectoryEngine, StoreFailed
from psync.engine.directory.cells import nfs
from psync.engine.directory.fs import nfs_lookup, nfs_replace
from tests.contract.payloads import loaded, pickled

BEFORE = b"." * 5000
"""More than a page, so that a new file comes in place of the old one."""


def count(old: bytes | None) -> bytes:
    return pickled((loaded(old)[0] + 1 if old else 1, BEFORE))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DirectoryEngine]:
    engine = DirectoryEngine(tmp_path / "store", sharing="network")
    yield engine
    engine.close()


@pytest.fixture
def before_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Something is done before each lock of a cell, but not before those that it takes itself."""
    lock = nfs.lock

    def set_up(act: Callable[[], object]) -> None:
        acting = False

        def slow(fd: int, how: int) -> None:
            nonlocal acting
            if not acting:
                acting = True
                act()
                acting = False
            lock(fd, how)

        monkeypatch.setattr(nfs, "lock", slow)

    return set_up


def test_who_always_comes_second_still_gets_there(
    tmp_path: Path, engine: DirectoryEngine, before_lock: Callable[[Callable[[], object]], None]
) -> None:
    engine.update("n", count)
    rivals = nfs.MAX_DEAD_OPENS + 20
    turns = iter(range(rivals))
    rival = DirectoryEngine(tmp_path / "store", sharing="network")

    def replace() -> None:
        if next(turns, None) is not None:
            rival.update("n", count)

    before_lock(replace)
    engine.update("n", count)
    assert next(turns, None) is None
    cell = rival.read("n")
    rival.close()
    assert cell is not None and loaded(cell.payload)[0] == rivals + 2


def test_a_name_that_leads_to_one_dead_file_is_an_error(
    engine: DirectoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.update("n", count)
    looked = []
    monkeypatch.setattr(nfs, "MAX_DEAD_OPENS", 7)
    monkeypatch.setattr(engine._cells._cells._lookups, "is_live", lambda path, fd: looked.append(path))
    with pytest.raises(StoreFailed, match="Stale file handle"):
        engine.update("n", lambda old: old)
    assert looked == [os.path.join(engine.root, "n")] * 8


def test_a_bucket_that_goes_stale_while_it_is_opened_is_looked_for_again(
    engine: DirectoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server forgot the file between two requests: another host replaced it."""
    engine.bucket("cat/0a").append(b"K\x01K\x02s")
    stale = iter([True, True])

    class Os:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        @staticmethod
        def fstat(fd: int) -> os.stat_result:
            if next(stale, False):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return os.fstat(fd)

    monkeypatch.setattr(nfs_lookup, "os", Os())
    monkeypatch.setattr(nfs_replace, "os", Os())
    tail = DirectoryEngine(tmp_path / "store", sharing="network").bucket("cat/0a").tail()
    assert next(stale, None) is None
    assert tail is not None and tail.ops == b"K\x01K\x02s"
