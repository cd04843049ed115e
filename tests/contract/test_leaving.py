"""The contract of leaving in order, and of announcing what no change would announce."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from psync.engine import DirectoryEngine, Engine
from psync.engine.contract.values import Alive
from tests.contract.harness import DirectoryHarness, Harness, threads
from tests.contract.payloads import pickled

FORK = multiprocessing.get_context("fork")


class Guest:
    """Notes whom its engine was when it left."""

    def __init__(self, engine: Engine, note: str = "left") -> None:
        self.engine = engine
        self.note = note
        engine.owner()
        engine.at_leaving(self.leave)

    def leave(self) -> None:
        me = self.engine.owner()
        self.engine.write(self.note, pickled((os.getpid(), self.engine.alive(me) is Alive.YES)))


def note_of(engine: Engine, name: str = "left") -> bool:
    return engine.read(name) is not None


def test_who_closes_its_engine_says_farewell_while_it_is_still_somebody(harness: Harness) -> None:
    engine = harness.other()
    guest, me = Guest(engine), engine.owner()
    assert not note_of(harness.engine)
    engine.close()
    cell = harness.engine.read("left")
    assert cell is not None and cell.payload == pickled((os.getpid(), True))
    assert harness.engine.alive(me) is Alive.NO
    assert guest.engine is engine


def test_the_farewell_of_what_is_gone_is_not_said(harness: Harness) -> None:
    engine = harness.other()
    guests = [Guest(engine, "kept"), Guest(engine, "gone")]
    guests.pop()
    gc.collect()
    engine.close()
    assert note_of(harness.engine, "kept") and not note_of(harness.engine, "gone")


def test_nobody_is_kept_alive_by_its_farewell(harness: Harness) -> None:
    engine = harness.other()
    gone = []

    class Mortal(Guest):
        def __del__(self) -> None:
            gone.append(True)

    Mortal(engine)
    gc.collect()
    assert gone


def test_who_is_killed_says_no_farewell(harness: Harness) -> None:
    kept = []

    def visit(engine: Engine) -> int:
        kept.append(Guest(engine))
        return engine.owner()

    owner = harness.killed(visit)
    assert harness.engine.alive(owner) is Alive.NO
    assert not note_of(harness.engine)


# -- what only processes do ------------------------------------------------------------------------

SCRIPT = """
import sys
from psync.engine import DirectoryEngine
from tests.contract.test_leaving import Guest
engine = DirectoryEngine(sys.argv[1])
guest = Guest(engine)
print(engine.owner(), flush=True)
exec(sys.argv[2])
"""
ENDS = {
    "its script is over": "",
    "sys.exit": "sys.exit(0)",
    "an error": "1 / 0",
    "ctrl-c": "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_process_that_ends_in_order_says_farewell(root: Path, end: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), end], check=False, capture_output=True, text=True, timeout=60
    )
    engine = DirectoryEngine(root)
    assert note_of(engine), run.stderr
    assert engine.alive(int(run.stdout)) is Alive.NO
    engine.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_says_its_own_farewell_when_it_ends(root: Path, method: str) -> None:
    engine = DirectoryEngine(root)
    mine = Guest(engine, "parent")
    process = multiprocessing.get_context(method).Process(target=visit_and_go, args=(root,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    process.close()
    assert note_of(engine, "child") and not note_of(engine, "parent")
    engine.close()
    assert note_of(engine, "parent")
    assert mine.engine is engine


def visit_and_go(root: Path) -> None:
    visit_and_go.guest = Guest(DirectoryEngine(root), "child")  # type: ignore[attr-defined]


def test_a_forked_child_does_not_say_its_parents_farewell(disk: DirectoryHarness) -> None:
    guest = Guest(disk.engine)
    child = os.fork()
    if not child:
        disk.engine.owner()
        disk.engine.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert not note_of(disk.other())
    assert disk.engine.alive(disk.engine.owner()) is Alive.YES
    disk.engine.close()
    assert note_of(disk.other()) and guest.engine


def test_a_process_that_is_terminated_by_a_signal_it_does_not_handle_says_nothing(root: Path) -> None:
    process = FORK.Process(target=visit_and_wait, args=(root,))
    process.start()
    engine = DirectoryEngine(root)
    end = time.monotonic() + 30
    while not note_of(engine, "here") and time.monotonic() < end:
        time.sleep(0.005)
    assert note_of(engine, "here")
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join()
    process.close()
    assert not note_of(engine, "child")
    engine.close()


def visit_and_wait(root: Path) -> None:
    visit_and_go(root)
    DirectoryEngine(root).write("here", pickled(1))
    time.sleep(100)


# -- announcing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["itself", "another"])
def test_an_announcement_ends_the_pause_of_who_watches_the_name(harness: Harness, by: str) -> None:
    waiting = []

    def wait() -> float:
        with harness.engine.watch(["other", ".psync/thing/opened"]) as watch:
            waiting.append(True)
            begun = time.monotonic()
            watch.pause(1.0)
            return time.monotonic() - begun

    def announce() -> float:
        engine = harness.engine if by == "itself" else harness.other()
        while not waiting:
            time.sleep(0.001)
        engine.announce(".psync/thing/opened")
        return 0.0

    assert threads([wait, announce])[0] < 0.9


def test_an_announcement_leaves_nothing_at_the_name(harness: Harness) -> None:
    harness.engine.announce("room/thing")
    with harness.engine.watch(["room/thing"]):
        harness.other().announce("room/thing")
    assert harness.engine.read("room/thing") is None
    assert harness.engine.entries("room") == harness.engine.entries() == ([], [])
