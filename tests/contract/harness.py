"""Harness: an engine under test, other processes that use it, kill -9, and a broken disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from psync.engine import Engine, MemoryEngine, open_engine
from psync.engine.redis.engine import RedisEngine
from tests.concurrency.simultaneous import together
from tests.redis_server import RedisServer
from tests.support import SLACK

T = TypeVar("T")
Job = Callable[[Engine], Any]
FORK = multiprocessing.get_context("fork")


class Harness(ABC):
    """`engine` is what this process uses; `other` what a second process would, as far as the engine can tell."""

    engine: Engine

    @abstractmethod
    def other(self) -> Engine:
        """A second look at the same names, which shares no object with `engine`."""

    @abstractmethod
    def crowd(self, jobs: Sequence[Job]) -> list[Any]:
        """Every job at once, each in a process (or as an owner) of its own; what they returned."""

    @abstractmethod
    def killed(self, job: Callable[[Engine], T], *, reaped: bool = True) -> T:
        """What `job` returned in a process that was then killed; `reaped` False leaves its zombie until `close`."""

    @abstractmethod
    def spoil(self, name: str) -> None:
        """Damage the cell or bucket at `name`, as a broken disk would."""

    @abstractmethod
    def close(self) -> None: ...


class MemoryHarness(Harness):
    def __init__(self) -> None:
        self.engine: MemoryEngine = MemoryEngine()

    def other(self) -> MemoryEngine:
        return self.engine.as_owner()

    def crowd(self, jobs: Sequence[Job]) -> list[Any]:
        return threads([lambda job=job: job(self.other()) for job in jobs])

    def killed(self, job: Callable[[Engine], T], *, reaped: bool = True) -> T:
        engine = self.other()
        result = job(engine)
        engine.die()
        return result

    def spoil(self, name: str) -> None:
        self.engine.spoil(name)

    def close(self) -> None:
        self.engine.close()


class ProcessHarness(Harness):
    """What several processes can share: each opens an engine of its own."""

    def __init__(self) -> None:
        self.engine = self._open()
        self._others: list[Engine] = []
        self._zombies: list[Any] = []

    @abstractmethod
    def _open(self) -> Engine: ...

    def other(self) -> Engine:
        self._others.append(self._open())
        return self._others[-1]

    def crowd(self, jobs: Sequence[Job]) -> list[Any]:
        return together([lambda job=job: self._alone(job) for job in jobs], patience=40.0 * SLACK**2)

    def _alone(self, job: Callable[[Engine], T]) -> T:
        engine = self._open()
        try:
            return job(engine)
        finally:
            engine.close()

    def killed(self, job: Callable[[Engine], T], *, reaped: bool = True) -> T:
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self._work_and_die, args=(job, sender))
        process.start()
        sender.close()
        with receiver:
            result = receiver.recv()
        os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOWAIT)
        if reaped:
            process.join()
        self._zombies.append(process)
        if isinstance(result, BaseException):
            raise result
        return result

    def _work_and_die(self, job: Callable[[Engine], T], sender: Any) -> None:
        try:
            engine = self._open()
            answer: Any = job(engine)
        except Exception as error:
            answer = error
        sender.send(answer)
        os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        for process in self._zombies:
            process.join()
            process.close()
        for engine in (*self._others, self.engine):
            engine.close()


class DirectoryHarness(ProcessHarness):
    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self._options = options
        super().__init__()

    def _open(self) -> Engine:
        return open_engine(str(self.root), **self._options)

    def spoil(self, name: str) -> None:
        path = self.root / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        with open(path, "r+b") as file:
            file.write(data)


class RedisHarness(ProcessHarness):
    engine: RedisEngine

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self._url = server.url(prefix)
        super().__init__()

    def _open(self) -> RedisEngine:
        return RedisEngine(self._url)

    def spoil(self, name: str) -> None:
        key = self.engine.server.prefix + b"n:" + name.encode()
        data = bytearray(self.engine.server.ask("GET", key))
        data[len(data) // 2] ^= 0xFF
        self.engine.server.ask("SET", key, bytes(data))


def threads(jobs: Sequence[Callable[[], T]], patience: float = 20.0) -> list[T]:
    """Every job at once, each in a thread; what they returned, or the first error that one raised."""
    start = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = jobs[number]()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(jobs))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(patience * SLACK**2)  # only what hangs is to be found
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in running), f"no end after {patience} s"
    return results
