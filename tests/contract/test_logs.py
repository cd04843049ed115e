"""The contract of logs: records in a row, taken by one winner each, and where they stand."""

from __future__ import annotations

import itertools
import time

import pytest

from psync.engine import Engine
from psync.engine.contract.log import Log, Mark, Record, State
from tests.contract.harness import Harness, Job, threads
from tests.contract.marks import LOG, ME, OTHER, counts, done, give_back
from tests.contract.payloads import pickle_of
from tests.support import scaled

# -- append and take -------------------------------------------------------------------------------


def test_a_log_that_was_never_begun_is_empty_and_finished(log: Log) -> None:
    assert counts(log) == (0, 0)
    assert log.take(ME) == [] == log.claims()
    assert log.finished()
    assert log.read(0) is None and log.read(10**6) is None
    assert log.append([]) == []
    assert counts(log) == (0, 0)


def test_first_in_is_first_taken(log: Log) -> None:
    payloads = [b"%d" % number for number in range(50)]
    for number in range(0, 50, 10):
        log.append(payloads[number : number + 10])
    taken = [log.take(ME)[0].payload for _ in range(20)] + [record.payload for record in log.take(ME, 40)]
    assert taken == payloads
    assert log.take(ME) == []


def test_positions_grow_and_are_never_used_again(harness: Harness) -> None:
    log, seen = harness.engine.log(LOG), [-1]
    for turn in range(30):
        positions = (log if turn % 2 else harness.other().log(LOG)).append([b"x"] * (turn % 7))
        assert positions == sorted(set(positions)) and all(position > seen[-1] for position in positions)
        seen += positions
        for record in log.take(ME, 100):
            assert done(log, record)
    assert len(seen) == len(set(seen))


def test_a_taken_record_is_claimed_with_its_attempt_counted(log: Log) -> None:
    position = log.append([b"payload"])[0]
    assert log.read(position) == Record(position, Mark(State.WAITING, 0, 0), b"payload")
    record = log.take(ME)[0]
    assert record == Record(position, Mark(State.CLAIMED, 1, ME), b"payload")
    assert log.read(position) == record
    assert log.take(OTHER) == []


def test_take_gives_no_more_than_asked_for(log: Log) -> None:
    log.append([b"x"] * 10)
    assert [len(log.take(ME, limit)) for limit in (0, 1, 3, 100, 5)] == [0, 1, 3, 6, 0]


@pytest.mark.parametrize("owner", [1, 2**31, 2**63 - 1, 2**64 - 1], ids=hex)
def test_any_owner_is_kept_exactly(engine: Engine, log: Log, owner: int) -> None:
    position = log.append([b"x"])[0]
    assert log.take(owner)[0].mark == Mark(State.CLAIMED, 1, owner)
    found = engine.log(LOG).read(position)
    assert found is not None and found.mark.owner == owner


