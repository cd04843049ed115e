"""Any file of psync's may be damaged: it is reported and kept, what comes out is right, and the rest goes on."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest

from psync import Counter, PickleShareDB, WorkQueue
from psync.errors import CorruptValue
from tests.security.damage import KINDS, rounds
from tests.store.memory_limit import with_memory_limit
from tests.store.test_corruption import quarantined
from tests.support import scaled

ROUNDS = 25
"""Of each kind, in an ordinary run: with PSYNC_TEST_SCALE=400 (tox -e damage) they are 100,000 of all."""
BATCH = 50
"""At a time, in a process of their own."""


@pytest.mark.parametrize("name", KINDS)
def test_whatever_file_is_damaged_gives_the_right_value_or_a_report(root: Path, name: str) -> None:
    reports = 0
    for first in range(0, scaled(ROUNDS), BATCH):
        with tempfile.TemporaryDirectory(dir=root) as place:
            reported, wrong = with_memory_limit(rounds, name, Path(place), first, min(BATCH, scaled(ROUNDS) - first))
        assert wrong == []
        reports += reported
    assert reports > 0 or name == "owner"


def test_a_record_that_is_damaged_is_kept_and_the_others_come(root: Path) -> None:
    with PickleShareDB(root) as db:
        WorkQueue(db, "queue").put_many(["first", "second", "third"])
    (segment,) = (root / ".psync/queue/queue/log").glob("0000000000000000")
    data = segment.read_bytes()
    at = data.index(b"second")
    segment.write_bytes(data.replace(b"second", b"SECOND"))
    with PickleShareDB(root) as db:
        queue = WorkQueue(db, "queue")
        assert queue.get().value == "first"
        with pytest.warns(RuntimeWarning, match=r"the log '\.psync/queue/queue' was damaged: .* its bytes are kept at"):
            assert queue.get().value == "third"
        (kept,) = quarantined(root)
        assert b"SECOND" in kept
        id = f"#{at // 32 * 32:x}"
        assert queue.state(id) == "dead"
        assert queue.statistics().waiting == 0


@pytest.mark.parametrize("left", [b"\x80\x05}.", b"\x80\x05}K)0."])
def test_a_bucket_whose_middle_is_cut_out_is_damage_and_not_empty(root: Path, left: bytes) -> None:
    with PickleShareDB(root) as db:
        db.hset("category", "item", 1)
        (bucket,) = (root / "category").iterdir()
        bucket.write_bytes(left)
        with pytest.raises(CorruptValue):
            db.hget("category", "item")
        assert left in quarantined(root)


def test_a_length_that_passes_its_check_but_leads_behind_the_end_is_damage(root: Path) -> None:
    with PickleShareDB(root) as db:
        queue = WorkQueue(db, "queue")
        queue.put_many(["first", "second", "third"])
        queue.get().done()
    (segment,) = (root / ".psync/queue/queue/log").glob("0000000000000000")
    data = bytearray(segment.read_bytes())
    data[3], data[10] = 1, data[10] ^ 1  # of the length, and of how many follow: the check is the same
    segment.write_bytes(data)
    with PickleShareDB(root) as db, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        queue = WorkQueue(db, "queue")
        assert [(task.value, task.done()) for task in queue] == [("second", None), ("third", None)]
        assert queue._log.finished()
        assert len(told) == 1


def test_the_numbers_of_a_log_are_found_anew_from_its_records(root: Path) -> None:
    for part in ("tail", "front"):
        with PickleShareDB(root / part) as db:
            queue = WorkQueue(db, "queue")
            ids = queue.put_many(range(6))
            queue.get().done("the result")
            queue.get().retry()
        (root / part / ".psync/queue/queue/log" / part).write_bytes(b"#" * 84)
        with PickleShareDB(root / part) as db, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            queue = WorkQueue(db, "queue")
            assert queue.results.get(ids[0], 0) == "the result"
            assert sorted(queue.get().value for _ in range(5)) == [1, 2, 3, 4, 5]
            assert queue.empty()
            assert queue.put("one more") not in ids
            assert f"queue#{part}" in str(told[0].message).replace("%23", "#")


def test_a_damaged_register_is_kept_and_begins_anew_for_all_who_have_it_open(root: Path) -> None:
    with PickleShareDB(root) as one, PickleShareDB(root) as other:
        mine, theirs = Counter(one, "count"), Counter(other, "count")
        assert (mine.add(5), theirs.value) == (5, 5)
        file = root / ".psync/counter/count"
        with file.open("r+b") as damaged:
            damaged.write(b"#" * 20)
        with pytest.raises(CorruptValue, match="it begins anew") as caught:
            mine.add()
        assert caught.value.quarantine is not None
        assert Path(caught.value.quarantine).read_bytes()[:20] == b"#" * 20
        assert (theirs.value, mine.add(2), theirs.value) == (0, 2, 2)
