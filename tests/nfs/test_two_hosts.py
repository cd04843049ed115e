"""What the README promises among hosts: processes on two or three NFS clients with default mount options."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.nfs.conftest import Place
from tests.nfs.machines import Command, Machine, Rig
from tests.support import scaled


def all_of(*commands: Command, timeout: float = 600.0) -> list[Any]:
    return [command.result(timeout) for command in commands]


def evaluate(machine: Machine, place: Place, expression: str) -> str:
    """An expression about `db`, the store there."""
    code = f"from psync import *; db = PickleShareDB({place.path!r}); print({expression})"
    return machine.run([sys.executable, "-c", code]).strip()


@pytest.fixture(params=["in time", "300 s ahead", "300 s behind"])
def clocks(request: pytest.FixtureRequest, rig: Rig) -> None:
    """How the clock of the second client goes."""
    offset = {"in time": 0, "300 s ahead": 300, "300 s behind": -300}[request.param]
    rig.clients[1].run(["date", "-s", f"@{time.time() + offset:.0f}"])


def test_of_two_who_claim_one_wins(place: Place, clocks: None) -> None:
    rounds = scaled(200)
    won = all_of(place.c1.do("claim", place.path, "one", rounds), place.c2.do("claim", place.path, "two", rounds))
    assert sorted(won[0] + won[1]) == list(range(rounds))


def test_of_three_who_claim_one_wins(place: Place) -> None:
    rounds = scaled(200)
    won = all_of(*(client.do("claim", place.path, client.name, rounds, 3) for client in place[2:]))
    assert sorted(won[0] + won[1] + won[2]) == list(range(rounds))


def test_a_barrier_lets_nobody_through_before_all_are_there(place: Place, clocks: None) -> None:
    rounds = scaled(100)
    took = all_of(place.c1.do("meet", place.path, 2, rounds), place.c2.do("meet", place.path, 2, rounds))
    assert [len(one) for one in took] == [rounds, rounds]


def test_a_barrier_of_three_hosts(place: Place) -> None:
    rounds = scaled(50)
    assert len(all_of(*(client.do("meet", place.path, 3, rounds) for client in place[2:]))) == 3


def test_a_barrier_of_three_hosts_of_which_one_does_not_always_come_by_its_seat(place: Place) -> None:
    rounds = scaled(50)
    one, *others = place[2:]
    running = [
        one.do("meet", place.path, 3, rounds, 5),
        *(client.do("meet", place.path, 3, rounds) for client in others),
    ]
    assert len(all_of(*running)) == 3


@pytest.mark.parametrize("kind", ["lock", "semaphore", "election"])
def test_exclusion_among_hosts_is_witnessed_by_a_counter(place: Place, kind: str, clocks: None) -> None:
    turns = scaled(60)
    made = all_of(*(client.do("exclude", place.path, kind, turns) for client in (place.c1, place.c2)))
    assert int(place.c1.run(["cat", f"{place.path}/witness-{kind}"])) == sum(made)


@pytest.mark.parametrize("how", ["flock", "fcntl"])
def test_the_locks_of_the_system_exclude_among_hosts(place: Place, how: str) -> None:
    turns = scaled(200)
    made = all_of(*(client.do("count_locked", place.path, how, turns) for client in (place.c1, place.c2)))
    assert int(place.c1.run(["cat", f"{place.path}/witness-{how}"])) == sum(made)


def test_no_item_is_lost_beside_a_compression(place: Place, clocks: None) -> None:
    items = scaled(100)
    all_of(place.c1.do("fold", place.path, "one", items, 0), place.c2.do("fold", place.path, "two", items, 5))
    for client in (place.c1, place.c2):
        assert evaluate(client, place, "len(db.hdict('category'))") == str(2 * items)


def test_no_change_of_a_value_is_lost(place: Place, clocks: None) -> None:
    times = scaled(60)
    evaluate(place.c1, place, "db.add('token', 0)")
    all_of(*(client.do("increment", place.path, times) for client in (place.c1, place.c2)))
    for client in (place.c1, place.c2):
        assert evaluate(client, place, "(db['value'][0], 'token' in db)") == f"({2 * times}, True)"


def test_every_task_has_its_result_once_though_workers_are_killed(place: Place, clocks: None) -> None:
    tasks = scaled(200)
    place.c1.do("put", place.path, tasks).result()
    workers: list[Command] = []
    for number in range(6):
        workers.append([place.c1, place.c2][number % 2].do("work", place.path, 0.01))
        if number < 4:
            workers[-1].wait_for("ready")
            time.sleep(0.5)
            workers[-1].kill()
    all_of(*workers[-2:])
    assert place.c2.do("results", place.path, tasks).result() == tasks


def test_a_key_that_was_missed_is_seen_soon_after_it_is_made(place: Place) -> None:
    keys = scaled(10)
    place.c1.run(["date", "-s", f"@{time.time():.0f}"])
    offset = clock_difference(place.c1, place.c2)
    waiting = place.c1.do("see_keys", place.path, keys)
    waiting.wait_for("looked")
    made = place.c2.do("make_keys", place.path, keys, 2.0).result(600.0)
    seen = waiting.result()
    took = [there - here - offset for there, here in zip(seen["seen"], made, strict=True)]
    median, worst = statistics.median(took), max(took)
    print(
        f"{place.mount}: median {median:.3f} s, worst {worst:.3f} s, {seen['requests a second']:.0f} requests a second"
    )
    assert median < 0.1 and worst < 1.0


def clock_difference(one: Machine, two: Machine) -> float:
    """Seconds by which the clock of `one` is ahead of that of `two`, by the best of some tries."""

    def now(machine: Machine) -> float:
        return float(machine.run(["date", "+%s.%N"]))

    tries: list[Sequence[float]] = []
    for _ in range(20):
        begun = time.monotonic()
        first, second, third = now(one), now(two), now(one)
        tries.append((time.monotonic() - begun, (first + third) / 2 - second))
    return min(tries)[1]


def test_two_hosts_examine_a_mount_together(place: Place) -> None:
    command = [sys.executable, "-m", "psync", "doctor", "--pair", place.path]
    said = [running.output() for running in [client.start(command) for client in (place.c1, place.c2)]]
    print(said[0])
    assert said[0] == said[1] and "all is well" in said[0]
