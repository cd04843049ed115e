"""Re-entry: a call that interrupts another one of its own thread never waits for it.

A signal's handler, a finaliser, a weakref's callback or a trace function may call psync while its thread is in the
middle of a change. The thread would wait for itself. So:

* A `Section` refuses its own thread: `ReentrantCall` is raised at once.
* A `flock` is tried first. If the file is locked, the thread looks for a call of its own that has locked it: in the
  sections of the file's other handles, or, if no section goes with it, in its own frames (`marked_frames`). That costs
  nothing as long as the file is free.
* A verb without a result is done later (`finish_later`): by this thread, as soon as it leaves the section.

The fact that decides: the owner of the section's lock. It is set and cleared by one C call each, and no Python code of
the thread can run in between. A handler that comes before or after does its whole verb in between two steps of the
interrupted one, as another thread may.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from fcntl import flock
from threading import get_ident
from types import CodeType, TracebackType
from typing import Any, ParamSpec, TypeVar

from psync.engine.system import fork_hooks
from psync.errors import ReentrantCall

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep

MAX_IN_A_ROW = 1000
"""Postponed calls that are made at once: signals postpone a few, but a hook of the interpreter may never stop."""
Postponed = tuple[Callable[[], object], Hashable]
postponed: dict[int, list[Postponed]] = {}
"""By thread, the calls that it makes when it leaves its section, each with what it does (see `finish_later`)."""


class _Progress:
    """How far a thread has come with its postponed calls."""

    __slots__ = ("made", "making")

    def __init__(self) -> None:
        self.made = 0
        self.making: Hashable = None


_catching_up: dict[int, _Progress] = {}
"""The threads that are making them."""


class Section:
    """A critical section that excludes the other threads of this process, and refuses its own: ``with section,
    section.lock``.

    `lock` is a manager of its own, entered and left by C code: a signal's handler that raises finds it taken within the
    block, or not at all. `what` is being changed in the section, in words, for the error.
    """

    __slots__ = ("__weakref__", "is_mine", "lock", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.lock = threading.RLock()
        self.is_mine: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]
        """Whether this thread is in the section. (`threading.Condition` asks by this method, too.)"""

    def __enter__(self) -> None:
        if self.is_mine():
            raise reentrant(self.what)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if postponed:
            catch_up()

    def try_enter(self) -> bool:
        """Take the lock unless any thread has it, this one included."""
        return not self.is_mine() and self.lock.acquire(blocking=False)

    def leave(self) -> None:
        self.lock.release()
        if postponed:
            catch_up()


class FileSection(Section):
    """The section in which one handle locks the file `what`, by `flock` on a descriptor of its own.

    Another handle of the same file has another section: its readers don't wait for this one's writer.
    """

    __slots__ = ("_same_file",)

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._same_file = _sections_of(what)
        self._same_file.add(self)

    def wait_for(self, fd: int, how: int) -> None:
        """Lock `fd`, whose file is locked. Raises `ReentrantCall` if another handle of this thread has locked it."""
        if any(section.is_mine() for section in self._same_file if section is not self):
            raise reentrant(self.what)
        flock(fd, how)


class _Files:
    """The sections of each file, by its path, as long as there are any."""

    def __init__(self) -> None:
        self.sections: weakref.WeakValueDictionary[str, weakref.WeakSet[FileSection]] = weakref.WeakValueDictionary()
        self.guards: weakref.WeakValueDictionary[str, Section] = weakref.WeakValueDictionary()
        fork_hooks.remember_first(self)

    def after_fork(self) -> None:
        """In a child: a thread that does not exist there may be in a section, and the postponed calls are the
        parent's."""
        self.sections = weakref.WeakValueDictionary()
        self.guards = weakref.WeakValueDictionary()
        postponed.clear()
        _catching_up.clear()


_files = _Files()


def _sections_of(path: str) -> weakref.WeakSet[FileSection]:
    found = _files.sections.get(path)
    return _files.sections.setdefault(path, weakref.WeakSet()) if found is None else found


