"""After the host was started anew a queue is what its records and marks say, whatever else the power cut left."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from psync import TaskFailed, WorkQueue
from psync.engine import DirectoryEngine
from psync.engine.system import boot_time
from psync.sync.queue.work_queue import internals_of


def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    now = boot_time._boot()
    monkeypatch.setattr(boot_time, "_boot", lambda: now + 1)


def opened(root: Path, **options: Any) -> WorkQueue:
    """By an engine of its own: that of a process which was not there before."""
    return WorkQueue(DirectoryEngine(root), "jobs", **options)


def files(root: Path) -> Path:
    return root / ".psync/queue/jobs/log"


def worked_on(root: Path) -> WorkQueue:
    """Done, waiting, given back, delayed, claimed by one who is gone, dead, waiting."""
    jobs = opened(root)
    jobs.put_many(["done", "untouched", "back", "late", "claimed", "dead", "last"])
    tasks = {task.value: task for task in (jobs.get() for _ in range(6))}
    tasks["done"].done("answer")
    tasks["back"].retry()
    tasks["late"].retry(delay=1e6)
    tasks["dead"].fail("hopeless")
    tasks["untouched"].retry()
    return jobs


def rest(jobs: WorkQueue) -> list[Any]:
    found = []
    while jobs.qsize():
        task = jobs.get(block=False)
        found.append((task.value, task.attempt))
        task.done()
    return sorted(found)


EXPECTED = [("back", 2), ("claimed", 2), ("last", 1), ("untouched", 2)]


@pytest.mark.parametrize("lost", [(), ("front",), ("returned", "delayed"), ("front", "returned", "delayed")])
@pytest.mark.parametrize("how", ["never written", "full of zeros", "empty"])
def test_a_queue_is_found_as_it_was(lost: tuple[str, ...], how: str, root: Path, monkeypatch: Any) -> None:
    jobs = worked_on(root)
    jobs.engine.close()
    for name in lost:
        path = files(root) / name
        if how == "never written" or name != "front":
            path.unlink()
        else:
            path.write_bytes(b"" if how == "empty" else bytes(path.stat().st_size))
    another_boot(monkeypatch)
    jobs = opened(root)
    jobs.recover()
    assert jobs.qsize() == 4
    statistics = jobs.statistics()
    assert (statistics.delayed, statistics.dead, statistics.running) == (1, 1, 0)
    assert rest(jobs) == EXPECTED
    assert jobs.results.get("#0") == "answer"


def test_a_durable_put_is_there_though_the_end_of_the_log_was_never_written(root: Path, monkeypatch: Any) -> None:
    jobs = opened(root, durability="file")
    jobs.put("first")
    before = (files(root) / "tail").read_bytes()
    jobs.put("second")
    jobs.put_many(["third", "fourth"])
    jobs.engine.close()
    (files(root) / "tail").write_bytes(before)
    another_boot(monkeypatch)
    jobs = opened(root, durability="file")
    assert [value for value, _ in rest(jobs)] == ["first", "fourth", "second", "third"]


@pytest.mark.parametrize("records", [1, 2, 3])
def test_of_many_put_at_once_all_or_none_are_there(records: int, root: Path, monkeypatch: Any) -> None:
    jobs = opened(root)
    jobs.put("first")
    before = (files(root) / "tail").read_bytes()
    jobs.put_many(["x" * 100] * 3)
    jobs.engine.close()
    segment = files(root) / f"{0:016x}"
    (files(root) / "tail").write_bytes(before)
    os.truncate(segment, 64 + 160 * records - (0 if records == 3 else 1))
    another_boot(monkeypatch)
    jobs = opened(root)
    assert len(rest(jobs)) == (4 if records == 3 else 1)


def test_a_task_put_after_a_power_cut_is_not_taken_for_one_that_was_lost(root: Path, monkeypatch: Any) -> None:
    jobs = opened(root)
    jobs.put("first")
    kept = (files(root) / "tail").read_bytes(), (files(root) / f"{0:016x}").read_bytes()
    lost = jobs.put("lost")
    for task in jobs:
        task.done(f"answer to {task.value}")
        if task.value == "lost":
            break
    jobs.engine.close()
    (files(root) / "tail").write_bytes(kept[0])
    (files(root) / f"{0:016x}").write_bytes(kept[1])  # the letter and the marks came through, the record did not
    another_boot(monkeypatch)
    jobs = opened(root)
    new = jobs.put("new")
    assert new != lost
    assert rest(jobs) == [("new", 1)]
    assert jobs.results.get(new) is None


def test_a_log_is_looked_through_once_in_a_boot(root: Path, monkeypatch: Any) -> None:
    worked_on(root).engine.close()
    another_boot(monkeypatch)
    assert opened(root).qsize()
    (files(root) / "front").read_bytes()
    before = (files(root) / "tail").read_bytes(), (files(root) / "front").read_bytes()
    assert opened(root).qsize()
    assert before == ((files(root) / "tail").read_bytes(), (files(root) / "front").read_bytes())


def test_what_is_put_in_many_segments_is_found_again(root: Path, monkeypatch: Any) -> None:
    jobs = opened(root)
    jobs.put_many([bytes(200_000) + bytes([number]) for number in range(3)])
    for number in range(3, 12):
        jobs.put(bytes(300_000) + bytes([number]))
    assert len(list(files(root).glob("0*[0-9a-f]"))) > 2
    jobs.get().done()
    jobs.engine.close()
    (files(root) / "tail").write_bytes(bytes(100))
    another_boot(monkeypatch)
    jobs = opened(root)
    assert jobs.qsize() == 11
    assert sorted(value[-1] for value, _ in rest(jobs)) == list(range(1, 12))


def lost_in_a_power_cut(root: Path, monkeypatch: Any) -> tuple[WorkQueue, list[str]]:
    """Of these tasks and what became of them nothing reached the disk, but that ids of their own were given."""
    jobs = opened(root)
    jobs.put("first")
    kept = (files(root) / "tail").read_bytes(), (files(root) / f"{0:016x}").read_bytes()
    lost = [jobs.put("lost"), jobs.put("lost, too"), jobs.put("named", id="mine")]
    for task in jobs:
        task.done()
    jobs.engine.close()
    (files(root) / "tail").write_bytes(kept[0])
    (files(root) / f"{0:016x}").write_bytes(kept[1])
    another_boot(monkeypatch)
    return opened(root), lost


def test_a_task_that_a_power_cut_took_is_not_taken_for_one_that_was_done(root: Path, monkeypatch: Any) -> None:
    jobs, lost = lost_in_a_power_cut(root, monkeypatch)
    for segments in range(2):  # the second time, what it was found in is cleared away
        for id in lost:
            assert jobs.state(id) == "dead"
            with pytest.raises(TaskFailed, match="was lost, in a power cut or to damage") as caught:
                jobs.results.get(id, timeout=0)
            assert caught.value.history == []
        assert jobs.results.get("#0", timeout=0) is None  # which was done, as far as is known
        if not segments:
            for _ in range(4):
                jobs.put(bytes(700_000))
                for task in jobs:
                    task.done()
            jobs.put_many([b"x"] * 40)
            for task in jobs:
                task.done()
            assert not (files(root) / f"{0:016x}").exists()


def test_a_task_that_was_lost_can_be_put_once_more_under_its_id(root: Path, monkeypatch: Any) -> None:
    jobs, _ = lost_in_a_power_cut(root, monkeypatch)
    assert jobs.put("named", id="mine") == "mine"
    assert jobs.put("named", id="mine") == "mine"
    assert internals_of(jobs).producer.put_new({"mine": "named", "other": "new"}) == ["other"]
    assert [(task.id, task.value, task.done(1)) for task in jobs if task.value != "first"] == [
        ("mine", "named", None),
        ("other", "new", None),
    ]
    assert jobs.results.get("mine") == 1
    assert jobs.dead() == []


def test_a_task_that_was_answered_is_not_put_once_more_though_its_record_is_lost(root: Path, monkeypatch: Any) -> None:
    jobs = opened(root)
    jobs.put("first")
    kept = (files(root) / "tail").read_bytes(), (files(root) / f"{0:016x}").read_bytes()
    jobs.put("named", id="mine")
    for task in jobs:
        task.done("answer")
    jobs.engine.close()
    (files(root) / "tail").write_bytes(kept[0])
    (files(root) / f"{0:016x}").write_bytes(kept[1])
    another_boot(monkeypatch)
    jobs = opened(root)
    assert jobs.put("named", id="mine") == "mine"
    assert jobs.qsize() == 0
    assert jobs.results.get("mine", timeout=0) == "answer"


SEGMENT, MARKS = f"{0:016x}", f"{0:016x}.marks"
LOST = {
    "the first record": [(SEGMENT, 0, 64)],
    "records in the middle": [(SEGMENT, 64, 200)],
    "the last records": [(SEGMENT, 200, None)],
    "all records": [(SEGMENT, 0, None)],
    "all marks": [(MARKS, 0, None)],
    "a mark": [(MARKS, 0, 16)],
    "the end": [("tail", 0, None)],
    "the end and the first record": [("tail", 0, None), (SEGMENT, 0, 64)],
    "how far it was taken, and records": [("front", 0, None), (SEGMENT, 64, 200)],
}
"""What a power cut can leave: zeros, from an offset to another."""


@pytest.mark.parametrize("worked_off", [0, 3, 6])
@pytest.mark.parametrize("lost", LOST)
def test_whatever_of_a_queue_is_lost_the_rest_of_it_goes_on(
    lost: str, worked_off: int, root: Path, monkeypatch: Any
) -> None:
    jobs = opened(root)
    ids = jobs.put_many([f"task {number} " + "x" * 10 for number in range(6)])
    for _ in range(worked_off):
        jobs.get().done("answer")
    assert jobs.statistics().waiting == 6 - worked_off
    assert jobs._log.finished() == (worked_off == 6)
    jobs.engine.close()
    for name, begin, end in LOST[lost]:
        data = bytearray((files(root) / name).read_bytes())
        data[begin:end] = bytes(len(data[begin:end]))
        (files(root) / name).write_bytes(data)
    another_boot(monkeypatch)
    for again in (False, True):
        jobs = opened(root)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if again else "ignore")
            again_taken = [value for value, _ in rest(jobs)]
            there = {id: jobs.state(id) for id in ids}
        assert set(there.values()) <= {"done", "dead"}
        assert not again or again_taken == []
        for number, (id, state) in enumerate(there.items()):
            if number < worked_off and state == "done":
                assert jobs.results.get(id, timeout=0) == "answer"
            elif state == "dead" and number >= worked_off:
                with pytest.raises(TaskFailed, match="was lost"):
                    jobs.results.get(id, timeout=0)
        jobs.engine.close()
    jobs.put("alive")
    assert jobs.get(block=False).value == "alive"
