"""Corruption repair: the process that meets damage in a log puts it in order; only what was damaged is lost.

A verb that found bytes that do not fit their checksum locks ``tail`` and ``front`` and examines every record that is
not known to be final. (The damage may be none: another process was in the middle of writing a status.)

* A damaged record, or one with a damaged status, can not be claimed any more. Its bytes go to quarantine, it is DEAD,
  and its positions are a lost range from now on. If its length is unknown, it reaches to the next sound record; a
  checksum covers its position, so nothing else looks like one.
* ``front`` and the position files are rebuilt from the statuses, as after a power cut (see `recovery`); ``tail`` is
  rebuilt from the records.

A RuntimeWarning tells of each damage. After a kill in the middle the next process that meets the damage begins anew.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from psync.engine.directory.log.fields import Tail
from psync.engine.directory.log.recovery import CrashRecovery
from psync.engine.directory.log.state import LogState
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import boot_time
from psync.errors import DirectoryGone, PsyncError, ReentrantCall

MAX_FALSE_ALARMS = 3
"""Repairs in a row that may find no damage: a status was being written. After more, the error is raised."""
ALL_NOTE_BITS = (1 << 32) - 1
"""Stands for a note that was lost: its bits ask claimers for more care, so too many are safe and too few are not."""
_Verb = TypeVar("_Verb", bound=Callable[..., Any])


class CorruptionRepair:
    """The reaction of one log to failures."""

    def __init__(self, state: LogState, recovery: CrashRecovery) -> None:
        self._state = state
        self._recovery = recovery
        self._false_alarms = 0

    def handle(self, error: BaseException) -> None:
        """Return if damage was repaired and the verb that met `error` is to be tried again; else raise, in words.

        Called after every lock was released.
        """
        if isinstance(error, ReentrantCall):
            raise error  # the call that it interrupts is in the middle of a change, and has spoilt nothing
        state = self._state
        state.spoil()
        try:
            if isinstance(error, DirectoryGone):
                state.forget()
            if isinstance(error, PsyncError) or not isinstance(error, OSError | Unreadable):
                raise error
            if isinstance(error, OSError) or not state.writable:
                raise state.translate(error) from error
            try:
                found = self._repair()
            except (OSError, Unreadable):
                raise state.translate(error) from error
            for sentence in found:
                warnings.warn(f"the log {state.name!r} was damaged: {sentence}", RuntimeWarning, stacklevel=5)
            self._false_alarms = 0 if found else self._false_alarms + 1
            if self._false_alarms > MAX_FALSE_ALARMS:
                raise state.translate(error) from error
        finally:
            del error  # its traceback leads to this frame

    def check(self, *, making: bool = True) -> None:
        """See `CrashRecovery.check`. Without `making`, a log that is not there is not checked, and not made."""
        if making or self._state.is_there():
            self._recovery.check()

    def _repair(self) -> list[str]:
        """Put the log in order; returns what was damaged, in words."""
        state = self._state
        found: list[str] = []
        tail, damaged_tail = state.tail.enter_damaged()
        try:
            front, damaged_front = state.front.enter_damaged()
            try:
                bases = state.claiming.bases()
                if damaged_tail is not None:
                    found.append(self._keep("tail", damaged_tail, "its numbers do not fit their checksum"))
                    self._rebuild_tail(tail, bases)
                low, passed = front.low, front.head
                if damaged_front is not None:
                    found.append(self._keep("front", damaged_front, "its numbers do not fit their checksum"))
                    front.note = ALL_NOTE_BITS
                if damaged_front is not None or tail.boot != boot_time.number():
                    low, passed = bases[0] if bases else tail.end, 0  # a power cut may have taken final statuses, too
                found += self._retire_damaged(low, tail, passed)
                self._recovery.rebuild_front(tail, front, low)
                state.tail.save()
                state.front.save()
            finally:
                state.front.leave()
        finally:
            state.tail.leave()
        return found

    def _rebuild_tail(self, tail: Tail, bases: list[int]) -> None:
        segments = self._recovery.segments
        tail.end, tail.appended = segments.follow(bases[0] if bases else 0, bases)
        if any(base > tail.end for base in bases):
            raise Unreadable("a record is damaged, too, so the end of the log is unknown")
        tail.base = segments.drop_behind(tail.end, bases)
        tail.prepared_end = tail.prepared_count = 0
        tail.boot = boot_time.number()

    def _retire_damaged(self, low: int, tail: Tail, passed: int) -> list[str]:
        state, segments = self._state, self._recovery.segments
        found = []
        position, end, base = low, tail.end, tail.base
        state.claiming.close()  # the bytes that were read ahead may be the damaged ones
        state.claiming.bases()
        while position < end:
            following, damage = segments.examine(position, end, base, passed)
            if damage is not None:
                with state.settle_section, state.settle_section.lock:
                    state.claims.pop(position, None)
                state.lost.add(position, following)
                data = segments.retire(position, following, base)
                found.append(self._keep(f"{position:x}", data, str(damage)))
            position = following
        return found

    def _keep(self, part: str, data: bytes, reason: str) -> str:
        quarantine = self._state.fs.keep(f"{self._state.name}#{part}", data, reason)
        return f"{reason}; its bytes are kept at {quarantine}"


class Part(Protocol):
    """A part of a log with verbs that `wrap_errors` wraps."""

    _state: LogState
    _repair: CorruptionRepair


def wrap_errors(verb: _Verb) -> _Verb:
    """Check the log before its first verb, repair damage that the verb meets, and translate failures.

    The hot verbs have these lines written out, to save the call.
    """
    return _wrapped(verb, making=True)


def wrap_looks(verb: _Verb) -> _Verb:
    """`wrap_errors` for a verb that reads: it makes no log."""
    return _wrapped(verb, making=False)


def _wrapped(verb: _Verb, *, making: bool) -> _Verb:
    @functools.wraps(verb)
    def wrapped(self: Part, *args: Any) -> Any:
        try:
            if not self._state.checked:
                self._repair.check(making=making)
            return verb(self, *args)
        except BaseException as error:
            self._repair.handle(error)
        return wrapped(self, *args)

    return cast(_Verb, wrapped)
