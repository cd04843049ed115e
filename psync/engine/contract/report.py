"""Types returned by the inspection verbs: shapes and sizes of names, processes at work, and findings of the doctor."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from psync.engine.contract.values import Alive


class Shape(enum.Enum):
    """The shape of the value at a name."""

    CELL = "cell"
    BUCKET = "bucket"
    LOG = "log"
    REGISTER = "register"


class Facts(NamedTuple):
    """Size and time of a cell or bucket, known without reading its bytes."""

    size: int
    """Bytes."""
    changed: float | None
    """The time of its last change, in seconds since 1970; None where the engine keeps none."""


class Identity(NamedTuple):
    """The identity of a process; host and `since` (seconds since 1970) are for people only."""

    boot: str
    namespace: int
    pid: int
    ticks: int
    host: str
    since: float

    def __str__(self) -> str:
        import time

        return f"pid {self.pid} on {self.host}, since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.since))}"


class Usage(NamedTuple):
    """Resources that a process has used."""

    cpu: float
    """Seconds of processor time."""
    memory: int
    """Bytes resident in memory now."""
    seconds: float
    """Seconds since the process started."""


class Process(NamedTuple):
    """One process that works in the store, or worked in it."""

    owner: int
    identity: Identity | None
    """None if it can't be read."""
    alive: Alive
    usage: Usage | None
    """None unless it is a living process of this host."""


OK, NOTE, WRONG = "ok", "note", "wrong"


class Finding(NamedTuple):
    """One finding about the place where a store is."""

    what: str
    state: str
    """OK, NOTE (good to know) or WRONG (a problem)."""
    says: str
    remedy: str = ""


FEW = 10
"""The number of names that a finding lists."""


def some_of(names: tuple[str, ...]) -> str:
    """List the first few names behind a colon; nothing if there are none."""
    if not names:
        return ""
    more = f", and {len(names) - FEW} more" if len(names) > FEW else ""
    return f": {'; '.join(names[:FEW])}{more}"


PROMISE, ELSEWHERE = "promise", "locks elsewhere"
"""The finding that sums up the others, and the one that a single host can't tell whether its locks reach others."""
UNVERIFIED = (
    "no problem was found here; whether locks reach other hosts and mounts, `psync doctor --pair` on both tells"
)


def verdict(findings: Sequence[Finding]) -> str:
    """Sum up the findings in a few words. The promise follows from the others, so it is no problem more."""
    problems = sum(finding.state == WRONG and finding.what != PROMISE for finding in findings)
    if problems:
        return "1 problem" if problems == 1 else f"{problems} problems"
    return UNVERIFIED if any(finding.what == ELSEWHERE for finding in findings) else "all is well"
