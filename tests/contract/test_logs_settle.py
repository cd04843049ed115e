"""The contract of marks: how a record goes from WAITING to its end, and who may say so."""

from __future__ import annotations

import functools
import time

import pytest

from psync.engine import Engine
from psync.engine.contract.log import Change, Log, Mark, State
from psync.engine.directory.buckets.bucket import DirectoryBucket
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.contract.marks import LOG, ME, OTHER, counts, done, give_back
from tests.contract.payloads import bucket_dict, item, pickled
from tests.support import scaled

# -- settle ----------------------------------------------------------------------------------------


def test_a_mark_goes_on_only_from_what_it_is(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    position = log.append([b"x"])[0]
    record = harness.other().log(LOG).take(ME)[0]
    for wrong in (
        Mark(State.WAITING, 0),
        Mark(State.WAITING, 1),
        Mark(State.CLAIMED, 1, OTHER),
        Mark(State.CLAIMED, 0, ME),
    ):
        assert log.settle(position, wrong, Mark(State.DONE, 5)) is False
    assert log.read(position) == record
    assert log.settle(position, record.mark, Mark(State.DONE, 1)) is True
    assert log.settle(position, record.mark, Mark(State.DONE, 1)) is False
    assert log.settle(position, record.mark, Mark(State.WAITING, 1)) is False


def test_an_answer_and_its_mark_are_there_together_or_not_at_all(harness: Harness) -> None:
    log, bucket = harness.engine.log(LOG), harness.engine.bucket("answers/00")
    first, second = log.append([b"x", b"y"])
    mine, done = log.take(ME)[0].mark, Mark(State.DONE, 1)
    assert log.answer(first, Mark(State.CLAIMED, 1, OTHER), done, bucket, item("a", 1)) is None
    assert bucket.tail() is None and log.read(first) is not None
    assert log.answer(first, mine, done, bucket, item("a", 1))
    assert log.answer(first, mine, done, bucket, item("b", 2)) is None
    assert bucket_dict(harness.other(), "answers/00") == {"a": 1}
    assert [record.position for record in harness.other().log(LOG).take(ME)] == [second]


def test_an_answer_has_no_place_where_something_else_put_its_pickle(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    (position,) = log.append([b"x"])
    mark = log.take(ME)[0].mark
    harness.engine.write("answers/00", pickled({"old": 1}))
    assert log.answer(position, mark, Mark(State.DONE, 1), harness.engine.bucket("answers/00"), item("a", 1)) == 0
    assert bucket_dict(harness.engine, "answers/00") == {"old": 1} and log.claims()


def test_a_position_that_holds_no_record_is_not_settled(log: Log) -> None:
    position = log.append([b"x"])[0]
    assert log.settle(position + 1000, Mark(State.WAITING), Mark(State.DONE)) is False


def test_a_record_given_back_is_taken_again_with_the_next_attempt(log: Log) -> None:
    log.append([b"x"])
    for attempt in range(1, 6):
        record = log.take(ME + attempt)[0]
        assert record.mark == Mark(State.CLAIMED, attempt, ME + attempt)
        assert give_back(log, record)
    assert counts(log) == (1, 1)


def test_what_was_given_back_goes_before_what_was_never_taken(log: Log) -> None:
    log.append([b"%d" % number for number in range(10)])
    first = log.take(ME, 4)
    for record in (first[2], first[0]):
        assert give_back(log, record)
    taken = [record.payload for record in log.take(ME, 4)]
    assert set(taken[:2]) == {b"2", b"0"} and taken[2:] == [b"4", b"5"]
    assert give_back(log, first[3])
    assert [log.take(ME)[0].payload for _ in range(2)] == [b"3", b"6"]


def test_a_final_record_is_never_given_again(log: Log) -> None:
    log.append([b"a", b"b"])
    for state, record in zip((State.DONE, State.DEAD), log.take(ME, 2), strict=True):
        assert log.settle(record.position, record.mark, Mark(state, 1))
        try:
            assert not log.settle(record.position, Mark(state, 1), Mark(State.WAITING, 1))
        except ValueError:
            pass  # forbidden whatever the log holds: may as well be said
        found = log.read(record.position)
        assert found is None or found.mark == Mark(state, 1)
    assert log.take(ME) == [] and log.finished() and counts(log) == (0, 2)


def test_a_waiting_record_can_be_settled_without_being_taken(log: Log) -> None:
    positions = log.append([b"a", b"b", b"c"])
    assert log.settle(positions[1], Mark(State.WAITING), Mark(State.DEAD)) is True
    assert counts(log) == (2, 3)
    assert [record.payload for record in log.take(ME, 9)] == [b"a", b"c"]


def test_a_given_back_record_can_be_settled_without_being_taken_again(log: Log) -> None:
    log.append([b"a", b"b"])
    record = log.take(ME)[0]
    assert give_back(log, record)
    assert log.settle(record.position, Mark(State.WAITING, 1), Mark(State.DEAD, 1)) is True
    assert counts(log) == (1, 2)
    assert [record.payload for record in log.take(ME, 9)] == [b"b"]
    assert not log.finished()


def test_a_claim_can_be_handed_to_another_owner(log: Log) -> None:
    position = log.append([b"a"])[0]
    record = log.take(ME)[0]
    new = Mark(State.CLAIMED, 2, OTHER)
    assert log.settle(position, record.mark, new) is True
    assert not done(log, record)
    assert [claim.mark for claim in log.claims()] == [new]
    assert log.settle(position, new, Mark(State.DONE, 2))


def test_of_many_who_settle_a_claim_one_wins(harness: Harness) -> None:
    count = scaled(60)
    records = harness.engine.log(LOG)
    records.append([b"x"] * count)
    claims = records.take(ME, count)

    def settle(engine: Engine) -> list[bool]:
        log = engine.log(LOG)
        return [log.settle(claim.position, claim.mark, Mark(State.DONE, 1)) for claim in claims]

    def back(engine: Engine) -> list[bool]:
        log = engine.log(LOG)
        return [log.settle(claim.position, claim.mark, Mark(State.DEAD, 1)) for claim in reversed(claims)][::-1]

    wins = harness.crowd([settle, back] * 3)
    assert all(sum(won) == 1 for won in zip(*wins, strict=True))
    assert records.finished()


def test_before_runs_only_while_the_claim_stands(log: Log) -> None:
    position = log.append([b"x"])[0]
    record = log.take(ME)[0]
    ran = []
    assert not log.settle(position, Mark(State.CLAIMED, 9, ME), Mark(State.DONE, 9), lambda: ran.append(1))
    assert ran == []
    assert log.settle(position, record.mark, Mark(State.DONE, 1), lambda: ran.append(2))
    assert not log.settle(position, record.mark, Mark(State.DONE, 1), lambda: ran.append(3))
    assert ran == [2]


def test_before_comes_before_the_mark(harness: Harness) -> None:
    log, seen = harness.engine.log(LOG), []
    position = log.append([b"x"])[0]
    record = log.take(ME)[0]
    assert log.settle(position, record.mark, Mark(State.DEAD, 1), lambda: seen.append(log.read(position)))
    assert seen == [record]


def test_when_before_raises_the_mark_stays(log: Log) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    position = log.append([b"x"])[0]
    record = log.take(ME)[0]
    with pytest.raises(ZeroDivisionError):
        log.settle(position, record.mark, Mark(State.DONE, 1), fail)
    assert log.read(position) == record
    assert not log.finished()
    assert done(log, record)


def test_before_may_use_the_engine(harness: Harness) -> None:
    engine, log = harness.engine, harness.engine.log(LOG)
    position = log.append([b"x"])[0]
    record = log.take(ME)[0]
    bucket = engine.bucket("box/0f")
    assert log.settle(position, record.mark, Mark(State.DONE, 1), lambda: bucket.append(item(1, 2)))
    assert bucket_dict(engine, "box/0f") == {1: 2}


def test_nobody_else_settles_while_before_runs(harness: Harness) -> None:
    log, late = harness.engine.log(LOG), harness.other().log(LOG)
    position = log.append([b"x"])[0]
    record = log.take(ME)[0]
    order: list[object] = []

    def before() -> None:
        order.append("begun")
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("ended")

    def settle_late() -> None:
        while not order:
            time.sleep(0.001)
        order.append(late.settle(position, record.mark, Mark(State.WAITING, 1)))

    threads([lambda: log.settle(position, record.mark, Mark(State.DONE, 1), before), settle_late])
    assert order == ["begun", "ended", False]


# -- settle_all ------------------------------------------------------------------------------------


def test_of_many_changes_each_is_one_of_its_own(harness: Harness) -> None:
    log, other = harness.engine.log(LOG), harness.other()
    positions = log.append([b"x" * (1 + 40 * number) for number in range(12)])
    claims = log.take(ME, 8)
    final = Mark(State.DONE, 1)
    stale = claims[3]
    assert other.log(LOG).settle(stale.position, stale.mark, Mark(State.WAITING, 1))
    answers = harness.engine.bucket("answers/00"), harness.engine.bucket("answers/01")
    changes = [
        Change(claims[6].position, claims[6].mark, final, answers[1], item("f", 6)),
        Change(claims[0].position, claims[0].mark, final),
        Change(claims[1].position, claims[1].mark, final, answers[0], item("a", 1)),
        Change(stale.position, stale.mark, final, answers[0], item("b", 2)),
        Change(claims[2].position, claims[2].mark, final, answers[0], item("c", 3)),
        Change(claims[4].position, claims[4].mark, Mark(State.CLAIMED, 1, ME, 5)),
        Change(claims[5].position, claims[5].mark, Mark(State.WAITING, 0)),
        Change(positions[-1] + 1000, Mark(State.CLAIMED, 1, ME), final),
    ]
    done = log.settle_all(changes)
    assert [bool(each) for each in done] == [True, True, True, False, True, True, True, False]
    assert done[3] is None and done[7] is None
    assert bucket_dict(other, "answers/00") == {"a": 1, "c": 3}
    assert bucket_dict(other, "answers/01") == {"f": 6}
    assert {claim.position: claim.mark for claim in other.log(LOG).claims()} == {
        claims[4].position: Mark(State.CLAIMED, 1, ME, 5),
        claims[7].position: claims[7].mark,
    }
    assert log.settle_all(changes) == [None] * 8
    assert log.settle_all([]) == []
    assert bucket_dict(other, "answers/00") == {"a": 1, "c": 3}
    taken = [(record.position, record.mark.attempt) for record in other.log(LOG).take(OTHER, 12)]
    assert taken == [(positions[5], 1), (positions[3], 2), *((position, 1) for position in positions[8:])]


@pytest.mark.parametrize("lease", [0.0, 30.0])
def test_what_lies_between_is_left_as_it_is(harness: Harness, lease: float) -> None:
    mine = harness.engine.owner()
    log, other = harness.engine.log(LOG), harness.other().log(LOG)
    log.append([b"y" * 70] * 20)
    claims = log.take(mine, 12, 1, lease)
    between = claims[1::3]
    for claim in between:
        assert other.settle(claim.position, claim.mark, Mark(State.DEAD, 1))
    rest = [claim for claim in claims if claim not in between]
    assert all(log.settle_all([Change(claim.position, claim.mark, Mark(State.DONE, 1)) for claim in rest]))
    assert not log.claims() and counts(log) == (8, 20)
    assert len(other.take(OTHER, 20)) == 8 and not log.finished()


def test_an_untaken_record_between_two_that_change_can_be_taken_meanwhile(
    disk: DirectoryHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has come to yet has no mark, and is given none."""
    log, other = disk.engine.log(LOG), disk.other().log(LOG)
    first, between, last = log.append([b"z"] * 3)
    mine = Mark(State.CLAIMED, 1, disk.engine.owner())
    for position in (first, last):
        assert log.settle(position, Mark(State.WAITING), mine)
    append = DirectoryBucket.append

    def meanwhile(self: DirectoryBucket, ops: bytes) -> int:
        assert other.settle(between, Mark(State.WAITING), Mark(State.CLAIMED, 1, OTHER))
        return append(self, ops)

    monkeypatch.setattr(DirectoryBucket, "append", meanwhile)
    answers = disk.engine.bucket("answers/00")
    changes = [Change(position, mine, Mark(State.DONE, 1), answers, item(position, 1)) for position in (first, last)]
    assert all(log.settle_all(changes))
    assert [claim.position for claim in log.claims()] == [between]


def test_of_many_who_settle_the_same_claims_together_one_wins_each(harness: Harness) -> None:
    count = scaled(30)
    records = harness.engine.log(LOG)
    records.append([b"x"] * count)
    claims = records.take(ME, count)

    def settle(engine: Engine, who: int) -> list[int]:
        bucket, won = engine.bucket("answers/00"), []
        for first in range(who % 2, count, 5):
            some = [
                Change(claim.position, claim.mark, Mark(State.DONE, 1), bucket, item(claim.position, who))
                for claim in claims[first : first + 5]
            ]
            done = engine.log(LOG).settle_all(some)
            won += [change.position for change, size in zip(some, done, strict=True) if size]
        return won

    wins = harness.crowd([functools.partial(settle, who=who) for who in range(4)])
    winners = {position: who for who, won in enumerate(wins) for position in won}
    assert sum(map(len, wins)) == len(winners) >= count - 1
    assert bucket_dict(harness.engine, "answers/00") == winners
