"""The power is cut while processes work: what each level of durability promises is there when it comes back."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from psync.engine.system import boot_time
from tests.crash.children import in_child
from tests.crash.cuts import WORKERS, Found, look, prepare, work
from tests.crash.disks import Disk, disk
from tests.support import scaled

pytestmark = pytest.mark.crash
LEVELS = ("process", "file", "power")
ROUNDS = scaled(2)


@pytest.fixture(scope="module", params=["ext4", "xfs"])
def power(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with disk(request.param, tmp_path_factory.mktemp("power")) as made:
        yield made


@pytest.fixture
def tracer() -> None:
    """Not needed here."""


def in_another_boot(store: str, notes: Path) -> Found:
    """What there is for the host that was started anew."""
    before = boot_time._boot()
    boot_time._boot = lambda: before + 1  # type: ignore[assignment]
    return look(store, notes)


def round_of(power: Disk, notes: Path, seed: int) -> dict[str, Found]:
    """Two workers at each level, a cut at some moment, and what is there then."""
    chance = random.Random(seed)
    stores = {level: str(power.place / f"{level}-{seed}") for level in LEVELS}
    for store in stores.values():
        in_child(lambda store=store: prepare(store))
    power.write_back()
    children = []
    for level, store in stores.items():
        for me in range(WORKERS):
            child = os.fork()
            if not child:
                work(store, level, notes / f"{level}-{seed}", seed * 10 + me, me)
            children.append(child)
    end = time.monotonic() + chance.uniform(0.2, 1.0)
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.01, 0.1))
        files = [path for path in Path(stores["process"]).rglob("*") if path.is_file()]
        for file in chance.sample(files, min(5, len(files))):
            power.write_back_in_part(file)
    power.cut()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    power.come_back()
    found = {}
    for level, store in stores.items():
        found[level] = in_child(lambda store=store, level=level: in_another_boot(store, notes / f"{level}-{seed}"))
        shutil.rmtree(store)
    return found


def test_each_level_keeps_its_promise_through_power_cuts(power: Disk, tmp_path: Path) -> None:
    returned, lost = dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0)
    for number in range(ROUNDS):
        found = round_of(power, tmp_path, number)
        for level, there in found.items():
            where = f"round {number} on {power.kind}, {level}"
            assert not there.wrong, f"{where}: {there.wrong}"
            returned[level] += there.returned
            lost[level] += len(there.lost)
            if level != "process":
                assert not there.torn, f"{where}: {there.torn}"
                assert not there.destroyed, f"{where}: {there.destroyed}"
            if level == "power":
                assert not there.lost, f"{where}: {there.lost} of {there.returned}"
                assert not there.doubled, f"{where}: {there.doubled}"
    print(f"{ROUNDS} power cuts on {power.kind}; returned before: {returned}; lost of that: {lost}")
    assert all(returned.values())
