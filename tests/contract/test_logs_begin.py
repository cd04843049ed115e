"""Going through what is not final in a log, and a log that begins behind what another one had."""

from __future__ import annotations

from psync.engine.contract.log import Log, Mark, State
from tests.contract.harness import Harness
from tests.contract.marks import LOG, ME, counts, done, give_back


def test_what_is_not_final_is_gone_through_in_order(log: Log) -> None:
    assert [*log.unfinished()] == []
    first, second, third, fourth = log.append([b"1", b"2", b"3", b"4"])
    later = log.append([b"5"], Mark(State.DELAYED, 0, 99, 0, 1.0))
    taken = log.take(ME, 2, beat=1)
    done(log, taken[0])
    found = {record.position: (record.mark.state, record.payload) for record in log.unfinished()}
    assert found == {
        second: (State.CLAIMED, b"2"),
        third: (State.WAITING, b"3"),
        fourth: (State.WAITING, b"4"),
        later[0]: (State.DELAYED, b"5"),
    }
    assert first not in found
    waiting = [r.payload for r in log.unfinished() if r.mark == Mark(State.WAITING)]
    assert waiting == [b"3", b"4"]


def test_many_are_gone_through_a_part_at_a_time(log: Log) -> None:
    log.append([b"%d" % number for number in range(1203)])
    back = log.take(ME, 3, beat=1)
    give_back(log, back[1])
    found = [record.payload for record in log.unfinished()]
    assert sorted(found, key=int) == [b"%d" % number for number in range(1203)]
    assert [payload for payload in found if int(payload) > 2] == [b"%d" % number for number in range(3, 1203)]


def test_a_log_begins_behind_what_is_said_to_have_been(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    assert log.begin(1000, 7)
    assert counts(log) == (0, 7) and log.counts().end >= 1000
    assert log.finished() and log.take(ME) == [] and [*log.unfinished()] == []
    assert log.read(3) is None and log.read(999) is None
    [position] = log.append([b"next"])
    assert position >= 1000 and counts(log) == (1, 8) and not log.finished()
    [record] = harness.other().log(LOG).take(ME, beat=1)
    assert (record.position, record.payload, record.mark.attempt) == (position, b"next", 1)
    assert done(log, record) and log.finished()
    more = log.append([b"x" * 100] * 50)
    assert all(each > position for each in more) and counts(log) == (50, 58)
    assert len(log.take(ME, 100)) == 50


def test_a_log_begins_once(log: Log) -> None:
    assert log.begin(64, 1) and not log.begin(640, 2)
    assert counts(log) == (0, 1)
    assert log.append([b"x"])[0] < 640


def test_a_log_that_was_used_does_not_begin(log: Log) -> None:
    [position] = log.append([b"x"])
    assert not log.begin(1000, 7)
    assert log.append([b"y"])[0] < 1000 and counts(log) == (2, 2)
    assert position < 1000
