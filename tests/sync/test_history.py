"""The history of a task is bounded, so that giving it back costs the same however often that was done before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import psync
from psync.store.category import Category
from tests.reentry.operations import store_of
from tests.support import ENGINE, scaled

FIRST, LAST = 2, 10


@pytest.fixture(params=[ENGINE] if ENGINE else ["directory", "network", "signed", "json", "memory"])
def db(request: pytest.FixtureRequest, root: Path | str) -> Iterator[psync.PickleShareDB]:
    store = psync.PickleShareDB(root) if ENGINE else store_of(request.param, root)
    yield store
    store.close()


def test_the_first_attempts_and_the_last_ones_are_kept_and_no_attempt_costs_more_than_another(
    db: psync.PickleShareDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 20 * scaled(1)
    queue = psync.WorkQueue(db, "jobs", max_attempts=times)
    queue.put("work")
    written: list[int] = []
    real = Category.set_pickled

    def counting(category: Category, key: object, ops: bytes) -> None:
        if category.name.endswith("/history"):
            written.append(len(ops))
        real(category, key, ops)

    monkeypatch.setattr(Category, "set_pickled", counting)
    for number in range(1, times + 1):
        task = queue.get(timeout=0)
        task.retry(f"error {number:9}")
        kept = [attempt.number for attempt in queue.history(task.id)]
        everything = list(range(1, number + 1))
        assert kept == (everything if number <= FIRST + LAST else everything[:FIRST] + everything[-LAST:])
    assert queue.history(task.id)[-1].error == f"error {times:9}"
    assert len(written) == times and max(written) <= written[FIRST + LAST - 1] + 50
    with pytest.raises(psync.TaskFailed, match=f"failed after {times} attempts"):
        queue.results.get(task.id, timeout=0)


def test_of_a_long_error_the_beginning_and_the_end_are_kept(db: psync.PickleShareDB) -> None:
    queue = psync.WorkQueue(db, "jobs")
    queue.put("work")
    task = queue.get(timeout=0)
    task.retry("begin" + 100_000 * "x" + "end")
    (attempt,) = queue.history(task.id)
    assert attempt.error.startswith("begin") and attempt.error.endswith("end")
    assert "91816 characters are left out" in attempt.error and len(attempt.error) < 9000
