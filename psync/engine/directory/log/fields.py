"""Fields of the three headers of a log: `Tail`, `Front` and `Sync` give names to the numbers in their files.

The order of the numbers is that of `load`; `layout` has it too, as part of the format. `load` and `pack` are written
out, because every append and claim comes through them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar

_pack_3 = struct.Struct("<4Q").pack
_pack_9 = struct.Struct("<10Q").pack


class Fields(Protocol):
    """The numbers of a header, with their names."""

    COUNT: ClassVar[int]

    def load(self, numbers: Sequence[int]) -> None:
        """Set all fields, in the order in which they lie in the file."""

    def pack(self, change: int) -> bytes:
        """The number of a change, and all fields, as they lie in the file."""
        ...


class Tail:
    """The fields of ``tail``: where a log ends. An appender changes them under the lock on ``tail``."""

    COUNT: ClassVar[int] = 9
    __slots__ = (
        "appended",
        "appended_delayed",
        "base",
        "boot",
        "end",
        "prepared_count",
        "prepared_end",
        "sealed",
        "status_end",
    )
    end: int
    """The position behind the last record."""
    base: int
    """The position at which the last segment begins."""
    appended: int
    """Records ever appended."""
    appended_delayed: int
    """Those of them that were appended DELAYED."""
    status_end: int
    """Up to where there may be statuses behind the end, left by an append that was killed; or a smaller number."""
    sealed: int
    """1 if the log takes no more records."""
    prepared_end: int
    """The position behind the last record that waits for its group commit; 0 if none does."""
    prepared_count: int
    """Records that wait for their group commit."""
    boot: int
    """The boot of the host in which the log was last checked for a power cut."""

    def load(self, numbers: Sequence[int]) -> None:
        (
            self.end,
            self.base,
            self.appended,
            self.appended_delayed,
            self.status_end,
            self.sealed,
            self.prepared_end,
            self.prepared_count,
            self.boot,
        ) = numbers

    def pack(self, change: int) -> bytes:
        return _pack_9(
            change,
            self.end,
            self.base,
            self.appended,
            self.appended_delayed,
            self.status_end,
            self.sealed,
            self.prepared_end,
            self.prepared_count,
            self.boot,
        )


class Front:
    """The fields of ``front``: how far a log was claimed. A claimer changes them under the lock on ``front``."""

    COUNT: ClassVar[int] = 9
    __slots__ = (
        "delayed_count",
        "delayed_passed",
        "head",
        "low",
        "note",
        "passed",
        "requeue_end",
        "requeue_head",
        "skipped",
    )
    head: int
    """Head cursor: the first record that no claimer has passed."""
    low: int
    """Low-water mark: every record before it is final."""
    passed: int
    """Records that the head cursor has passed."""
    requeue_end: int
    """Entries in the file ``returned``: positions of records that can be claimed again."""
    requeue_head: int
    """Requeue cursor: the first entry of ``returned`` that no claimer has used."""
    skipped: int
    """Records that were settled without a claim and that a claimer will still come past."""
    delayed_passed: int
    """Records appended DELAYED that a claimer has passed, or that are DELAYED no more."""
    delayed_count: int
    """Entries in the file ``delayed``: positions of records that are, or were, DELAYED."""
    note: int
    """The number that `Log.note` left."""

    def load(self, numbers: Sequence[int]) -> None:
        (
            self.head,
            self.low,
            self.passed,
            self.requeue_end,
            self.requeue_head,
            self.skipped,
            self.delayed_passed,
            self.delayed_count,
            self.note,
        ) = numbers

    def pack(self, change: int) -> bytes:
        return _pack_9(
            change,
            self.head,
            self.low,
            self.passed,
            self.requeue_end,
            self.requeue_head,
            self.skipped,
            self.delayed_passed,
            self.delayed_count,
            self.note,
        )


class Sync:
    """The fields of ``sync``: how far a durable log is on the disk. A committer changes them under its lock."""

    COUNT: ClassVar[int] = 3
    __slots__ = ("failures", "group_size", "synced")
    synced: int
    """The position before which all records are on the disk."""
    failures: int
    """How often the disk failed."""
    group_size: int
    """Records of a recent group commit: how many appenders to expect."""

    def load(self, numbers: Sequence[int]) -> None:
        self.synced, self.failures, self.group_size = numbers

    def pack(self, change: int) -> bytes:
        return _pack_3(change, self.synced, self.failures, self.group_size)


FieldsT = TypeVar("FieldsT", bound=Fields)
