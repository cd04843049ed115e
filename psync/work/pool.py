"""Worker pool: the life cycle of worker processes: start, notice that one ended, stop, kill.

When to start a worker, and whether to replace one that ended, its owner decides: `local_workers` for an executor,
`supervisor` for ``psync worker``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkerPool(Generic[K]):
    """The worker processes of one owner, each under a key that the owner chooses. Not for several threads at once."""

    def __init__(self, context: BaseContext) -> None:
        self._context = context
        self._processes: dict[K, BaseProcess] = {}

    def start(self, key: K, target: Callable[..., object], args: tuple[Any, ...], name: str) -> None:
        """Start a process that calls ``target(*args)``."""
        process = self._context.Process(target=target, args=args, name=name)  # type: ignore[attr-defined]
        process.start()
        self._processes[key] = process

    def take_ended(self) -> dict[K, int]:
        """Forget the processes that ended; returns the exit code of each, by key: 0 where another part of the program
        (a handler of SIGCHLD) took it."""
        codes = {key: process.exitcode for key, process in self._processes.items()}
        ended = {key: code for key, code in codes.items() if code is not None}
        gone = wait([self._processes[key].sentinel for key in codes.keys() - ended.keys()], 0)
        for key in codes.keys() - ended.keys() if gone else ():
            if self._processes[key].sentinel in gone:
                ended[key] = self._processes[key].exitcode or 0
        for key in ended:
            _close(self._processes.pop(key))
        return ended

    def terminate(self) -> None:
        """Tell every worker to stop when it has finished its call (SIGTERM). Does not wait."""
        for process in self._processes.values():
            process.terminate()

    def stop(self, grace_s: float) -> None:
        """`terminate`, and return when all have ended; each is killed that takes longer than `grace_s`."""
        self.terminate()
        for process in self._processes.values():
            process.join(grace_s)
        self.kill()

    def kill(self) -> None:
        """End every worker at once (SIGKILL), and return when all have ended."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.join()
            _close(process)
        self._processes.clear()

    def pids(self) -> list[int]:
        """The process ids of the workers, whether or not they still run."""
        return [process.pid for process in self._processes.values() if process.pid is not None]

    def __len__(self) -> int:
        return len(self._processes)


def _close(process: BaseProcess) -> None:
    """Close an ended process.

    Another thread that starts or lists processes, or a handler of SIGCHLD, may have reaped the child just before.
    `multiprocessing` then takes it for a running one, for a moment or for ever, and does not close it: the collector
    will.
    """
    with contextlib.suppress(ValueError):
        process.close()
