"""Calls a function in a process that may not take more memory than it is given.

``python -m tests.store.memory_limit`` is that process: it gets one pickled call and answers with one pickle.
"""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ROOM = 200 << 20
"""Bytes of address space that the call may take beyond what the process had when it began."""


def with_memory_limit(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of the call; its exception is raised here. Anything that kills the process is an error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-m", "tests.store.memory_limit"]
    call = pickle.dumps((function, args, kwargs))
    told = subprocess.run(command, input=call, env=environment, capture_output=True, timeout=200, check=False)
    if told.returncode:
        raise RuntimeError(f"the limited process ended with {told.returncode}: {told.stderr.decode()[-3000:]}")
    worked, result = pickle.loads(told.stdout)
    if not worked:
        raise result
    return result  # type: ignore[no-any-return]


def allow(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    function, args, kwargs = pickle.load(sys.stdin.buffer)
    answer: tuple[bool, Any]
    allow(ROOM)
    try:
        answer = True, function(*args, **kwargs)
    except Exception as error:
        answer = False, error
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