def guard_section(path: str) -> Section:
    """Return the one section of this process for a file that is locked for long: its threads wait for each other."""
    found = _files.guards.get(path)
    return _files.guards.setdefault(path, Section(path)) if found is None else found


# -- later ---------------------------------------------------------------------------------------------------------


def finish_later(call: Callable[[], object], same: Hashable = None) -> None:
    """Make `call` when this thread has left the section that it is in. Its error is raised there.

    `call` raises `ReentrantCall` while it meets another such section: it must not postpone itself once more. `same`
    says what it does, if to do that twice is to do it once: then it is dropped if the last one before it, which is
    postponed or being made, does the same. (That one is still in the section, so no other change comes in between.)

    Raises RecursionError if the calls that a hook of the interpreter makes in postponed calls have no end.
    """
    me = get_ident()
    calls, progress = postponed.get(me), _catching_up.get(me)
    last = calls[-1][1] if calls else progress and progress.making
    if same is not None and same == last:
        return
    if progress is not None and progress.made >= MAX_IN_A_ROW:
        raise RecursionError(
            f"a hook or handler has called psync in each of {MAX_IN_A_ROW} calls that were postponed because of it, "
            "and would do so for ever. Let it pass over what psync itself does"
        )
    postponed.setdefault(me, []).append((call, same))


def catch_up() -> None:
    """Make the postponed calls of this thread; those that meet another section of its own stay postponed.

    A trace function is not called meanwhile: if it calls psync at each line, there would be no end.
    """
    me = get_ident()
    if me in _catching_up or me not in postponed:
        return
    progress = _catching_up[me] = _Progress()
    still: list[Postponed] = []
    trace, profile = sys.gettrace(), sys.getprofile()
    try:
        if trace is not None:
            sys.settrace(None)
        if profile is not None:
            sys.setprofile(None)
        while calls := postponed.pop(me, None):
            while calls:
                call, progress.making = calls.pop(0)
                progress.made += 1
                try:
                    call()
                except ReentrantCall:
                    still.append((call, progress.making))
                except BaseException:
                    still += calls
                    raise
    finally:
        del _catching_up[me]
        if still:
            postponed[me] = still + postponed.get(me, [])
        if profile is not None:
            sys.setprofile(profile)
        if trace is not None:
            sys.settrace(trace)


def takes_effect(verb: Callable[P, None]) -> Callable[P, None]:
    """Let a verb without a result take effect also when it interrupts a change of the same thing: right after that."""

    @functools.wraps(verb)
    def at_once_or_later(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            if postponed and get_ident() in postponed and get_ident() not in _catching_up:
                catch_up()  # what was called before this comes first
                if get_ident() in postponed:
                    finish_later(functools.partial(verb, *args, **kwargs))
                    return
            verb(*args, **kwargs)
        except ReentrantCall:
            finish_later(functools.partial(verb, *args, **kwargs))

    return at_once_or_later


# -- frames --------------------------------------------------------------------------------------------------------

_marked: set[CodeType] = set()


def holds_lock(function: F) -> F:
    """Mark a function that may hold a file lock: see `marked_frames`. A call of it costs no more."""
    _marked.add(function.__code__)
    return function


def marked_frames() -> Iterator[dict[str, Any]]:
    """Yield the local variables of the marked functions that this thread is in, the innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _marked:
            yield frame.f_locals
        frame = frame.f_back  # type: ignore[assignment]


def reentrant(what: str) -> ReentrantCall:
    """Return the error for a call that would have to wait for the one that it interrupts."""
    where = _interrupted_at()
    return ReentrantCall(
        f"{what} is being changed by the call at {where}, which this one interrupts in the same thread: it would wait "
        "for itself for ever. Call it when that has returned, or from another thread; within the function of "
        "modify(), return the value instead",
        what=what,
        where=where,
    )


def _interrupted_at() -> str:
    """Return where the interrupted call of psync's was made: below this call, and what called it, and psync again."""
    frame = sys._getframe(2)
    for inside in (True, False, True):
        while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE) is inside:
            frame = frame.f_back  # type: ignore[assignment]
    return "an unknown place" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
