"""Starts processes or threads at the same moment, and brings back what they found out.

Processes are forked, so a test may hand over any function; what must not be shared (a store) is opened inside it.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

FORK = multiprocessing.get_context("fork")

PATIENCE = 100.0
"""Seconds after which processes that have not answered are given up."""

Job = Callable[[], Any]


class Answer(NamedTuple):
    value: Any
    trouble: str | None
    """The traceback when the job raised, or how its process ended."""


def together(jobs: Sequence[Job], patience: float = PATIENCE) -> list[Any]:
    """Run each job in a process of its own, all beginning at once; their results in the order of `jobs`.

    Raises `AssertionError` when a job raises (with its traceback), dies, or takes longer than `patience` seconds.
    """
    gate, opener = os.pipe()
    pipes = [FORK.Pipe(duplex=False) for _ in jobs]
    processes = [FORK.Process(target=_run, args=(job, gate, pipe[1])) for job, pipe in zip(jobs, pipes, strict=True)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + patience
    try:
        os.write(opener, b"." * len(jobs))
        answers = [_answer_of(process, pipe[0], deadline) for process, pipe in zip(processes, pipes, strict=True)]
    finally:
        for process in processes:
            end(process)
        for connection in (connection for pipe in pipes for connection in pipe):
            connection.close()
        os.close(gate)
        os.close(opener)
    troubles = [f"job {number}: {answer.trouble}" for number, answer in enumerate(answers) if answer.trouble]
    assert not troubles, "\n".join(troubles)
    return [answer.value for answer in answers]


def _run(job: Job, gate: int, sender: Connection) -> None:
    os.read(gate, 1)
    try:
        answer = Answer(job(), None)
    except BaseException:
        answer = Answer(None, traceback.format_exc())
    sender.send(answer)


def _answer_of(process: BaseProcess, receiver: Connection, deadline: float) -> Answer:
    wait([receiver, process.sentinel], max(0.0, deadline - time.monotonic()))
    if receiver.poll():
        answer: Answer = receiver.recv()
        process.join(max(0.0, deadline - time.monotonic()))
        return answer
    if process.exitcode is not None:
        return Answer(None, f"its process ended with exit code {process.exitcode} and no answer")
    return Answer(None, "it had not come to an end when patience ran out")


def end(process: BaseProcess) -> None:
    """Kill `process` if it still runs, and free what the parent keeps of it."""
    if process.is_alive():
        process.kill()
    process.join()
    process.close()


def in_threads(jobs: Sequence[Job]) -> list[Any]:
    """Run each job in a thread of its own, all beginning at once; their results in the order of `jobs`."""
    gate = threading.Barrier(len(jobs))

    def run(job: Job) -> Any:
        gate.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


class Finish:
    """Lets watchers go on for as long as workers work: ``while finish.ahead():`` here, ``with finish.one():`` there.

    No worker begins before every watcher is there, so that what they do is seen.
    """

    def __init__(self, workers: int, watchers: int) -> None:
        self._workers = workers
        self._watchers = watchers
        self._finished = FORK.Semaphore(0)
        self._watching = FORK.Semaphore(0)
        self._came = False  # each process has its own

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        try:
            while self._watching.get_value() < self._watchers:
                time.sleep(0.001)
            yield
        finally:
            self._finished.release()

    def ahead(self) -> bool:
        if not self._came:
            self._came = True
            self._watching.release()
        return self._finished.get_value() < self._workers


class SharedNumbers:
    """A row of integers that forked processes share; each is read and written whole."""

    def __init__(self, count: int) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 8 * count)).cast("q")

    def __getitem__(self, place: int) -> int:
        return self._numbers[place]

    def __setitem__(self, place: int, number: int) -> None:
        self._numbers[place] = number

    def copy(self) -> list[int]:
        return self._numbers.tolist()
