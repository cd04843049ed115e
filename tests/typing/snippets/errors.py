"""Every error is also what one would catch without knowing psync, and has fields with types."""

import queue
import threading
from typing import assert_type

from psync import (
    BrokenBarrierError,
    ClassRefused,
    CorruptValue,
    DirectoryGone,
    ForkedCopy,
    FormatMismatch,
    InvalidKey,
    LockTimeout,
    NotSerializable,
    PsyncError,
    QueueClosed,
    ReentrantCall,
    RemoteError,
    StaleClaim,
    StoreFailed,
    StoreFull,
    TaskFailed,
    UnreadableValue,
    UnsafeStore,
    WaitTimeout,
)


def takes_any(error: PsyncError) -> None: ...
def takes_timeout(error: TimeoutError) -> None: ...
def takes_key(error: KeyError) -> None: ...
def takes_value(error: ValueError) -> None: ...
def takes_system(error: OSError) -> None: ...
def takes_permission(error: PermissionError) -> None: ...
def takes_broken(error: threading.BrokenBarrierError) -> None: ...
def takes_runtime(error: RuntimeError) -> None: ...


def also(error: Exception) -> None:
    match error:
        case WaitTimeout():
            takes_timeout(error)
            takes_key(error)
            takes_any(error)
            assert_type(error.waited, float)
        case InvalidKey():
            takes_key(error)
            takes_value(error)
        case LockTimeout():
            takes_timeout(error)
            assert_type(error.holder, str | None)
        case DirectoryGone():
            takes_system(error)
            assert_type(error.directory, str)
        case ForkedCopy():
            takes_runtime(error)
            assert_type(error.pid, int)
        case ReentrantCall():
            takes_runtime(error)
            assert_type(error.where, str)
        case StoreFull() | StoreFailed():
            takes_system(error)
        case UnsafeStore():
            takes_permission(error)
            assert_type(error.path, str | None)
        case BrokenBarrierError():
            takes_broken(error)
        case QueueClosed():
            takes_value(error)
        case RemoteError():
            takes_runtime(error)
        case CorruptValue():
            assert_type(error.quarantine, str | None)
        case FormatMismatch():
            assert_type(error.found, int)
        case NotSerializable():
            takes_value(error)
            assert_type(error.where, str)
        case ClassRefused():
            assert_type(error.name, str)
        case UnreadableValue():
            assert_type(error.class_name, str | None)
            assert_type(error.category, str | None)
        case StaleClaim():
            assert_type(error.token, int)
        case TaskFailed():
            assert_type(error.task, str)
            error.nothing  # error: [attr-defined]


def no_key(error: StaleClaim) -> KeyError:
    return error  # error: [return-value]


nobody: queue.Empty = WaitTimeout("it is late")  # error: [assignment]
