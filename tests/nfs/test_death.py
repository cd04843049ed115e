"""Hosts that lose power, a server that stops and is started anew: what the others see, and when."""

from __future__ import annotations

import threading
import time

import pytest

from tests.nfs.conftest import LEASE, Place
from tests.nfs.machines import Command, Rig
from tests.support import scaled

PATIENCE = 6.0 * LEASE + 60
"""Seconds."""


def test_what_a_killed_process_held_on_another_host_is_free_within_seconds(place: Place) -> None:
    place.c1.do("put", place.path, 1).result()
    holding = place.c2.do("hold", place.path)
    holding.wait_for("holding")
    taking = place.c1.do("take_over", place.path, PATIENCE)
    taking.wait_for("waiting")
    holding.kill()
    took = taking.result(PATIENCE)
    print(f"{place.mount}: {took}")
    assert max(took.values()) < 10.0


def test_what_a_host_without_power_held_is_free_once_the_server_gives_up_on_it(place: Place) -> None:
    """On version 4 after the lease; on version 3 when the host is back."""
    place.c1.do("put", place.path, 1).result()
    place.c2.do("hold", place.path).wait_for("holding")
    taking = place.c1.do("take_over", place.path, PATIENCE)
    taking.wait_for("waiting")
    place.c2.power_off()
    if place.mount == "v3":
        time.sleep(LEASE)
        place.c2.boot()
        took = taking.result(PATIENCE)
    else:
        took = taking.result(PATIENCE)
        place.c2.boot()
    print(f"{place.mount}: {took}")
    assert max(took.values()) < PATIENCE / 2


def test_a_server_that_stops_for_a_while_and_is_started_anew_loses_nothing(place: Place, rig: Rig) -> None:
    tasks = scaled(100)
    place.c1.do("put", place.path, tasks).result()
    workers: list[Command] = [client.do("work", place.path, 0.05) for client in (place.c1, place.c2)]
    for worker in workers:
        worker.wait_for("ready")
    rounds = [client.do("meet", f"{place.path}/meeting", 2, scaled(100)) for client in (place.c1, place.c2)]
    time.sleep(1.0)
    rig.server.freeze()
    thaw = threading.Timer(10.0, rig.server.thaw)
    thaw.start()
    thaw.join()
    time.sleep(1.0)
    rig.server.boot()
    for command in (*workers, *rounds):
        command.result(PATIENCE + 600)
    assert place.c2.do("results", place.path, tasks).result(PATIENCE) == tasks


@pytest.mark.parametrize("mount", ["v4"])
def test_a_host_that_was_cut_off_for_longer_than_the_lease_has_lost_its_locks(
    mount: str, place: Place, rig: Rig
) -> None:
    """It changes nothing when it is back: the kernel refuses what was begun under a lock that is gone."""
    if place.mount != mount:
        pytest.skip("on version 3 a lock is kept for who does not answer")
    assert place.c2.do("update_slowly", place.path, 0.0).result() == "changed"
    paused = place.c2.do("update_slowly", place.path, 3.0 * LEASE)
    paused.wait_for("locked")
    place.c2.freeze()
    try:
        time.sleep(2.0 * LEASE)
        quick = place.c1.do("update_slowly", place.path, 0.0).result(PATIENCE)
    finally:
        place.c2.thaw()
    slow = paused.result(PATIENCE + 200)
    assert quick == "changed"
    assert slow == "refused", "it changed what it had lost"
