"""Another process that does one thing, says how far it has come, and can be killed, stopped, or left a zombie."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from tests.concurrency.simultaneous import FORK, end

PATIENCE = 60.0
"""Seconds after which a process that says nothing has failed the test."""
SOON = 15.0
"""Seconds in which a death must have been noticed: a busy machine took 7, and a timeout, the other way, takes 30 or
more. The time that it took is printed."""


class RemoteFailure(NamedTuple):
    text: str


class Channel:
    """The other process's side: `say` to the test, `hear` what it tells."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.say = connection.send
        self.hear = connection.recv


class OtherProcess:
    """The test's side."""

    def __init__(self, job: Callable[[Channel], object]) -> None:
        self._connection, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_work, args=(job, theirs))
        self._process.start()
        theirs.close()
        self.pid: int = self._process.pid or 0

    def hear(self) -> Any:
        """What it says next. Raises `AssertionError` if it raises, dies or says nothing."""
        wait([self._connection, self._process.sentinel], PATIENCE)
        assert self._connection.poll(), f"pid {self.pid} says nothing (exit code {self._process.exitcode})"
        said = self._connection.recv()
        assert not isinstance(said, RemoteFailure), said.text
        return said

    def is_silent(self, seconds: float) -> bool:
        return not self._connection.poll(seconds)

    def tell(self, word: Any = None) -> None:
        self._connection.send(word)

    def kill(self, *, reaped: bool = True) -> float:
        """kill -9; it is dead when this returns, and a zombie unless `reaped`. When it was struck (monotonic)."""
        struck = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if reaped:
            self._process.join()
        return struck

    def stop(self) -> None:
        """SIGSTOP; it stands still when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def join(self) -> None:
        """It ends by itself, and in order."""
        self._process.join(PATIENCE)
        assert self._process.exitcode == 0, f"pid {self.pid} ended with {self._process.exitcode}"

    def close(self) -> None:
        end(self._process)
        self._connection.close()


def _work(job: Callable[[Channel], object], connection: Connection) -> None:
    try:
        job(Channel(connection))
    except BaseException:
        connection.send(RemoteFailure(traceback.format_exc()))
        raise SystemExit(1) from None


@contextlib.contextmanager
def other_process(job: Callable[[Channel], object]) -> Iterator[OtherProcess]:
    """A process that runs ``job(talk)``; killed at the end of the block, if it still runs."""
    other = OtherProcess(job)
    try:
        yield other
    finally:
        other.close()


@contextlib.contextmanager
def others(*jobs: Callable[[Channel], object]) -> Iterator[list[OtherProcess]]:
    """Several of them."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(other_process(job)) for job in jobs]


def first_to_report(others: Sequence[OtherProcess]) -> OtherProcess:
    """The first of `others` that has something to say."""
    ready = wait([other._connection for other in others], PATIENCE)
    assert ready, "nobody says anything"
    return next(other for other in others if other._connection in ready)


def eventually(look: Callable[[], object]) -> None:
    """Return as soon as ``look()`` is true, which it must be within `PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end, "it does not come to that"
        time.sleep(0.001)


def soon(what: str, begun: float, ended: float | None = None) -> None:
    """It took less than `SOON` seconds from `begun` on; says how many."""
    took = (time.monotonic() if ended is None else ended) - begun
    print(f"{what}: {took:.3f} s")
    assert took < SOON, f"{what} took {took:.2f} s"
