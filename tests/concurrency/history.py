"""Who asked a store what, when, and what it answered.

Times are `time.monotonic_ns`, which is one clock for all processes of a host. An operation took effect
somewhere between its `start` (read just before the call) and its `end` (read just after it returned).

A value carries the id of the write that made it, and bytes that follow from the id: whoever reads it can
tell which write it came from, and whether it is whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

MISSING = "missing"
"""Stands for "no such key" where an id would stand."""

FOR_EVER = 1 << 62
"""The `end` of an operation whose process died in it: it may have happened, at any time, or never."""

SIZES = (0, 20, 150, 500, 2_000, 4_000, 4_300, 9_000)
"""Bytes of ballast: below and above what can be overwritten in place, so that both ways of writing take turns."""


class Operation(NamedTuple):
    """One call: what `verb` was asked for and what came back, as ids.

    ========== ======================== ==================================
    verb       argument                 result
    ========== ======================== ==================================
    set        id written               None
    get        None                     id found, or MISSING
    del        None                     True if it was this one's to remove
    add        id offered               True if it was stored
    setdefault id offered               id that stands there
    pop        None                     id removed, or MISSING
    modify     id the function was given id it made; MISSING if there was none and so nothing to do
    ========== ======================== ==================================
    """

    process: int
    key: str
    verb: str
    argument: Any
    result: Any
    start: int
    end: int


def value_of(identity: int) -> tuple[int, bytes]:
    """The value that the write `identity` stores; its size follows from the id too."""
    size = SIZES[(identity * 2_654_435_761 >> 8) % len(SIZES)]
    seed = b"%x." % identity
    return identity, (seed * (size // len(seed) + 1))[:size]


def identity_of(value: Any) -> int | str:
    """The id of the write that `value` came from; a text that equals no id when the value is not whole."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], int) and value == value_of(value[0]):
        return value[0]
    return f"torn: {value!r:.60}"


def never_raced(operations: Iterable[Operation]) -> bool:
    """True when no two operations on one key overlapped: such a history proves nothing about concurrency."""
    last: dict[str, int] = {}
    for operation in sorted(operations, key=lambda one: one.start):
        if operation.start <= last.get(operation.key, -1):
            return False
        last[operation.key] = operation.end
    return True


class Recorder:
    """Calls a store for one process and keeps the `Operation` of every call in `operations`."""

    def __init__(self, db: Any, process: int) -> None:
        self.db = db
        self.process = process
        self.operations: list[Operation] = []
        self._writes = 0

    def new_id(self) -> int:
        """An id that no other write of any process has."""
        self._writes += 1
        return self.process * 10_000_000 + self._writes

    def keep(self, key: str, verb: str, argument: Any, result: Any, start: int, end: int) -> None:
        self.operations.append(Operation(self.process, key, verb, argument, result, start, end))

    def get(self, key: str) -> None:
        start = time.monotonic_ns()
        try:
            value = self.db[key]
        except KeyError:
            self.keep(key, "get", None, MISSING, start, time.monotonic_ns())
        else:
            end = time.monotonic_ns()
            self.keep(key, "get", None, identity_of(value), start, end)

    def set(self, key: str) -> None:
        identity = self.new_id()
        value = value_of(identity)
        start = time.monotonic_ns()
        self.db[key] = value
        self.keep(key, "set", identity, None, start, time.monotonic_ns())

    def delete(self, key: str) -> None:
        start = time.monotonic_ns()
        try:
            del self.db[key]
        except KeyError:
            self.keep(key, "del", None, False, start, time.monotonic_ns())
        else:
            self.keep(key, "del", None, True, start, time.monotonic_ns())

    def add(self, key: str) -> None:
        identity = self.new_id()
        value = value_of(identity)
        start = time.monotonic_ns()
        won = self.db.add(key, value)
        self.keep(key, "add", identity, won, start, time.monotonic_ns())

    def setdefault(self, key: str) -> None:
        identity = self.new_id()
        value = value_of(identity)
        start = time.monotonic_ns()
        stands = self.db.setdefault(key, value)
        end = time.monotonic_ns()
        self.keep(key, "setdefault", identity, identity_of(stands), start, end)

    def pop(self, key: str) -> None:
        start = time.monotonic_ns()
        value = self.db.pop(key, None)
        end = time.monotonic_ns()
        self.keep(key, "pop", None, MISSING if value is None else identity_of(value), start, end)

    def modify(self, key: str) -> None:
        """`modify` with a default: creates the key when it is missing."""
        self._modify(key, {"default": None})

    def modify_existing(self, key: str) -> None:
        """`modify` without a default: a missing key stays missing."""
        self._modify(key, {})

    def _modify(self, key: str, options: dict[str, Any]) -> None:
        identity = self.new_id()
        value = value_of(identity)
        given: list[Any] = []

        def replace(old: Any) -> tuple[int, bytes]:
            given.append(old)
            return value

        start = time.monotonic_ns()
        try:
            made = self.db.modify(key, replace, **options)
        except KeyError:
            self.keep(key, "modify", MISSING, MISSING, start, time.monotonic_ns())
            return
        end = time.monotonic_ns()
        seen = MISSING if given[-1] is None else identity_of(given[-1])  # it may be called again: the last call counts
        self.keep(key, "modify", seen, identity_of(made), start, end)
