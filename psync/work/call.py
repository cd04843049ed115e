"""What travels: a call to be made, and how it ended.

Both travel as bytes in bytes: what can't be unpickled here or there is the trouble of that one call, and nobody else's.
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
"""How a store's pickles are loaded: as its `allow` says."""
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


class Terms(NamedTuple):
    """What is agreed about a call beside the call itself."""

    retries: int = 0
    """How often it is made again when it raises."""
    pause: float = 0.0
    """Seconds before it is made again."""
    timeout: float | None = None
    """Seconds after which it is interrupted by a `TimeoutError`."""


class Outcome(NamedTuple):
    """How a call ended."""

    value: Any = None
    error: BaseException | None = None
    worker: str = ""
    """Who made it, for people."""


class Stopped(SystemExit):
    """The worker was told to stop while it had nothing to do, or for the second time. The one thing that is raised in
    a call and is not how it ended."""


class RemoteTraceback(Exception):
    """The traceback of an exception as it was where it was raised; stands as its ``__cause__``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


def pack(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], terms: Terms) -> bytes:
    """The call as bytes. Raises `RemoteError` if something of it can't be pickled."""
    try:
        return _dumps((function, args, kwargs, tuple(terms)), function)
    except Exception as error:
        raise RemoteError(
            f"{function!r} with its arguments can't be sent to a worker: {error}. What is defined in a module can; "
            "for lambdas and for what is defined in __main__, install cloudpickle",
            worker=None,
        ) from error


def _dumps(whole: tuple[Any, ...], part: Any) -> bytes:
    """`pickles.dumps_whole` where only `part` may be of ``__main__``; quicker if it is not."""
    if type(part) in _PLAIN or getattr(part, "__module__", "__main__") != "__main__":
        try:
            return pickles.pack(whole)
        except Exception:
            pass  # there is a way, perhaps
    return pickles.dumps_whole(whole)


def check(queue: WorkQueue) -> None:
    """Raise `RemoteError` if the queue's store carries no calls."""
    if not internals_of(queue).codec.objects:
        raise RemoteError(
            f"the calls of a queue are pickles, and {queue.name!r} is in a store with serializer='json', which carries "
            "none, because unpickling runs code. Use WorkQueue there: its workers decide what to do with a value",
            worker=None,
        )


def terms_of(payload: bytes, loads: Loads) -> Terms:
    """The terms of a call; the usual ones if it can't be unpickled here."""
    try:
        return Terms(*loads(payload)[3])
    except Stopped:
        raise
    except BaseException:
        return Terms()


def make(payload: bytes, worker: str, loads: Loads) -> Outcome:
    """Make the call. Whatever it raises is its outcome, also SystemExit and KeyboardInterrupt; all but `Stopped`."""
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
    """Raise TimeoutError in the block after `seconds`. Only where signals can be had: in a main thread."""
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
    """The outcome as bytes. One that can't be pickled becomes an error that says so."""
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
    """How a call ended, from what a worker sent."""
    error: BaseException | None
    try:
        value, error, text, worker = loads(payload)
    except BaseException as trouble:  # raised by its own code, in a thread that looks for the outcomes of others, too
        told = RemoteError(f"the outcome of the call can't be unpickled here: {trouble!r}", worker=None)
        told.__cause__ = trouble
        return Outcome(None, told, "")
    if error is not None and text:
        error.__cause__ = RemoteTraceback(text)
    return Outcome(value, error, worker)
