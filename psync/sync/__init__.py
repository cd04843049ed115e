"""Floor 2: how processes work together: one primitive a file, written on the engine's verbs and the store's categories.

Each is made as ``Kind(db, name, ...)``, where `db` is a `PickleShareDB`, an engine or a path. Nothing here knows a
path, a lock file or a process table; who died is the engine's to prove.
"""

from __future__ import annotations

from psync.sync.mailbox import Mailbox
from psync.sync.queue import WorkQueue
from psync.sync.task import Task

__all__ = ["Mailbox", "Task", "WorkQueue"]
