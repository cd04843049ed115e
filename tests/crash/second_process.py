"""A second process beside the one that is traced: made ready before, and told to act while the other stands still."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from tests.crash.ptrace import ASLEEP, sleeps

PATIENCE = 2.0
"""Seconds that it has, unless it falls asleep before that, until it is taken to wait for the one that stands still."""


class SecondProcess:
    """A process that acts when it is told to, ``act(ready())``, and lives until it is asked what came of it."""

    def __init__(self, act: Callable[[Any], Any], ready: Callable[[], Any]) -> None:
        self.begun = self.waited = self._gone = False
        self._told = os.memfd_create("told")
        self._wait, self._go = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._act(act, ready)

    def _act(self, act: Callable[[Any], Any], ready: Callable[[], Any]) -> None:
        """In the child. Never returns."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            thing = ready()
            os.pwrite(self._told, b"?", 0)  # ready; what is told later is longer
            os.read(self._wait, 1)
            told = pickle.dumps((True, act(thing)))
        except BaseException:
            told = pickle.dumps((False, traceback.format_exc()))
        os.pwrite(self._told, told, 0)
        os.read(self._wait, 1)
        os._exit(0)

    def _said(self) -> int:
        return os.fstat(self._told).st_size

    def ready(self) -> None:
        while not self._said():
            assert os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "it never got ready"
            time.sleep(0.0005)

    @property
    def done(self) -> bool:
        return self._said() > 1

    def go(self) -> None:
        """Let it act; return when that is done, or when it sleeps: then it `waited`, and must come to an end later."""
        if not self.begun:
            self.begun = True
            os.write(self._go, b"!")
        deadline = time.monotonic() + PATIENCE
        asleep = 0
        while not self.done and time.monotonic() < deadline and asleep < ASLEEP:
            asleep = asleep + 1 if sleeps(self._pid) else 0
            time.sleep(0.001)
        self.waited = not self.done

    def end(self) -> tuple[bool, Any]:
        """It ends by itself, or by its alarm: whether it raised nothing; what it returned, or its traceback."""
        os.write(self._go, b"!")
        _, status = os.waitpid(self._pid, 0)
        self._gone = True
        assert os.waitstatus_to_exitcode(status) == 0, "who was beside waited on after the other one was done"
        fine, told = pickle.loads(os.pread(self._told, self._said(), 0))
        return fine, told

    def close(self) -> None:
        if not self._gone:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        for descriptor in (self._told, self._wait, self._go):
            os.close(descriptor)


@contextlib.contextmanager
def second(act: Callable[[Any], Any], ready: Callable[[], Any]) -> Iterator[SecondProcess]:
    other = SecondProcess(act, ready)
    try:
        other.ready()
        yield other
    finally:
        other.close()
