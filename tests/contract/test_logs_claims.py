"""The contract of claims: many at a time, with a lease and a beat; and of what is left with a log: a seal, a note."""

from __future__ import annotations

import os
import signal

import pytest

from psync.engine import Engine
from psync.engine.contract.log import LONGEST_LEASE, Log, Mark, Sealed, State, as_lease
from tests.contract.harness import DirectoryHarness, Harness
from tests.contract.marks import LOG, ME, OTHER, counts, done, give_back
from tests.contract.payloads import pickle_of

# -- many at a time --------------------------------------------------------------------------------


def test_a_batch_is_claimed_whatever_lies_between(log: Log) -> None:
    sizes = [0, 16, 100, 700, 70_000, 5, 4096, 200_000, 1, 30]
    log.append([pickle_of(max(8, size), size)[:size] for size in sizes])
    first = log.take(ME, 2)
    assert give_back(log, first[1])
    assert log.settle(first[0].position, first[0].mark, Mark(State.DEAD, 1))
    records = log.take(OTHER, 100, 3, 2.5)
    assert [len(record.payload) for record in records] == [16, 100, 700, 70_000, 5, 4096, 200_000, 1, 30]
    marks = [record.mark for record in records]
    assert marks == [Mark(State.CLAIMED, 2, OTHER, 3, 2.5)] + [Mark(State.CLAIMED, 1, OTHER, 3, 2.5)] * 8
    assert log.claims() == sorted(records)
    assert all(done(log, record) for record in records) and log.finished()


def test_batches_of_any_size_are_in_order(harness: Harness) -> None:
    log, other = harness.engine.log(LOG), harness.other().log(LOG)
    log.append([b"%d" % number + b"." * (number % 300) for number in range(500)])
    taken = []
    for limit in (1, 2, 32, 1, 200, 3, 500):
        taken += (log if limit % 2 else other).take(ME, limit)
    assert [int(record.payload.split(b".")[0]) for record in taken] == list(range(500))
    assert counts(log) == counts(other) == (0, 500)


# -- leases and beats ------------------------------------------------------------------------------


@pytest.mark.parametrize("lease", [0.0, as_lease(0.3), 1.0, as_lease(3600.0), LONGEST_LEASE])
def test_beat_and_lease_are_kept_exactly(harness: Harness, lease: float) -> None:
    log = harness.engine.log(LOG)
    position = log.append([b"x"])[0]
    record = log.take(ME, 1, 255, lease)[0]
    assert record.mark == Mark(State.CLAIMED, 1, ME, 255, lease)
    assert harness.other().log(LOG).read(position) == record


@pytest.mark.parametrize("seconds", [0.0, -1.0, LONGEST_LEASE * 1.01, float("nan"), float("inf")])
def test_a_lease_that_no_mark_can_keep_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="lease"):
        as_lease(seconds)


@pytest.mark.parametrize("seconds", [1e-9, 0.1, 7.77, 12345.6])
def test_a_lease_is_kept_to_a_thousandth(seconds: float) -> None:
    assert as_lease(seconds) == pytest.approx(max(seconds, 0.001), rel=1e-3)
    assert as_lease(as_lease(seconds)) == as_lease(seconds)


@pytest.mark.parametrize("lease", [0.0, 10.0])
def test_a_claim_whose_beat_went_on_is_another(harness: Harness, lease: float) -> None:
    engine = harness.engine
    log, me = engine.log(LOG), engine.owner()
    position = log.append([b"x"])[0]
    record = log.take(me, 1, 0, lease)[0]
    on = record.mark._replace(beat=1)
    assert log.settle(position, record.mark, on)
    assert not log.settle(position, record.mark, on) and not done(log, record)
    assert log.claims() == [record._replace(mark=on)] and counts(log) == (0, 1)
    assert done(log, record._replace(mark=on)) and log.finished()


def test_a_claim_with_a_lease_may_be_taken_from_the_living(harness: Harness) -> None:
    log, me = harness.engine.log(LOG), harness.engine.owner()
    log.append([b"x"])
    record = log.take(me, 1, 1, 10.0)[0]
    other = harness.other().log(LOG)
    assert give_back(other, record)
    assert not done(log, record) and not give_back(log, record)
    assert other.take(OTHER)[0].mark == Mark(State.CLAIMED, 2, OTHER)
    assert not done(log, record)


def test_what_was_never_used_is_given_back_as_if_it_had_not_been_taken(log: Log) -> None:
    log.append([b"%d" % number for number in range(5)])
    records = log.take(ME, 4)
    assert log.settle(records[0].position, records[0].mark, Mark(State.WAITING, 1))
    records[0] = log.take(OTHER)[0]
    assert give_back(log, records[0])
    for record in reversed(records[1:]):
        assert log.settle(record.position, record.mark, Mark(State.WAITING, 0))
    again = log.take(OTHER, 3) + log.take(OTHER, 9)[1:]
    assert {record.mark for record in again} == {Mark(State.CLAIMED, 1, OTHER)}
    assert [record.payload for record in again] == [b"1", b"2", b"3", b"4"]


# -- a seal and a note -----------------------------------------------------------------------------


def test_a_sealed_log_takes_no_more_and_gives_what_it_has(harness: Harness) -> None:
    log, other = harness.engine.log(LOG), harness.other().log(LOG)
    log.append([b"x"])
    assert not other.counts().sealed
    log.seal()
    assert other.counts().sealed and log.counts().sealed
    for handle in (log, other, harness.other().log(LOG)):
        with pytest.raises(Sealed):
            handle.append([b"y"])
        with pytest.raises(Sealed):
            handle.append([b"y"], Mark(State.DELAYED))
    assert log.append([]) == []
    late = harness.other().log(LOG)
    assert len(late.take(OTHER, 9)) == 1 and late.sealed
    (claim,) = late.claims()
    assert late.settle(claim.position, claim.mark, Mark(State.WAITING, 0))
    record = other.take(ME)[0]
    assert give_back(log, record) and done(log, log.take(ME)[0]) and log.finished()
    other.seal(False)
    assert len(log.append([b"z"])) == 1 and not log.counts().sealed


def test_a_note_is_seen_by_who_takes(harness: Harness) -> None:
    log, other = harness.engine.log(LOG), harness.other().log(LOG)
    assert log.noted == 0
    log.note(lambda last: last + 5)
    other.note(lambda last: last * 2**61 + 1)
    for handle in (log, other, harness.other().log(LOG)):
        handle.take(ME)
        assert handle.noted == 5 * 2**61 + 1
    late = harness.other().log(LOG)
    late.counts()
    assert late.noted == 5 * 2**61 + 1


def test_what_was_read_ahead_is_never_what_a_killed_append_left(disk: DirectoryHarness) -> None:
    """A taker reads more than it needs; what lies behind the end of the log then comes to be something else."""
    log = disk.engine.log(LOG)
    log.append([b"1" * 20, b"2" * 20])

    def append_half(engine: Engine) -> None:
        half = engine.log(LOG)
        half = getattr(half, "_inner", half)  # a sealed one goes around it
        half._state.tail.save = lambda: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[attr-defined]
        half.append([b"never" * 4])

    with pytest.raises(EOFError):
        disk.killed(append_half)
    taker = disk.other().log(LOG)
    assert [record.payload[:1] for record in taker.take(ME)] == [b"1"]
    log.append([b"3" * 20])
    assert [taker.take(ME)[0].payload[:1] for _ in range(2)] == [b"2", b"3"]
