"""A reader that looks at a store while a writer stands still between two of its system calls."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import time
import traceback
from collections.abc import Iterator
from typing import Any

from tests.crash.harness import LONG, Lost, Operation, Seen, directory, place, shown, undisturbed
from tests.crash.ptrace import Pause, run

PATIENCE = 0.5
"""Seconds that a reader has before it is taken to wait for the writer's lock; it must end once the writer goes on."""


def look_everywhere(operation: Operation, folder: object) -> Seen:
    """Before each call (some, of a long operation) another process looks, with a handle it kept and with a new one.

    A reader may wait for a writer that is in the middle of something, but it sees old or new; `seen.waited` counts
    those that waited.
    """
    reference = undisturbed(operation, folder)
    seen = Seen()
    for n in itertools.count(1, 1 + len(reference.calls) // LONG):
        with directory(folder) as path:
            operation.prepared(path)
            with _reader(operation, path) as reader:
                fault = Pause(n, reader.look)
                paused = run(operation.act, ready=lambda path=path: operation.opened(path), fault=fault)
                if not paused.struck:
                    break
                where = place(operation, fault, paused)
                assert paused.error is None, f"{where}: the writer raised {paused.error!r}"
                for handle, state in reader.states(where).items():
                    if state not in (reference.before, reference.after):
                        possible = f"{shown(reference.before)} or {shown(reference.after)}"
                        raise Lost(f"{where}: {handle} sees {shown(state)}, not {possible}")
                    seen.before += state == reference.before
                    seen.after += state == reference.after
                seen.points += 1
                seen.waited += reader.waited
    return seen


class _Reader:
    def __init__(self, operation: Operation, path: str) -> None:
        self.waited = False
        self.done = False
        self._told = os.memfd_create("states")
        self._wait, self._go = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._read(operation, path)

    def _read(self, operation: Operation, path: str) -> None:
        """In the child. Never returns."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            kept = operation.open(path)
            operation.look(kept)
            os.pwrite(self._told, b"?", 0)  # ready; what is told later begins otherwise
            os.read(self._wait, 1)
            states = {"a kept handle": operation.look(kept), "a new handle": operation.look(operation.open(path))}
            told = pickle.dumps(states)
        except BaseException:
            told = pickle.dumps(traceback.format_exc())
        os.pwrite(self._told, told, 0)
        os._exit(0)

    def ready(self) -> None:
        while os.fstat(self._told).st_size == 0:
            time.sleep(0.0005)

    def look(self) -> None:
        os.write(self._go, b"!")
        deadline = time.monotonic() + PATIENCE
        while not self.done and time.monotonic() < deadline:
            self.done = os.waitpid(self._pid, os.WNOHANG) != (0, 0)
            time.sleep(0.0005)
        self.waited = not self.done

    def states(self, where: str) -> dict[str, Any]:
        self.end()
        told = pickle.loads(os.pread(self._told, os.fstat(self._told).st_size, 0))
        if not isinstance(told, dict):
            raise Lost(f"{where}: a reader raised {told}")
        return told

    def end(self) -> None:
        """The reader ends by itself, or by its alarm."""
        if not self.done:
            _, status = os.waitpid(self._pid, 0)
            self.done = True
            assert os.waitstatus_to_exitcode(status) == 0, "the reader waited on after the writer was done"

    def close(self) -> None:
        if not self.done:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        for descriptor in (self._told, self._wait, self._go):
            os.close(descriptor)


@contextlib.contextmanager
def _reader(operation: Operation, path: str) -> Iterator[_Reader]:
    reader = _Reader(operation, path)
    try:
        reader.ready()
        yield reader
    finally:
        reader.close()