def test_payloads_of_any_size_come_back(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    sizes = [0, 1, 15, 16, 17, 50, 4000, 4064, 4096, 5000, 65_536, 200_000]
    payloads = [pickle_of(max(8, size), size)[:size] for size in sizes]
    positions = log.append(payloads[:9]) + [log.append([payload])[0] for payload in payloads[9:]]
    for position, payload in zip(positions, payloads, strict=True):
        found = harness.other().log(LOG).read(position)
        assert found is not None and found.payload == payload
    assert [record.payload for record in log.take(ME, 99)] == payloads


def test_logs_of_different_names_are_different(engine: Engine) -> None:
    first, second = engine.log(".psync/queue/a"), engine.log(".psync/queue/b")
    first.append([b"1"])
    assert counts(second) == (0, 0) and second.take(ME) == []
    assert [record.payload for record in first.take(ME)] == [b"1"]


def test_a_record_has_one_winner(harness: Harness) -> None:
    count = scaled(400)
    harness.engine.log(LOG).append([b"%d" % number for number in range(count)])

    def job(who: int) -> Job:
        def work(engine: Engine) -> list[bytes]:
            log, got = engine.log(LOG), []
            while records := log.take(who, 1 + who % 3):
                assert all(record.mark == Mark(State.CLAIMED, 1, who) for record in records)
                got += [record.payload for record in records]
            return got

        return work

    got = harness.crowd([job(who) for who in range(1, 9)])
    assert sorted(int(payload) for payloads in got for payload in payloads) == list(range(count))
    for payloads in got:
        assert payloads == sorted(payloads, key=int)


def test_records_of_many_who_append_are_all_there_each_ones_in_order(harness: Harness) -> None:
    count = scaled(100)

    def job(who: int) -> Job:
        def work(engine: Engine) -> list[int]:
            log, positions = engine.log(LOG), []
            for turn in range(count):
                positions += log.append([b"%d %d %d" % (who, turn, part) for part in range(1 + turn % 3)])
            return positions

        return work

    positions = harness.crowd([job(who) for who in range(5)])
    flat = [position for one in positions for position in one]
    assert len(flat) == len(set(flat))
    log = harness.engine.log(LOG)
    records = log.take(ME, 10**6)
    assert sorted(flat) == [record.position for record in records]
    parts = [[int(word) for word in record.payload.split()] for record in records]
    for who in range(5):
        mine = [part for part in parts if part[0] == who]
        assert mine == sorted(mine) and len(mine) == len(positions[who])
    for before, after in itertools.pairwise(parts):  # an append of several is never interrupted
        assert after[2] == 0 or after == [*before[:2], before[2] + 1]


def test_threads_may_share_a_log(log: Log) -> None:
    count = scaled(200)

    def put() -> list[bytes]:
        for number in range(count):
            log.append([b"x%d" % number])
        return []

    def get() -> list[bytes]:
        got: list[bytes] = []
        end = time.monotonic() + 30
        while time.monotonic() < end and not (log.counts().appended == 2 * count and log.finished()):
            for record in log.take(ME, 3):
                got.append(record.payload)
                assert done(log, record)
        return got

    results = threads([put, put, get, get, get])
    assert sorted(payload for got in results for payload in got) == sorted([b"x%d" % n for n in range(count)] * 2)


# -- what is where ---------------------------------------------------------------------------------


def test_claims_are_all_records_that_are_claimed(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    log.append([b"%d" % number for number in range(10)])
    mine, others = log.take(ME, 4), log.take(OTHER, 3)
    assert done(log, mine[1]) and give_back(log, others[0])
    expected = {mine[0], mine[2], mine[3], others[1], others[2]}
    assert set(harness.other().log(LOG).claims()) == expected


def test_a_claim_outlives_the_process_that_made_it(harness: Harness) -> None:
    harness.engine.log(LOG).append([b"a", b"b"])
    owner, record = harness.killed(lambda engine: (engine.owner(), engine.log(LOG).take(engine.owner())[0]))
    log = harness.engine.log(LOG)
    assert log.claims() == [record] and record.mark == Mark(State.CLAIMED, 1, owner)
    assert give_back(log, record)
    again = log.take(ME)[0]
    assert again == Record(record.position, Mark(State.CLAIMED, 2, ME), b"a")


def test_finished_says_whether_all_records_are_final(harness: Harness) -> None:
    log, other = harness.engine.log(LOG), harness.other().log(LOG)
    log.append([b"a", b"b"])
    assert not log.finished() and not other.finished()
    first, second = log.take(ME, 2)
    assert not other.finished()
    assert done(log, second)
    assert not other.finished()
    assert log.settle(first.position, first.mark, Mark(State.DEAD, 1))
    assert log.finished() and other.finished()
    log.append([b"c"])
    assert not log.finished() and not other.finished()


def test_every_position_is_below_the_end(harness: Harness) -> None:
    log, ends = harness.engine.log(LOG), [harness.engine.log(LOG).counts().end]
    for size in (0, 10, 1000, 100_000):
        position = log.append([b"x" * size])[0]
        assert ends[-1] <= position < harness.other().log(LOG).counts().end
        ends.append(log.counts().end)
        assert done(log, log.take(ME)[0])
        assert log.counts().end == ends[-1]
    assert log.read(ends[-1]) is None


def test_counts_follow_every_change(harness: Harness) -> None:
    log, other = harness.engine.log(LOG), harness.other().log(LOG)
    log.append([b"x"] * 7)
    assert counts(log) == counts(other) == (7, 7)
    records = other.take(ME, 3)
    assert counts(log) == counts(other) == (4, 7)
    assert give_back(log, records[0]) and done(log, records[1])
    assert counts(log) == counts(other) == (5, 7)
    log.append([b"x"])
    assert counts(log) == counts(other) == (6, 8)


def test_a_long_log_is_worked_off_and_cleared(harness: Harness) -> None:
    count, size = scaled(2_000 if harness.engine.remote else 20_000), 500
    log, late = harness.engine.log(LOG), harness.other().log(LOG)
    for begin in range(0, count, size):
        log.append([b"%d " % number + b"." * (number % 200) for number in range(begin, min(count, begin + size))])
    assert counts(log) == counts(late) == (count, count)
    first, last, expected = None, -1, 0
    while records := late.take(ME, 100):
        for record in records:
            assert int(record.payload.split()[0]) == expected
            expected += 1
            first, last = first or record, record.position
            if record is not first:
                assert done(log, record)
    assert expected == count and first is not None
    assert log.claims() == late.claims() == [first]
    assert not log.finished() and log.read(first.position) == first
    assert done(late, first)
    assert log.finished() and late.finished() and counts(log) == (0, count)
    for handle in (log, late, harness.other().log(LOG)):
        found = handle.read(first.position)
        assert found is None or found == first._replace(mark=Mark(State.DONE, 1))
        assert handle.settle(first.position, first.mark, Mark(State.WAITING, 1)) is False
    position = log.append([b"after"])[0]
    assert position > last
    assert [record.payload for record in late.take(ME, 9)] == [b"after"]


def test_who_reads_a_record_that_was_cleared_gets_none(log: Log) -> None:
    """Cleared when and how far is the engine's to choose; what is given is right."""
    for turn in range(40):
        positions = log.append([b"%d" % turn] * 100)
        for record in log.take(ME, 100):
            assert done(log, record)
        for position in positions:
            found = log.read(position)
            assert found is None or found == Record(position, Mark(State.DONE, 1), b"%d" % turn)
    assert log.claims() == [] and log.finished()


def test_an_unfinished_record_is_never_cleared(log: Log) -> None:
    keep = []
    for _ in range(20):
        log.append([b"x" * 100] * 200)
        records = log.take(ME, 200)
        keep.append(records[77])
        for record in records:
            if record is not records[77]:
                assert done(log, record)
    assert sorted(log.claims()) == keep
    assert all(log.read(record.position) == record for record in keep)
    for record in keep[::2]:
        assert give_back(log, record)
    assert [record.position for record in log.take(OTHER, 99)] == [record.position for record in keep[::2]]


# -- held ------------------------------------------------------------------------------------------


def test_a_held_log_keeps_the_changes_of_others_out(harness: Harness) -> None:
    log, other = harness.engine.log(LOG), harness.other().log(LOG)
    log.append([b"x"] * 5)
    claim = log.take(ME)[0]
    order: list[str] = []

    def hold() -> None:
        with log.held():
            order.append("held")
            assert log.append([b"y"])  # the holder's own verbs work
            assert len(log.take(ME, 1)) == 1
            assert done(log, claim)
            assert counts(log) == (4, 6)
            time.sleep(0.2)
            assert counts(log) == (4, 6)
            order.append("let go")

    def change(name: str) -> None:
        while not order:
            time.sleep(0.001)
        if name == "append":
            other.append([b"z"])
        elif name == "take":
            other.take(OTHER)
        else:
            with other.held():
                pass
        order.append(name)

    threads([hold, *(lambda name=name: change(name) for name in ("append", "take", "hold"))])
    assert order[:2] == ["held", "let go"] and len(order) == 5
    assert counts(log) == (4, 7)


def test_a_log_held_by_a_process_that_is_killed_is_free(harness: Harness) -> None:
    kept = []

    def hold(engine: Engine) -> None:
        block = engine.log(LOG).held()
        block.__enter__()
        engine.log(LOG).append([b"x"])
        kept.append(block)

    harness.killed(hold)
    log = harness.engine.log(LOG)
    assert len(log.append([b"y"])) == 1
    assert counts(log) == (2, 2)


def test_a_block_that_raises_lets_go_of_the_log(harness: Harness) -> None:
    log = harness.engine.log(LOG)
    with pytest.raises(ZeroDivisionError), log.held():
        raise ZeroDivisionError
    assert len(harness.other().log(LOG).append([b"x"])) == 1
