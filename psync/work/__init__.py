"""Floor 3: remote calls: `executor` submits them, `worker` makes them, `call` is what travels between the two.

A call is a task of a `WorkQueue`, and its outcome is that task's result. `futures` completes each future when its
outcome arrives, `pool` starts, replaces, stops and kills worker processes, and `progress` counts. `shell/` runs
programs, one for each line of input; `admin/` looks at a whole store, or copies it.

This floor may start processes and set signal handlers; files, locks and clocks it leaves to the floors below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psync.work.executor import Executor
    from psync.work.worker import Worker

__all__ = ["Executor", "Worker"]


def __getattr__(name: str) -> Any:
    """Imported on first use, because they import `multiprocessing`."""
    if name == "Executor":
        from psync.work.executor import Executor

        return Executor
    if name == "Worker":
        from psync.work.worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
