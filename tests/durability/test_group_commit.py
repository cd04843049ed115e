"""Durable puts of several processes share one fsync; what the disk refuses was not put, and its file is left alone."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from psync import WorkQueue
from psync.engine.contract.log import WAITING
from psync.engine.directory.log.group_commit import Commit
from psync.errors import QueueClosed, StoreFailed
from tests.concurrency.simultaneous import SharedNumbers

PUTS = 40


def durable(root: Path) -> WorkQueue:
    return WorkQueue(root, "jobs", durability="file")


def test_puts_of_four_processes_share_fsyncs_and_all_are_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SharedNumbers(4)
    sync = os.fdatasync
    jobs = durable(root)
    jobs.put("first")
    ready, go = os.pipe()
    children = []
    for me in range(4):
        child = os.fork()
        if not child:
            code = 1
            try:

                def slow(descriptor: int, me: int = me) -> None:
                    asked[me] += 1
                    time.sleep(0.002)
                    sync(descriptor)

                monkeypatch.setattr(os, "fdatasync", slow)
                os.read(ready, 1)
                for number in range(PUTS):
                    jobs.put((me, number))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.write(go, b"!!!!")
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    os.close(ready)
    os.close(go)
    tasks = [jobs.get().value for _ in range(1 + 4 * PUTS)]
    assert jobs.empty()
    for me in range(4):
        assert [number for task in tasks[1:] for who, number in [task] if who == me] == list(range(PUTS))
    assert 1 <= sum(asked) < 4 * PUTS, "no fsync was shared"


def test_threads_share_them_too(root: Path) -> None:
    jobs = durable(root)
    threads = [threading.Thread(target=lambda: [jobs.put(number) for number in range(PUTS)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert jobs.qsize() == 4 * PUTS


def test_what_is_not_on_the_disk_yet_is_not_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, seen = durable(root), []
    jobs.put("first")
    sync = os.fdatasync

    def looked(descriptor: int) -> None:
        seen.append(WorkQueue(root, "jobs").qsize())
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", looked)
    jobs.put("second")
    assert seen == [1]
    assert jobs.qsize() == 2


def test_a_put_that_the_disk_refuses_was_not_made_and_the_next_goes_to_another_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, asked = durable(root), []
    jobs.put("first")
    sync = os.fdatasync

    def refuse(descriptor: int) -> None:
        asked.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def note(descriptor: int) -> None:
        asked.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(StoreFailed, match="EIO"):
        jobs.put("second")
    monkeypatch.setattr(os, "fdatasync", note)
    jobs.put("third")
    assert len(asked) == len(set(asked)), "a file was asked for again although the disk had failed"
    monkeypatch.undo()
    other = WorkQueue(root, "jobs")
    assert [other.get().value, jobs.get().value] == ["first", "third"]
    assert jobs.empty()


def test_a_first_put_that_the_disk_refuses_was_not_made_either(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = durable(root)
    jobs.qsize()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(StoreFailed, match="EIO"):
        jobs.put("first")
    with pytest.raises(StoreFailed, match="EIO"):
        jobs.put("second", delay=1)
    monkeypatch.undo()
    jobs.put("third")
    assert jobs.get().value == "third"
    assert jobs.statistics().delayed == 0


def test_a_queue_that_was_closed_takes_nothing_that_is_on_its_way(root: Path) -> None:
    jobs = durable(root)
    jobs.put("first")
    jobs.close()
    with pytest.raises(QueueClosed):
        jobs.put("second")
    assert jobs.qsize() == 1
    jobs.reopen()
    jobs.put("second")
    assert jobs.qsize() == 2


def test_a_put_that_fails_while_it_waits_for_the_disk_is_not_made_by_the_next_one(root: Path, monkeypatch: Any) -> None:
    jobs = durable(root)
    jobs.put("first")

    def fail(commit: Commit, end: int, failures: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def fail_late(commit: Commit, end: int, failures: int) -> None:
        monkeypatch.undo()
        appender = jobs._log.append.__self__  # type: ignore[attr-defined]
        appender._append([b"behind it"], WAITING, appender._enter_tail)
        fail(commit, end, failures)

    for failing in (fail, fail_late):
        monkeypatch.setattr(Commit, "wait", failing)
        with pytest.raises(StoreFailed, match="ENOLCK"):
            jobs.put("second")
        monkeypatch.undo()
    jobs.put("third")
    payloads = [record.payload for record in jobs._log.take(1, 10)]
    assert [pickle.loads(payload)[1] for payload in payloads if payload != b"behind it"] == ["first", "third"]
