"""The contract of owners: who am I, and is that one alive; NO is a proof, never a guess."""

from __future__ import annotations

import os
import signal
import time

import pytest

from psync.engine import Engine
from psync.engine.contract.log import Mark, Record, State
from psync.engine.contract.values import Alive
from tests.contract.harness import DirectoryHarness, Harness, threads

LOG = ".psync/queue/q"


def test_a_process_is_one_owner_and_alive(harness: Harness) -> None:
    engine, other = harness.engine, harness.other()
    me = engine.owner()
    assert isinstance(me, int) and 0 < me < 2**64
    assert [engine.owner() for _ in range(3)] == threads([engine.owner] * 3) == [me] * 3
    assert engine.alive(me) is Alive.YES
    assert other.alive(me) is Alive.YES


def test_other_processes_are_other_owners(harness: Harness) -> None:
    me = harness.engine.owner()
    owners = harness.crowd([lambda engine: engine.owner()] * 3)
    assert len({me, *owners}) == 4


def test_owners_see_each_other_alive(harness: Harness) -> None:
    def meet(engine: Engine) -> list[Alive]:
        log, end = engine.log(LOG), time.monotonic() + 30
        log.append([b"%d" % engine.owner()])
        while log.counts().appended < 3 and time.monotonic() < end:
            time.sleep(0.005)
        seen = [engine.alive(int(record.payload)) for record in records(engine)]
        engine.log(LOG + "seen").append([b"x"])
        while engine.log(LOG + "seen").counts().appended < 3 and time.monotonic() < end:
            time.sleep(0.005)
        return seen

    def records(engine: Engine) -> list[Record]:
        with engine.log(LOG).held():
            taken = engine.log(LOG).take(engine.owner(), 9)
            for record in taken:
                assert engine.log(LOG).settle(record.position, record.mark, Mark(State.WAITING, record.mark.attempt))
        return taken

    assert harness.crowd([meet] * 3) == [[Alive.YES] * 3] * 3


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_a_killed_process_is_proved_dead(harness: Harness, reaped: bool) -> None:
    owner = harness.killed(lambda engine: engine.owner(), reaped=reaped)
    assert harness.engine.alive(owner) is Alive.NO
    assert harness.other().alive(owner) is Alive.NO
    assert harness.engine.owner() != owner


def test_a_dead_owner_stays_dead_after_a_sweep_while_a_claim_names_it(harness: Harness) -> None:
    harness.engine.log(LOG).append([b"x"])
    owner = harness.killed(lambda engine: engine.log(LOG).take(engine.owner())[0].mark.owner)
    harness.engine.sweep()
    harness.other().sweep()
    assert [claim.mark.owner for claim in harness.engine.log(LOG).claims()] == [owner]
    assert harness.engine.alive(owner) is Alive.NO


def test_many_dead_owners_are_all_proved_dead(harness: Harness) -> None:
    owners = [harness.killed(lambda engine: engine.owner()) for _ in range(5)]
    assert len(set(owners)) == 5
    assert {harness.engine.alive(owner) for owner in owners} == {Alive.NO}
    harness.engine.sweep()
    assert Alive.YES not in {harness.engine.alive(owner) for owner in owners}
    assert harness.engine.alive(harness.engine.owner()) is Alive.YES


def test_an_owner_is_described_for_people(harness: Harness) -> None:
    text = harness.other().describe(harness.engine.owner())
    assert str(os.getpid()) in text
    assert harness.engine.describe(12345)  # says something of a stranger, too
    assert harness.engine.describe(harness.killed(lambda engine: engine.owner()))


def test_the_clock_never_goes_back(engine: Engine) -> None:
    times = [engine.now() for _ in range(1000)]
    assert times == sorted(times)
    time.sleep(0.02)
    assert 0.015 < engine.now() - times[-1] < 2.0


# -- what only processes do ------------------------------------------------------------------------


def test_a_stopped_process_is_alive(disk: DirectoryHarness) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"%d" % disk.engine.owner())
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        owner = int(os.read(reading, 99))
        os.waitpid(child, os.WUNTRACED)
        assert disk.engine.alive(owner) is Alive.YES
        disk.engine.sweep()
        assert disk.engine.alive(owner) is Alive.YES
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert disk.engine.alive(owner) is Alive.NO


def test_a_forked_child_is_another_owner(disk: DirectoryHarness) -> None:
    me = disk.engine.owner()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"%d" % disk.engine.owner())
        os._exit(0)
    theirs = int(os.read(reading, 99))
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    assert theirs != me
    assert disk.other().alive(theirs) is Alive.NO
    assert disk.other().alive(me) is Alive.YES  # its end was not taken for its parent's
    assert disk.engine.owner() == me
