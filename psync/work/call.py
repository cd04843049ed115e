"""Remote call: encodes a call and its outcome for the way to a worker and back.

Both travel as bytes within bytes. So a value that can't be unpickled at one end fails that one call, and no other.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from psync.errors import RemoteError
from psync.store import pickles
from psync.sync.queue.work_queue import WorkQueue, internals_of

Loads = Callable[[bytes], Any]
"""Loads a store's pickles, within its `allow`."""
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


class Terms(NamedTuple):
    """The terms of a call: retries and a time limit."""

    retries: int = 0
    """How many times it is made again if it raises."""
    pause: float = 0.0
    """Seconds before it is made again."""
    timeout: float | None = None
    """Seconds after which it is interrupted by a `TimeoutError`."""


class Outcome(NamedTuple):
    """The outcome of a call: its value or its exception."""

    value: Any = None
    error: BaseException | None = None
    worker: str = ""
    """The worker that made it, for people."""


class Stopped(SystemExit):
    """The worker was told to stop while it had nothing to do, or for the second time. It is the only exception
    in a call that is not its outcome."""


class RemoteTraceback(Exception):
    """The text of an exception's traceback in the worker; becomes its ``__cause__`` here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


def pack(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], terms: Terms) -> bytes:
    """Pickle a call. Raises `RemoteError` if a part of it can't be pickled."""
    try:
        return _dumps((function, args, kwargs, tuple(terms)), function)
    except Exception as error:
        raise RemoteError(
            f"{function!r} with its arguments can't be sent to a worker: {error}. Functions and classes of a module "
            "can; for lambdas, and for those of __main__, install cloudpickle",
            worker=None,
        ) from error


def _dumps(whole: tuple[Any, ...], part: Any) -> bytes:
    """Pickle as `pickles.dumps_whole` does, when only `part` may be of ``__main__``; quicker if it is not."""
    if type(part) in _PLAIN or getattr(part, "__module__", "__main__") != "__main__":
        try:
            return pickles.pack(whole)
        except Exception:
            pass  # `dumps_whole` may have a way: cloudpickle
    return pickles.dumps_whole(whole)


def check(queue: WorkQueue) -> None:
    """Raise `RemoteError` if the queue's store can't carry calls."""
    if not internals_of(queue).priorities.codec.objects:
        raise RemoteError(
            f"the calls of a queue are pickles, and {queue.name!r} is in a store with serializer='json', which carries "
            "none, because unpickling runs code. Use WorkQueue there: its workers decide what to do with a value",
            worker=None,
        )


def terms_of(payload: bytes, loads: Loads) -> Terms:
    """Read the terms of a call; the defaults if it can't be unpickled here."""
    try:
        return Terms(*loads(payload)[3])
    except Stopped:
        raise
    except BaseException:
        return Terms()


def make(payload: bytes, worker: str, loads: Loads) -> Outcome:
    """Make the call. Its exception is its outcome, SystemExit and KeyboardInterrupt too, but not `Stopped`."""
    try:
        function, args, kwargs, terms = loads(payload)
    except Stopped:
        raise
    except BaseException as error:
        return _failed(error, worker, "the call can't be unpickled by this worker: are its modules installed there?")
    try:
        _, _, timeout = terms
        if timeout is None:
            return Outcome(function(*args, **kwargs), None, worker)
        with _limited(timeout):
            return Outcome(function(*args, **kwargs), None, worker)
    except Stopped:
        raise
    except BaseException as error:
        return _failed(error, worker)


def _failed(error: BaseException, worker: str, note: str = "") -> Outcome:
    text = "".join(traceback.format_exception(error))
    error.__context__ = None
    error.__traceback__ = None
    hint = f"({note})\n" if note else ""
    error.__cause__ = RemoteTraceback(f"\n\nIn {worker}:\n{hint}{text}")
    return Outcome(None, error, worker)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`. Works in a main thread only, as it needs signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the call took longer than its timeout of {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seal(outcome: Outcome) -> bytes:
    """Pickle the outcome. One that can't be pickled becomes an error that says so."""
    cause = outcome.error.__cause__ if outcome.error is not None else None
    text = str(cause) if cause is not None else ""
    try:
        whole = outcome.value, outcome.error, text, outcome.worker
        return _dumps(whole, outcome.value) if outcome.error is None else pickles.dumps_whole(whole)
    except Stopped:
        raise
    except BaseException as trouble:
        what = f"the exception {outcome.error!r}" if outcome.error is not None else f"a {type(outcome.value).__name__}"
        told = RemoteError(
            f"the call ended with {what}, which can't be pickled and so not be sent back: {trouble!r}",
            worker=outcome.worker,
        )
        return pickles.dumps((None, told, text, outcome.worker))


def unseal(payload: Any, loads: Loads) -> Outcome:
    """Unpickle an outcome that a worker sent."""
    error: BaseException | None
    try:
        value, error, text, worker = loads(payload)
    except BaseException as trouble:  # its own code raised this, in a thread that serves other outcomes, too
        told = RemoteError(f"the outcome of the call can't be unpickled here: {trouble!r}", worker=None)
        told.__cause__ = trouble
        return Outcome(None, told, "")
    if error is not None and text:
        error.__cause__ = RemoteTraceback(text)
    return Outcome(value, error, worker)
