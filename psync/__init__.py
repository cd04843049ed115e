"""psync: processes that share nothing but a directory work together.

They keep values in it, hand out jobs, collect results and wait for each other. No server, no daemon.

The floors, each importing only those below it::

    cli/      4  one command a file; the only place that prints and parses arguments
    work/     3  calls that travel: Executor, and the workers that make the calls
    sync/     2  one primitive a file: Lock, Barrier, Event ..., WorkQueue, Mailbox
    store/    1  PickleShareDB: mapping, hashed categories, waiting, links; the one door to pickle
    engine/   0  bytes under names: cells, buckets, logs, registers and locks, wake-ups, who is alive; the one door to
                 the system
    errors.py    every error, under PsyncError

The walk of a task, from the call to the answer::

    executor.submit(f, x)     work/executor.py: the call as bytes (work/call.py) is the value of a task
    queue.put(value)          sync/queue.py, intake.py: pickled, appended to a log
      Log.append              engine/directory/log_appends.py: the record, then where the log ends, which decides
        Wake.notify_takers    engine/directory/wake.py: is a flag up? then touch a file, and inotify wakes one worker
    queue.get()               sync/taker.py: the worker leaves word that it lives (a file that it keeps locked:
                              engine/directory/owners.py)
      Log.take                log_takes.py: the record's mark becomes "claimed by me": one store into memory that all
                              share (mark_file.py), or one write of 16 bytes
    task.done(result)         sync/claims.py
      Log.settle              logs.py: while the mark is certain to be mine:
        Bucket.append         engine/directory/buckets.py: the letter, at the end of a growing pickle
                              and the mark becomes "done"
      Log.settle_all          of several at once, a moment later, where a server is asked (sync/behind.py)
    queue.results.get(id)     sync/mailbox.py: woken by the letter's bucket, reads what was appended since
    future.result()           work/futures.py: the same, by one thread for all futures of a client

What a task can be, and who moves it on. What a *claim holder* does needs the claim to be still its own::

    state     on disk                        leaves it by
    WAITING   mark 0, attempts so far        a worker's take -> CLAIMED; cancel -> DEAD
    DELAYED   mark says until when           when that has come, anybody -> WAITING; cancel -> DEAD
    CLAIMED   mark names the worker, and     done -> DONE; retry -> WAITING or DELAYED, or DEAD after the last one;
              whether it has begun           fail -> DEAD; its worker proven dead, or its lease over: anybody -> as
                                             retry, or as never taken if not begun (DONE if the letter is there)
    DONE      mark; a letter, if any         never; the segment is removed when all in it is DONE or DEAD
    DEAD      mark; a grave with history     revive: put once more under the same id

Waiting for a state (`sync/waiting.py`) is always the same: watch, look, pause; and look for the dead now and then. A
primitive's state is one small value (`sync/shared.py`) in a register (`engine/directory/register.py`): changed under
the file's lock by one write, looked at in memory.

What keeps the bytes is the engine's matter: a directory (`engine/directory`), the memory of one process
(`engine/memory`), or a Redis or Valkey server (`engine/redis`: each verb one script there, who lives a lease, who waits
told by the server); `engine/sealed` goes around any of them. `sync/copying.py` takes a store from one to another.

`psync.engine.contract` says what every verb promises; `psync.engine.directory.layout` what every file is, and
`psync.engine.redis.lua` every key.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psync.engine import Allow, Durability, Engine, Key, Root, Serializer, Sharing, Wakeups
    from psync.engine import DirectoryEngine as DirectoryEngine
    from psync.engine import MemoryEngine as MemoryEngine
    from psync.errors import BrokenBarrierError as BrokenBarrierError
    from psync.errors import ClassRefused as ClassRefused
    from psync.errors import CorruptValue as CorruptValue
    from psync.errors import FormatMismatch as FormatMismatch
    from psync.errors import InvalidKey as InvalidKey
    from psync.errors import LockTimeout as LockTimeout
    from psync.errors import NotSerializable as NotSerializable
    from psync.errors import PsyncError as PsyncError
    from psync.errors import QueueClosed as QueueClosed
    from psync.errors import RemoteError as RemoteError
    from psync.errors import StaleClaim as StaleClaim
    from psync.errors import StoreFailed as StoreFailed
    from psync.errors import StoreFull as StoreFull
    from psync.errors import TaskFailed as TaskFailed
    from psync.errors import UnsafeStore as UnsafeStore
    from psync.errors import WaitTimeout as WaitTimeout
    from psync.store import PickleShareDB as PickleShareDB
    from psync.store import PickleShareLink as PickleShareLink
    from psync.store import gethashfile as gethashfile
    from psync.sync import Barrier as Barrier
    from psync.sync import BoundedSemaphore as BoundedSemaphore
    from psync.sync import Condition as Condition
    from psync.sync import Counter as Counter
    from psync.sync import DoubleBarrier as DoubleBarrier
    from psync.sync import Election as Election
    from psync.sync import Event as Event
    from psync.sync import Group as Group
    from psync.sync import Latch as Latch
    from psync.sync import Lock as Lock
    from psync.sync import Mailbox as Mailbox
    from psync.sync import Member as Member
    from psync.sync import ReadWriteLock as ReadWriteLock
    from psync.sync import RLock as RLock
    from psync.sync import Semaphore as Semaphore
    from psync.sync import Task as Task
    from psync.sync import WorkQueue as WorkQueue
    from psync.work import Executor as Executor
    from psync.work import Worker as Worker
    from psync.work.admin.copy_store import copy_store as copy_store

__version__ = "0.2.0"

_WHERE = {
    "PickleShareDB": "psync.store",
    "PickleShareLink": "psync.store",
    "gethashfile": "psync.store",
    "Barrier": "psync.sync",
    "DoubleBarrier": "psync.sync",
    "Latch": "psync.sync",
    "Counter": "psync.sync",
    "Lock": "psync.sync",
    "RLock": "psync.sync",
    "ReadWriteLock": "psync.sync",
    "Semaphore": "psync.sync",
    "BoundedSemaphore": "psync.sync",
    "Event": "psync.sync",
    "Condition": "psync.sync",
    "Election": "psync.sync",
    "Group": "psync.sync",
    "Member": "psync.sync",
    "WorkQueue": "psync.sync",
    "Task": "psync.sync",
    "Mailbox": "psync.sync",
    "copy_store": "psync.work.admin.copy_store",
    "Executor": "psync.work",
    "Worker": "psync.work",
    "DirectoryEngine": "psync.engine",
    "MemoryEngine": "psync.engine",
    "PsyncError": "psync.errors",
    "InvalidKey": "psync.errors",
    "WaitTimeout": "psync.errors",
    "CorruptValue": "psync.errors",
    "StoreFull": "psync.errors",
    "StoreFailed": "psync.errors",
    "UnsafeStore": "psync.errors",
    "FormatMismatch": "psync.errors",
    "NotSerializable": "psync.errors",
    "ClassRefused": "psync.errors",
    "QueueClosed": "psync.errors",
    "StaleClaim": "psync.errors",
    "RemoteError": "psync.errors",
    "TaskFailed": "psync.errors",
    "BrokenBarrierError": "psync.errors",
    "LockTimeout": "psync.errors",
}
__all__ = [*_WHERE]  # noqa: PLE0604 (all are strings; not `open`, which must not hide the builtin after a star import)


def open(
    root: PickleShareDB | Engine | Root,
    *,
    durability: Durability = "process",
    wakeups: Wakeups = "auto",
    categories: Mapping[str, Durability] | None = None,
    key: Key | None = None,
    trust_group: bool = False,
    sharing: Sharing = "auto",
    serializer: Serializer | None = None,
    allow: Allow | None = None,
) -> PickleShareDB:
    """The store at `root`, with the options of `PickleShareDB`; a store is taken as it is."""
    from psync.store import PickleShareDB

    if isinstance(root, PickleShareDB):
        return root
    return PickleShareDB(
        root,
        durability=durability,
        wakeups=wakeups,
        categories=categories,
        key=key,
        trust_group=trust_group,
        sharing=sharing,
        serializer=serializer,
        allow=allow,
    )


if not TYPE_CHECKING:  # a type checker would take it that there is every name

    def __getattr__(name: str) -> Any:
        """Import a public name's module when it is first used: ``import psync`` alone costs next to nothing."""
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
        return found


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]
