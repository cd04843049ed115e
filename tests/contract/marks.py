"""What the tests of logs have in common: a name, two owners, and the usual ways of a record."""

from __future__ import annotations

from psync.engine.contract.log import Log, Mark, Record, State

LOG = ".psync/queue/jobs"
ME, OTHER = 7, 8
"""Owners, as a log sees them: numbers other than 0."""


def counts(log: Log) -> tuple[int, int]:
    return log.counts()[:2]


def done(log: Log, record: Record) -> bool:
    return log.settle(record.position, record.mark, Mark(State.DONE, record.mark.attempt))


def give_back(log: Log, record: Record) -> bool:
    return log.settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt))
