"""Floor 3: calls that travel: who hands them out (`executor`), who makes them (`worker`), and what is sent (`call`).

`runner` runs commands, as `commands` makes them of lines; `overview` looks at all that is in a directory.
Beside them: `futures` tells each future how its call ended, `crew` starts workers, `shift` keeps them up for
the shell, `progress` counts. A call is a task
of a `WorkQueue`, and its outcome that task's result. This floor may start processes and set signal handlers; files,
locks and clocks it leaves to the floors below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psync.work.executor import Executor
    from psync.work.worker import Worker

__all__ = ["Executor", "Worker"]


def __getattr__(name: str) -> Any:
    """Only who asks for them pays for them: they import `multiprocessing`."""
    if name == "Executor":
        from psync.work.executor import Executor

        return Executor
    if name == "Worker":
        from psync.work.worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
