"""psync: processes that share nothing but a directory work together.

They keep values in it, hand out jobs, collect results and wait for each other. No server, no daemon.

The floors; each imports only those below it::

    cli/      4  the `psync` command, one sub command a file; only this floor prints and parses arguments
    work/     3  calls that travel: Executor, the workers that run the calls, and programs that `psync run` starts
    sync/     2  the primitives: Lock, Barrier, Event ..., WorkQueue, Mailbox
    store/    1  PickleShareDB: mapping, hashed categories, waiting, links; only this floor pickles
    engine/   0  bytes under names: cells, buckets, logs, registers and locks, wake-ups, liveness; only this floor calls
                 the system
    errors.py    every error, under PsyncError

The way of a task from the call to its result::

    executor.submit(f, x)     work/executor.py: the call, pickled (work/call.py), is the value of a task
    queue.put(value)          sync/queue/work_queue.py, put.py: serializes the value and appends it to a log
      Log.append              engine/directory/log/append.py: writes the record, then the log's new end, which decides
        Wakeup.notify_claimers  engine/directory/notify/wakeup.py: if a waiter's flag is up, touches a file, so that
                              inotify wakes one worker
    queue.get()               sync/queue/consumer.py, claims.py: the worker registers as alive, by a file that it
                              keeps locked (engine/directory/liveness/registry.py)
      Log.take                engine/directory/log/claim.py: the record's status becomes "claimed by me", by one store
                              into shared memory, or one write of 16 bytes (log/status_file.py)
    task.done(result)         sync/queue/task.py, claims.py
      Log.settle              engine/directory/log/settle.py: while the record's status is certain to be mine:
        Bucket.append         engine/directory/buckets/bucket.py: the result, at the end of a growing pickle;
                              then the status becomes "done"
      Log.settle_all          several at once, a moment later, on a remote engine (sync/queue/ack_buffer.py)
    queue.results.get(id)     sync/mailbox.py: the result's bucket wakes it, and it reads what was appended since
    future.result()           work/futures.py: the same, by one thread for all futures of a client

How many of psync's functions a call enters in a warm process, and in how many files: `db[k] = v` 10 in 9, `queue.put`
13 in 8, `queue.get` 17 in 12, `task.done(x)` 23 in 15, `executor.submit` 23 in 11, `Lock.acquire` 4 in 3.

The states of a task, and the moves out of each. A claim's holder can make its moves only while it still has the claim::

    state     on disk                        moves
    WAITING   status 0, attempts so far      a worker claims it -> CLAIMED; cancel -> DEAD
    DELAYED   status with the due moment     the moment comes, any process -> WAITING; cancel -> DEAD
    CLAIMED   status with the worker, and    done -> DONE; retry -> WAITING or DELAYED, or DEAD after the last attempt;
              whether it has begun           fail -> DEAD; the worker is proven dead or its lease is over: any process,
                                             as retry, or back unchanged if not begun (DONE if there is a result)
    DONE      status; a result, if any       none; the segment is removed when all its records are DONE or DEAD
    DEAD      status; a dead letter          revive: put again under the same id

Every wait (`sync/wait.py`) has the same steps: watch, look, pause; and look for dead processes now and then. The state
of a primitive is one small value (`sync/shared_state.py`) in a register (`engine/directory/registers/register.py`): one
write under the file's lock changes it, and a look reads shared memory.

The engine decides what keeps the bytes: a directory (`engine/directory`), the memory of one process (`engine/memory`),
or a Redis or Valkey server (`engine/redis`: each verb is one script there, liveness is a lease, and the server wakes
waiters). `engine/signed` goes around any of them. `work/admin/copy_store.py` copies a store from one to another.

`psync.engine.contract` says what every verb promises, `psync.engine.directory.layout` what every file is, and
`psync.engine.redis.lua` what every key is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psync.engine import Allow, Durability, Engine, Key, Root, Serializer, Sharing, Wakeups
    from psync.engine import DirectoryEngine as DirectoryEngine
    from psync.engine import MemoryEngine as MemoryEngine
    from psync.errors import BrokenBarrierError as BrokenBarrierError
    from psync.errors import ClassRefused as ClassRefused
    from psync.errors import CorruptValue as CorruptValue
    from psync.errors import DirectoryGone as DirectoryGone
    from psync.errors import ForkedCopy as ForkedCopy
    from psync.errors import FormatMismatch as FormatMismatch
    from psync.errors import InvalidKey as InvalidKey
    from psync.errors import LockTimeout as LockTimeout
    from psync.errors import NotSerializable as NotSerializable
    from psync.errors import PsyncError as PsyncError
    from psync.errors import QueueClosed as QueueClosed
    from psync.errors import ReentrantCall as ReentrantCall
    from psync.errors import RemoteError as RemoteError
    from psync.errors import StaleClaim as StaleClaim
    from psync.errors import StoreFailed as StoreFailed
    from psync.errors import StoreFull as StoreFull
    from psync.errors import TaskFailed as TaskFailed
    from psync.errors import UnreadableValue as UnreadableValue
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

_NAMES = {
    "psync.store": "PickleShareDB PickleShareLink gethashfile",
    "psync.sync": (
        "Barrier DoubleBarrier Latch Counter Lock RLock ReadWriteLock Semaphore BoundedSemaphore Event Condition "
        "Election Group Member WorkQueue Task Mailbox"
    ),
    "psync.work.admin.copy_store": "copy_store",
    "psync.work": "Executor Worker",
    "psync.engine": "DirectoryEngine MemoryEngine",
    "psync.errors": (
        "PsyncError InvalidKey WaitTimeout CorruptValue UnreadableValue StoreFull StoreFailed DirectoryGone "
        "UnsafeStore FormatMismatch NotSerializable ClassRefused QueueClosed StaleClaim ReentrantCall ForkedCopy "
        "RemoteError TaskFailed BrokenBarrierError LockTimeout"
    ),
}
"""The public names by the module that has them. The imports above say the same to type checkers; a test compares."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [*_MODULES]  # noqa: PLE0604 (all are strings; without `open`, which a star import must not put in place of the builtin)


def open(
    root: PickleShareDB | Engine | Root,
    *,
    durability: Durability = "process",
    wakeups: Wakeups = "auto",
    categories: Mapping[str, Durability] | None = None,
    key: Key | None = None,
    trust_group: bool = False,
    sharing: Sharing = "auto",
    umask: int | None = None,
    serializer: Serializer | None = None,
    allow: Allow | None = None,
) -> PickleShareDB:
    """Open the store at `root`, with the options of `PickleShareDB`. A store is returned unchanged."""
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
        umask=umask,
        serializer=serializer,
        allow=allow,
    )


if not TYPE_CHECKING:  # a type checker would believe that every name exists

    def __getattr__(name: str) -> Any:
        """Import a public name's module when a program first uses the name: ``import psync`` alone costs little."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(__import__(_MODULES[name], fromlist=[name]), name)
        return found


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
