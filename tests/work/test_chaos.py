"""Workers killed all the time, and clients killed on the way: every future is right, once, and what was done stays so.

With PSYNC_TEST_SCALE=5 it is 10,000 calls.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from psync import Executor, PickleShareDB, WorkQueue
from tests.concurrency.simultaneous import FORK
from tests.support import scaled

EVERY = 0.2
"""Seconds from one kill to the next."""

pytestmark = pytest.mark.crash


def squared(number: int) -> int:
    time.sleep(0.002)
    return number * number


@pytest.mark.slow
def test_of_workers_killed_every_200_milliseconds_no_future_hears_wrong_or_twice() -> None:
    calls, draw, killed = scaled(2_000), random.Random(5), 0
    heard: Counter[int] = Counter()
    over = threading.Event()

    def kill_one_after_the_other() -> None:
        nonlocal killed
        while not over.wait(EVERY):
            victim = draw.choice(executor._workers.pids())
            with contextlib.suppress(ProcessLookupError, ValueError):  # it was replaced at this moment
                os.kill(victim, signal.SIGKILL)
                killed += 1

    with Executor(max_workers=4, max_attempts=100, mp_context=FORK) as executor:
        assert executor.submit(squared, 2).result(timeout=30) == 4
        killer = threading.Thread(target=kill_one_after_the_other)
        killer.start()
        try:
            futures = [executor.submit(squared, number) for number in range(calls)]
            for number, future in enumerate(futures):
                future.add_done_callback(lambda _, number=number: heard.update([number]))
            assert [future.result(timeout=120) for future in futures] == [number**2 for number in range(calls)]
        finally:
            over.set()
            killer.join()
        again = sum(len(executor.queue.history(future.id)) for future in futures)
        executor.queue.join(timeout=30)  # a future hears its answer before the task's mark says that it is done
        assert executor.queue.statistics()[1:5] == (0, 0, 0, 0)
    print(f"{calls} calls, {killed} workers killed, {again} calls made once more")
    assert heard == dict.fromkeys(range(calls), 1)
    assert killed >= 3


CLIENT = """
import sys
from psync import Executor, PickleShareDB
from tests.work.test_chaos import noted

shared, folder, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = PickleShareDB(shared)
with Executor(db, max_workers=2) as executor:
    if "ids" in db:
        futures = [executor.attach(id) for id in db["ids"]]
    else:
        futures = [executor.submit(noted, folder, number) for number in range(calls)]
        db["ids"] = [future.id for future in futures]
        print("submitted", flush=True)
    print(sum(future.result() for future in futures), flush=True)
"""


def noted(folder: str, number: int) -> int:
    """Leaves a line for each time that it is called."""
    with open(f"{folder}/{number}", "a") as file:
        file.write("made\n")
    time.sleep(0.005)
    return number


def test_of_what_was_done_nothing_is_done_again_for_a_client_that_comes_back(root: Path, tmp_path: Path) -> None:
    calls = scaled(400)
    command = [sys.executable, "-c", CLIENT, str(root), str(tmp_path), str(calls)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    results = WorkQueue(root, "jobs").results
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "submitted\n"
        while len(results) < calls // 4:
            time.sleep(0.01)
        first.kill()
    ids = PickleShareDB(root)["ids"]
    done = {number for number, id in enumerate(ids) if id in results}
    assert len(done) < calls, "it was killed too late to show anything"
    second = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert (second.stdout, second.stderr) == (f"{sum(range(calls))}\n", "")
    made = {number: (tmp_path / str(number)).read_text().count("made") for number in range(calls)}
    assert {number: times for number, times in made.items() if number in done and times > 1} == {}
    assert all(1 <= times <= 2 for times in made.values()), made
