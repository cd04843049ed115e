"""The worker pool beside other parts of the program that reap its children first."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess

import pytest

from psync.work.pool import WorkerPool


def sleeper() -> None:
    time.sleep(100)


def quick() -> None:
    os._exit(3)


def started(target: object) -> tuple[WorkerPool[int], BaseProcess]:
    pool = WorkerPool[int](multiprocessing.get_context("fork"))
    pool.start(1, target, (), "worker")  # type: ignore[arg-type]
    return pool, next(child for child in multiprocessing.active_children() if child.pid in pool.pids())


@pytest.fixture
def forgotten() -> object:
    """`multiprocessing` keeps for ever what it takes for a running child: let it forget the one that we reaped."""
    yield
    multiprocessing.process._children.clear()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("forgotten")
def test_a_worker_that_a_handler_reaped_is_killed_without_an_error() -> None:
    pool, process = started(sleeper)
    process.kill()
    os.waitpid(process.pid or 0, 0)  # a program's handler of SIGCHLD does that
    pool.kill()
    assert not pool


@pytest.mark.usefixtures("forgotten")
def test_a_worker_that_a_handler_reaped_is_stopped_without_an_error() -> None:
    pool, process = started(sleeper)
    process.kill()
    os.waitpid(process.pid or 0, 0)
    pool.stop(0.1)
    assert not pool


@pytest.mark.usefixtures("forgotten")
def test_a_worker_that_a_handler_reaped_counts_as_ended() -> None:
    pool, process = started(quick)
    os.waitpid(process.pid or 0, 0)
    assert pool.take_ended() == {1: 0}
    assert not pool


def test_the_exit_code_of_a_worker_is_told_once() -> None:
    pool, process = started(quick)
    process.join()
    assert pool.take_ended() == {1: 3}
    assert pool.take_ended() == {}
