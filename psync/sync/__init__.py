"""Floor 2: synchronization primitives among processes, written on the engine's verbs and the store's categories.

Each is made as ``Kind(db, name, ...)``, where `db` is a `PickleShareDB`, an engine or a path. One primitive is one
file; the two large ones are packages: `barrier` (with its fast path) and `queue` (the work queue and its parts).

All share three modules: `primitive` (a name in a directory), `shared_state` (one small value that one process changes
at a time) and `wait` (watch, look, pause). Nothing here knows a path, a lock file or a process table: the engine proves
which process is dead.
"""

from __future__ import annotations

from psync.sync.barrier.barrier import Barrier
from psync.sync.condition import Condition
from psync.sync.counter import Counter
from psync.sync.double_barrier import DoubleBarrier
from psync.sync.election import Election
from psync.sync.event import Event
from psync.sync.group import Group, Member
from psync.sync.latch import Latch
from psync.sync.lock import Lock
from psync.sync.mailbox import Mailbox
from psync.sync.queue.task import Task
from psync.sync.queue.work_queue import WorkQueue
from psync.sync.read_write_lock import ReadWriteLock
from psync.sync.rlock import RLock
from psync.sync.semaphore import BoundedSemaphore, Semaphore

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Counter",
    "DoubleBarrier",
    "Election",
    "Event",
    "Group",
    "Latch",
    "Lock",
    "Mailbox",
    "Member",
    "RLock",
    "ReadWriteLock",
    "Semaphore",
    "Task",
    "WorkQueue",
]
