"""Errors: one tree of exceptions; each class is also the standard error that a caller already catches.

Each class keeps its facts as fields and pickles with them, because errors travel between processes. The text tells the
event, the place, and the remedy.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

_shut_down: tuple[type[Exception], ...] = ()
if sys.version_info >= (3, 13):
    import queue  # earlier versions have no ShutDown

    _shut_down = (queue.ShutDown,)


class PsyncError(Exception):
    """The root of the tree: ``except PsyncError`` catches all that psync itself decides to raise."""

    fields: tuple[str, ...] = ()

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        for name in self.fields:
            setattr(self, name, facts.get(name))

    def __str__(self) -> str:
        return self.message  # str(KeyError) is the repr of its argument

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: getattr(self, name) for name in self.fields}
        return _rebuild, (type(self), self.message, facts)


def _rebuild(kind: type[PsyncError], message: str, facts: dict[str, Any]) -> PsyncError:
    return kind(message, **facts)


class InvalidKey(PsyncError, KeyError, ValueError):
    """The key can't be a name in the store; nothing was read or written."""

    fields = ("key",)
    key: Any


class WaitTimeout(PsyncError, KeyError, TimeoutError):
    """A wait took longer than its timeout; `waited` is in seconds."""

    fields = ("key", "waited")
    key: Any
    waited: float


class CorruptValue(PsyncError):
    """The stored bytes fail their check; they are kept at `quarantine` (None while still in place).

    `foreign` (True or None): psync did not write them. Such a file stays where it is, and listings pass over it.
    """

    fields = ("key", "path", "quarantine", "reason", "foreign")
    key: Any
    path: str | None
    quarantine: str | None
    reason: str | None
    foreign: bool | None


class StoreFull(PsyncError, OSError):
    """No room: disk, inodes, quota or descriptors. Stored values are untouched; free room and go on."""

    fields = ("key", "errno", "strerror", "filename")
    key: Any


class StoreFailed(PsyncError, OSError):
    """The file system refused an operation (EIO, EACCES, EROFS ...). Stored values are untouched."""

    fields: tuple[str, ...] = ("key", "errno", "strerror", "filename")
    key: Any


class DirectoryGone(StoreFailed, FileNotFoundError):
    """The `directory` was removed, moved away or replaced while it was open, or a file of psync's (`filename`) was
    taken from it. What this process changes there would be seen by nobody."""

    fields = (*StoreFailed.fields, "directory")
    directory: str


class UnsafeStore(PsyncError, PermissionError):
    """The directory can't be trusted to hold values that will be unpickled."""

    fields = ("path", "reason")
    path: str | None
    reason: str | None


class FormatMismatch(PsyncError):
    """The directory has another format version than this psync; nothing was changed. Both are whole numbers."""

    fields = ("path", "found", "supported")
    path: str
    found: int
    supported: int


class NotSerializable(PsyncError, TypeError, ValueError):
    """A value would not come back from JSON as it was; nothing was written. `where` names the part that does not
    fit."""

    fields = ("where", "kind")
    where: str
    kind: str


class UnreadableValue(PsyncError):
    """A value is whole, but can't be unpickled here: its class is gone, can't be imported, or refuses. It stays there.

    `key` and `category` say where it is (`category` of an item, a message or a result, else None), `module` and
    `class_name` what it needs, as far as that is known, and `reason` what unpickling raised, which is the `__cause__`.
    If that is an AttributeError or an ImportError, so is this. `rest`: the readable items, if the value is a bucket of
    a category; it does not travel with the error.
    """

    fields: tuple[str, ...] = ("key", "category", "module", "class_name", "reason")
    key: Any
    category: str | None
    module: str | None
    class_name: str | None
    reason: str
    rest: dict[Any, Any] | None = None


class UnreadableAttribute(UnreadableValue, AttributeError):
    """`UnreadableValue`, where unpickling raised an AttributeError: the module is there, the class is not."""


class UnreadableImport(UnreadableValue, ImportError):
    """`UnreadableValue`, where unpickling raised an ImportError: the module can't be imported."""


class UnreadableModule(UnreadableValue, ModuleNotFoundError):
    """`UnreadableValue`, where unpickling raised a ModuleNotFoundError: there is no such module."""


class ClassRefused(UnreadableValue):
    """A pickle asks for `name`, which is not in the store's `allow` list. The name was not looked up."""

    fields = ("name", *UnreadableValue.fields)
    name: str


class ReentrantCall(PsyncError, RuntimeError):
    """The call interrupts another one of its own thread, which is changing `what`: it would wait for itself for ever.

    A signal's handler, a finaliser or the function of `modify` made it; `where` is the line of the interrupted call.
    Nothing was changed. Verbs without a result don't raise this: they take effect when the interrupted call is done.
    """

    fields = ("what", "where")
    what: str
    where: str


class ForkedCopy(PsyncError, RuntimeError):
    """The executor, worker or future (`what`) belongs to the process `pid`, and this is a forked child of that."""

    fields = ("what", "pid")
    what: str
    pid: int


class StaleClaim(PsyncError):
    """The claim was given to another worker meanwhile, or is that of the process from which this one was forked, or was
    answered here before. The late result was refused and changed nothing."""

    fields = ("task", "token")
    task: str
    token: int


class QueueClosed(PsyncError, ValueError, *_shut_down):  # type: ignore[misc]
    """The queue was closed: `put` raises this at once, and `get` once there will be no more tasks.

    From Python 3.13 on it is a `queue.ShutDown`.
    """

    fields = ("queue",)
    queue: str


class RemoteError(PsyncError, RuntimeError):
    """A call or its outcome could not travel; `worker` names the worker that made the call, if one did."""

    fields = ("worker",)
    worker: str | None


class TaskFailed(PsyncError):
    """A task ended dead: it failed for good or used up its attempts; `history` lists every attempt."""

    fields = ("task", "history")
    task: str
    history: list[Any]


class BrokenBarrierError(PsyncError, threading.BrokenBarrierError):
    """The barrier was broken: by a timeout, an abort, a reset, or a party that died (`who`)."""

    fields = ("barrier", "who")
    barrier: str
    who: Any


class LockTimeout(PsyncError, TimeoutError):
    """The lock was not free within `waited` seconds; `holder` names its holder, as far as is known."""

    fields = ("lock", "waited", "holder")
    lock: str
    waited: float
    holder: str | None


def kept_at(refuge: str | None) -> str:
    """Say where the damaged bytes are, for the text of a `CorruptValue`."""
    return f"its bytes are kept at {refuge}" if refuge else "its bytes were left where they are"
