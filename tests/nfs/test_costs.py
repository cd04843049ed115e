"""What psync asks of the server: requests, as the client's kernel counts them."""

from __future__ import annotations

import pytest

from psync.sync.queue.consumer import MAX_POLLS_PER_S
from tests.nfs.conftest import Place
from tests.support import SCALE

COSTS = {
    "a new value": (18, 22),
    "a value that is there, set": (8, 5),
    "a value, read": (4, 4),
    "a value, modified": (9, 5),
    "a look for a value that is not there": (1, 1),
    "a large value, replaced": (27, 21),
    "an item, removed": (33, 27),
    "a value, deleted": (14, 9),
    "an item, set": (8, 5),
    "a lock, taken and freed": (6, 3),
    "a look at an event": (1, 1),
    "a step of a barrier": (2, 2),
    "a task, put": (6, 3),
    "a task, taken": (7, 4),
    "a task, done": (2, 2),
    "a task, done with a result": (16, 10),
    "a task, taken and done in a loop": (0.4, 0.4),
    "a task, taken and done with a result in a loop": (1.3, 1.1),
}
"""Requests of each operation on version 4 and on version 3, once what it needs is open. On version 4 a lock takes three
(LOCK, LOCKU, FREE_STATEID), on version 3 none that the statistics of the mount count. A step of a barrier
is one to which the same processes came before; another costs what a lock does. A task that is done with a result is the
first with a letter in its bucket mostly: that is made. A loop claims and answers more at once the quicker tasks are
done."""


def test_operations_cost_what_is_said(place: Place) -> None:
    found = place.c1.do("costs", place.path, 30).result(600.0)
    for name, count in found.items():
        print(f"{place.mount}: {name}: {count:.1f}")
    assert set(found) == set(COSTS)
    costs = {name: both[place.mount == "v3"] for name, both in COSTS.items()}
    dear = {name: count for name, count in found.items() if count > costs[name] + min(0.75, costs[name])}
    assert not dear


@pytest.mark.parametrize(
    ("processes", "threads"), [(2, 50), (20 if SCALE < 10 else 100, 1)], ids=["threads", "processes"]
)
def test_many_who_wait_for_tasks_raise_no_storm(place: Place, processes: int, threads: int) -> None:
    """On each of two hosts so many processes with so many threads each; 200 processes in the long form."""
    waiting = [client.do("idle", place.path, processes, threads, 10.0) for client in (place.c1, place.c2)]
    for each in waiting:
        each.wait_for("counted", 300.0)
    place.c3.do("put", place.path, 2 * processes * threads).result()
    counted = [each.result(300.0) for each in waiting]
    print(f"{place.mount}: {2 * processes} processes of {threads} threads: {sum(counted):.0f} requests a second")
    assert sum(counted) < 5 * MAX_POLLS_PER_S  # a look is two requests; and now and then one looks for the dead
