"""Floor 3: calls that travel: who hands them out (`executor`), who makes them (`worker`), and what is sent (`call`).

Beside them: `futures` tells each future how its call ended, `crew` starts workers, `progress` counts. A call is a task
of a `WorkQueue`, and its outcome that task's result. This floor may start processes and set signal handlers; files,
locks and clocks it leaves to the floors below.
"""

from __future__ import annotations

from psync.work.executor import Executor
from psync.work.worker import Worker

__all__ = ["Executor", "Worker"]
