"""The contract of delayed records: not to be taken until somebody says so; and of the moments they wait for."""

from __future__ import annotations

import pytest

from psync.engine.contract.log import Log, Mark, State
from tests.contract.harness import Harness
from tests.contract.marks import LOG, ME, OTHER, counts, done, give_back
from tests.support import scaled

LATER = Mark(State.DELAYED, 0, 2**64 - 1, 200, 1.5)
"""A record that begins so; what its maker leaves in the mark comes back."""


def due(log: Log, position: int, mark: Mark) -> bool:
    return log.settle(position, mark, Mark(State.WAITING, mark.attempt))


def test_a_record_appended_delayed_is_not_taken_until_it_is_made_waiting(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    (position,) = log.append([b"later"], LATER)
    assert log.take(ME, 5) == [] and counts(log) == (0, 1)
    assert harness.other().log(LOG).delayed() == [(position, LATER)]
    found = log.read(position)
    assert found is not None and found.mark == LATER
    assert not log.finished() and log.claims() == []
    assert due(harness.other().log(LOG), position, LATER)
    assert counts(log) == (1, 1) and log.delayed() == []
    record = log.take(ME)[0]
    assert record.payload == b"later" and record.mark == Mark(State.CLAIMED, 1, ME)
    assert done(log, record) and log.finished()


def test_delayed_records_let_others_pass(log: Log) -> None:
    log.append([b"1"])
    delayed = log.append([b"2", b"3"], LATER)
    log.append([b"4", b"5"])
    assert counts(log) == (3, 5)
    assert [record.payload for record in log.take(ME, 2)] == [b"1", b"4"]
    assert due(log, delayed[1], LATER)
    assert counts(log) == (2, 5)
    assert sorted(record.payload for record in log.take(ME, 9)) == [b"3", b"5"]
    assert due(log, delayed[0], LATER) and counts(log) == (1, 5)
    assert [record.payload for record in log.take(ME, 9)] == [b"2"]
    assert counts(log) == (0, 5)


def test_what_is_due_before_anybody_came_by_is_taken_once(log: Log) -> None:
    log.append([b"1"])
    (position,) = log.append([b"2"], LATER)
    log.append([b"3"])
    assert due(log, position, LATER) and counts(log) == (3, 3)
    assert sorted(record.payload for record in log.take(ME, 9)) == [b"1", b"2", b"3"]
    assert counts(log) == (0, 3)


def test_a_claim_can_become_delayed(log: Log) -> None:
    position = log.append([b"x"])[0]
    record = log.take(ME)[0]
    later = LATER._replace(attempt=1)
    assert log.settle(position, record.mark, later)
    assert log.take(ME) == [] and log.delayed() == [(position, later)] and counts(log) == (0, 1)
    assert not done(log, record) and not log.finished()
    assert due(log, position, later)
    assert log.take(OTHER)[0].mark == Mark(State.CLAIMED, 2, OTHER)


def test_what_waits_never_becomes_delayed(log: Log) -> None:
    position = log.append([b"x"])[0]
    try:
        assert not log.settle(position, Mark(State.WAITING, 7), LATER)
    except ValueError:
        pass  # forbidden whatever the log holds: may as well be said


def test_a_delayed_record_has_one_who_makes_it_waiting(harness: Harness) -> None:
    positions = harness.engine.log(LOG).append([b"x"] * scaled(60), LATER)

    def job(engine: object) -> list[bool]:
        log = engine.log(LOG)  # type: ignore[attr-defined]
        return [due(log, position, LATER) for position in positions]

    wins = harness.crowd([job] * 4)
    assert all(sum(won) == 1 for won in zip(*wins, strict=True))
    assert len(harness.engine.log(LOG).take(ME, 10**6)) == len(positions)


def test_a_delayed_record_can_be_given_up(log: Log) -> None:
    position = log.append([b"x"], LATER)[0]
    log.append([b"y"])
    assert log.settle(position, LATER, Mark(State.DEAD))
    assert counts(log) == (1, 2) and log.delayed() == []
    assert [record.payload for record in log.take(ME, 9)] == [b"y"]
    assert counts(log) == (0, 2)


def test_many_come_and_go_and_each_is_found(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    log.append([b"."] * 40)
    keep = log.append([b"keep"], LATER)
    for turn in range(scaled(12)):
        late = harness.other().log(LOG) if turn % 4 == 0 else log
        positions = late.append([b"%d" % turn] * 20, LATER)
        assert sorted(position for position, _ in log.delayed()) == sorted([*keep, *positions])
        assert all(due(log, position, LATER) for position in positions)
        for record in log.take(ME, 30):
            assert give_back(log, record) if record.payload == b"." else done(log, record)
    assert [position for position, _ in log.delayed()] == keep
    while records := log.take(ME, 100):
        assert all(done(log, record) for record in records)
    assert counts(log)[0] == 0 and not log.finished()
    assert due(log, keep[0], LATER) and done(log, log.take(ME)[0]) and log.finished()


def test_delayed_records_of_any_size_lie_in_segments_of_any_number(log: Log) -> None:
    positions = []
    for size in (0, 100, 5000, 300_000, 800_000, 900_000, 10):
        positions += log.append([b"x" * size, b"y"], LATER)
        log.append([b"z" * size])
    assert [position for position, _ in log.delayed()] == positions
    assert len(log.take(ME, 100)) == 7
    assert all(due(log, position, LATER) for position in positions)
    assert [record.position for record in log.take(ME, 100)] == positions


# -- moments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.25, 3600.0, 3e8])
def test_a_moment_is_as_far_as_was_said_and_never_nearer(harness: Harness, seconds: float) -> None:
    moment = harness.engine.due(seconds)
    assert 0 <= moment < 2**64
    left = harness.other().until(moment)
    assert left is not None and seconds - 5 < left <= seconds + 0.002


def test_a_moment_of_another_boot_is_unknown() -> None:
    from psync.engine.system import boot_time

    moment = boot_time.due(5.0)
    assert boot_time.until(moment ^ 1 << 50) is None
    assert boot_time.until(moment) is not None
