"""Strikes are made from a process that holds next to nothing: each of them forks it, and to fork pytest with its
thousands of tests takes longer than all else that a strike does::

    @lean
    def kill_everywhere(operation, folder): ...

is called as before. In a test it runs in that process, which is there for all tests, and returns or raises what it does
there; where there is no such process it runs here.
"""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import cloudpickle

P = ParamSpec("P")
T = TypeVar("T")


class Helper:
    """The lean process, as seen from the one that has the tests."""

    def __init__(self) -> None:
        self._here, there = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from tests.crash.small_process import serve; serve({there.fileno()})"],
            pass_fds=[there.fileno()],
            cwd=Path(__file__).parents[2],
            start_new_session=True,  # Ctrl-C is for the tests; when they are gone it ends
        )
        there.close()

    def call(self, call: bytes) -> Any:
        self._here.send_bytes(call)
        try:
            fine, result = pickle.loads(self._here.recv_bytes())
        except EOFError:
            raise AssertionError(f"the process that strikes ended: {self._process.wait()}") from None
        if not fine:
            raise result
        return result

    def close(self) -> None:
        self._here.close()
        self._process.wait()


_helper: Helper | None = None


def start() -> Callable[[], None]:
    """From now on strikes are made in another process; returns what ends that."""
    global _helper  # noqa: PLW0603
    _helper = helper = Helper()

    def end() -> None:
        global _helper  # noqa: PLW0603
        _helper = None
        helper.close()

    return end


def in_small_process(function: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(function)
    def elsewhere(*args: P.args, **kwargs: P.kwargs) -> T:
        if _helper is None:
            return function(*args, **kwargs)
        result: T = _helper.call(cloudpickle.dumps((elsewhere, args, kwargs)))
        return result

    return elsewhere


def serve(descriptor: int) -> None:
    """In the lean process: make the calls that come, until nobody is there any more who could send one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.set_inheritable(descriptor, False)
    calls = Connection(descriptor)
    while True:
        try:
            function, args, kwargs = pickle.loads(calls.recv_bytes())
        except EOFError:
            return
        try:
            said = cloudpickle.dumps((True, function(*args, **kwargs)))
        except Exception as error:
            error.add_note(traceback.format_exc())
            said = cloudpickle.dumps((False, error))
        calls.send_bytes(said)
