"""What an executor promises beside what `concurrent.futures` asks: workers that die, clients that come back, errors."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path
from typing import Any

import pytest

from psync import Executor, PickleShareDB, RemoteError, TaskFailed, WorkQueue
from psync.work import Worker, call
from psync.work.futures import MAX_POLLED_FIRST
from tests.concurrency.simultaneous import FORK, end
from tests.support import scaled


def square(number: int) -> int:
    return number * number


def its_pid(_: Any = None) -> int:
    return os.getpid()


def kill_yourself(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def once(flag: str) -> str:
    """Kills its worker the first time."""
    try:
        os.mkdir(flag)
    except FileExistsError:
        return "the second time"
    kill_yourself()
    return "never"


def fails_until(folder: str, times: int) -> int:
    attempts = len(os.listdir(folder)) + 1
    (Path(folder) / str(attempts)).touch()
    if attempts <= times:
        raise ConnectionError(f"attempt {attempts}")
    return attempts


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


class Rotten:
    """It can be pickled, but not unpickled, whatever other packages teach pickle about exceptions."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def raise_untellable() -> None:
    raise LookupError(Rotten())


def give_a_lock() -> Any:
    return threading.Lock()


def raise_deep() -> None:
    def deeper() -> None:
        raise LookupError("down here")

    deeper()


# -- workers that die ------------------------------------------------------------------------------------


def test_a_killed_worker_costs_one_attempt_of_one_call(tmp_path: Path) -> None:
    with Executor(max_workers=2) as executor:
        before = [executor.submit(square, number) for number in range(50)]
        survivor = executor.submit(once, str(tmp_path / "flag"))
        after = [executor.submit(square, number) for number in range(50)]
        assert survivor.result(timeout=30) == "the second time"
        assert [future.result(timeout=30) for future in before + after] == [number**2 for number in range(50)] * 2
        (attempt,) = executor.queue.history(survivor.id)
        assert "died" in attempt.error


def test_a_call_that_kills_every_worker_ends_dead_and_says_so() -> None:
    with Executor(max_workers=1, max_attempts=2) as executor:
        future = executor.submit(kill_yourself)
        with pytest.raises(TaskFailed, match="2 attempts") as raised:
            future.result(timeout=30)
        assert [attempt.number for attempt in raised.value.history] == [1, 2]
        assert executor.submit(square, 3).result(timeout=30) == 9


def test_every_future_is_right_though_workers_are_killed_all_the_time() -> None:
    calls = scaled(1_500)
    stop = threading.Event()
    with Executor(max_workers=3, max_attempts=1_000) as executor:
        executor.submit(square, 1).result(timeout=30)

        def kill_now_and_then() -> None:
            while not stop.wait(0.05):
                victim = executor.submit(its_pid)
                try:
                    os.kill(victim.result(timeout=30), signal.SIGKILL)
                except (ProcessLookupError, CancelledError):
                    continue

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        futures = [executor.submit(square, number) for number in range(calls)]
        assert [future.result(timeout=60) for future in futures] == [number**2 for number in range(calls)]
        stop.set()
        killer.join()


def test_an_answer_far_behind_those_awaited_longest_is_told_at_once(root: Path) -> None:
    with Executor(root, max_workers=0) as executor:
        executed = [executor.submit(square, number) for number in range(MAX_POLLED_FIRST + 100)]
        tasks = WorkQueue(root).get_many(len(executed))
        tasks[-1].done(call.seal(call.Outcome(7)))
        assert executed[-1].result(timeout=60) == 7
        assert not any(future.done() for future in executed[:-1])
        for task in tasks[:-1]:
            task.done(call.seal(call.Outcome()))


def test_workers_elsewhere_do_as_well_as_those_started_here(root: Path) -> None:
    def work() -> None:
        Worker(WorkQueue(root, "jobs")).run(idle=20)

    elsewhere = FORK.Process(target=work)
    with Executor(root, max_workers=0) as executor:
        future = executor.submit(its_pid)
        assert not future.done() and not future.running()
        elsewhere.start()
        try:
            assert future.result(timeout=30) == elsewhere.pid
        finally:
            end(elsewhere)


def test_nothing_is_left_behind(root: Path) -> None:
    with Executor(max_workers=2) as executor:
        pids = {future.result(timeout=30) for future in [executor.submit(its_pid) for _ in range(20)]}
        folder = str(executor._private)
        assert os.path.isdir(folder)
    assert not os.path.exists(folder)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_end_when_their_client_is_killed(root: Path) -> None:
    program = (
        "import sys, time\n"
        "from psync import Executor\n"
        "from tests.work.test_executor import its_pid\n"
        "executor = Executor(sys.argv[1], max_workers=2)\n"
        "print(executor.submit(its_pid).result(), flush=True)\n"
        "time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        worker = int(client.stdout.readline())
        client.kill()
    patience = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}"):
        assert time.monotonic() < patience, "a worker lives on though its client is dead"
        time.sleep(0.01)


# -- clients that come back ------------------------------------------------------------------------------


def test_a_client_attaches_to_the_calls_of_one_that_is_gone(root: Path) -> None:
    with Executor(root, max_workers=0) as first:
        ids = [first.submit(square, number).id for number in range(5)]
        for future in first._futures.pending():
            first._futures.forget(future.id)  # so that nobody waits for them
    with Executor(root, max_workers=2) as second:
        assert [second.attach(id).result(timeout=30) for id in ids] == [0, 1, 4, 9, 16]
        assert [second.attach(id).result(timeout=30) for id in ids] == [0, 1, 4, 9, 16]
        with pytest.raises(KeyError):
            second.attach("#ffff")


def test_what_is_submitted_again_under_its_id_is_not_made_again(root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with Executor(root, max_workers=1) as executor:
            future = executor.submit_as("the one", fails_until, str(tmp_path), 0)
            assert (future.id, future.result(timeout=30)) == ("the one", 1)
    assert len(os.listdir(tmp_path)) == 1


# -- errors ----------------------------------------------------------------------------------------------


def test_an_exception_comes_back_with_its_traceback_and_with_who_raised_it() -> None:
    with Executor(max_workers=1) as executor, pytest.raises(LookupError, match="down here") as raised:
        executor.submit(raise_deep).result(timeout=30)
    assert "in deeper" in str(raised.value.__cause__) and "pid " in str(raised.value.__cause__)


@pytest.mark.parametrize("function", [raise_untellable, give_a_lock])
def test_what_can_not_travel_back_is_a_clear_error(function: Any) -> None:
    with Executor(max_workers=1) as executor:
        neighbours = [executor.submit(square, number) for number in range(30)]
        with pytest.raises(RemoteError, match="pickled"):
            executor.submit(function).result(timeout=30)
        assert [future.result(timeout=30) for future in neighbours] == [number**2 for number in range(30)]


def test_what_can_not_be_sent_is_refused_at_once() -> None:
    with Executor(max_workers=0) as executor:
        with pytest.raises(RemoteError, match=r"can't be sent .* cloudpickle"):
            executor.submit(square, threading.Lock())
        assert executor.queue.statistics().put == 0


def test_what_raises_is_made_again_as_often_as_was_agreed(tmp_path: Path) -> None:
    with Executor(max_workers=2, retries=4, pause=0.01) as executor:
        assert executor.submit(fails_until, str(tmp_path), 4).result(timeout=30) == 5
        (tmp_path / "more").mkdir()
        with pytest.raises(ConnectionError, match="attempt 5"):
            executor.submit(fails_until, str(tmp_path / "more"), 9).result(timeout=30)


def test_a_call_that_takes_too_long_is_interrupted() -> None:
    with Executor(max_workers=1, timeout=0.2) as executor:
        with pytest.raises(TimeoutError, match=r"0\.2 seconds"):
            executor.submit(nap, 60).result(timeout=30)
        assert executor.submit(nap, 0).result(timeout=30) == 0


def test_a_failing_initializer_breaks_the_executor() -> None:
    executor = Executor(max_workers=2, initializer=raise_deep)
    future = executor.submit(square, 2)
    with pytest.raises(BrokenExecutor, match="initializer"):
        future.result(timeout=30)
    with pytest.raises(BrokenExecutor):
        executor.submit(square, 2)
    executor.shutdown()


# -- cancelling, mapping, ending -------------------------------------------------------------------------


def test_what_nobody_has_begun_can_be_cancelled_and_nothing_else() -> None:
    with Executor(max_workers=1) as executor:
        busy = executor.submit(nap, 0.5)
        while not busy.running():
            time.sleep(0.005)
        waiting = [executor.submit(nap, 0) for _ in range(3)]
        assert waiting[1].cancel() and waiting[1].cancel() and waiting[1].cancelled()
        assert not busy.cancel()
        assert [busy.result(timeout=30), waiting[0].result(timeout=30), waiting[2].result(timeout=30)] == [0.5, 0, 0]
        with pytest.raises(CancelledError):
            waiting[1].result()
        assert not waiting[0].cancel()


def test_shutdown_can_cancel_what_nobody_has_begun() -> None:
    executor = Executor(max_workers=1)
    busy = executor.submit(nap, 0.3)
    while not busy.running():
        time.sleep(0.005)
    waiting = [executor.submit(nap, 5) for _ in range(10)]
    executor.shutdown(cancel_futures=True)
    assert busy.result(timeout=0) == 0.3 and all(future.cancelled() for future in waiting)
    with pytest.raises(RuntimeError):
        executor.submit(square, 1)


@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_map_gives_all_in_order(chunksize: int | None) -> None:
    with Executor(max_workers=2) as executor:
        assert list(executor.map(square, range(500), chunksize=chunksize)) == [number**2 for number in range(500)]
        assert list(executor.map(pow, [2, 3], [3, 2, 1])) == [8, 9]


def test_map_yields_what_came_before_the_call_that_raised() -> None:
    with Executor(max_workers=2) as executor:
        found = []
        with pytest.raises(ZeroDivisionError):
            for number in executor.map(divmod, [6] * 9, [1, 2, 3, 0, 1, 1, 1, 1, 1], chunksize=3):
                found.append(number)
        assert found == [(6, 0), (3, 0), (2, 0)]


def test_map_with_a_buffer_takes_no_more_than_it_needs_of_an_endless_iterable() -> None:
    taken = []

    def numbers() -> Any:
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    with Executor(max_workers=2) as executor:
        mapped = executor.map(square, numbers(), buffersize=8)
        assert [next(mapped) for _ in range(20)] == [number**2 for number in range(20)]
        assert len(taken) <= 20 + 8 + 1
        mapped.close()  # type: ignore[attr-defined]


def test_each_worker_makes_as_many_calls_as_it_may() -> None:
    with Executor(max_workers=1, max_tasks_per_child=2) as executor:
        pids = [executor.submit(its_pid).result(timeout=30) for _ in range(6)]
    assert len(set(pids)) == 3 and pids == sorted(pids, key=pids.index)


def test_an_executor_that_is_forgotten_ends_by_itself() -> None:
    executor = Executor(max_workers=1)
    future = executor.submit(its_pid)
    pid = future.result(timeout=30)
    del executor
    patience = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < patience
        time.sleep(0.01)


def test_wrong_arguments_are_refused(root: Path) -> None:
    for wrong in ({"max_workers": -1}, {"max_tasks_per_child": 0}, {"retries": -1}, {"timeout": 0}):
        with pytest.raises(ValueError, match="must"):
            Executor(root, **wrong)
    with pytest.raises(TypeError):
        Executor(root, initializer=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_workers=4"):
        Executor(4)  # type: ignore[arg-type]


def test_errors_that_travel_pickle() -> None:
    error = RemoteError("text", worker="pid 7")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.worker) == ("text", "pid 7")


def test_a_store_may_be_shared_with_everything_else(root: Path) -> None:
    with PickleShareDB(root) as db, Executor(db, max_workers=1) as executor:
        db["x"] = 5
        assert executor.submit(square, db["x"]).result(timeout=30) == 25
        assert db["x"] == 5


# -- what calls do to their worker -----------------------------------------------------------------------


def end_a_child() -> int | None:
    """What the signal that ends processes does to one that a call has forked."""
    told, tell = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: (tell.send("here"), time.sleep(60)))
    child.start()
    told.recv()
    child.terminate()
    child.join(30)
    return child.exitcode


def test_what_a_call_forks_hears_signals_as_if_there_were_no_worker() -> None:
    with Executor(max_workers=1) as executor:
        assert executor.submit(end_a_child).result(timeout=60) == -signal.SIGTERM


def raise_this(kind: type[BaseException]) -> None:
    raise kind("on purpose")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_other_programs_ends_a_call_and_not_its_worker(kind: type[BaseException]) -> None:
    with Executor(max_workers=1) as executor:
        before = executor.submit(its_pid).result(timeout=30)
        with pytest.raises(kind, match="on purpose"):
            executor.submit(raise_this, kind).result(timeout=30)
        assert executor.submit(its_pid).result(timeout=30) == before


def squared_by_others(number: int) -> int:
    """In an executor that nobody shuts down."""
    inner = Executor(max_workers=1)
    return int(inner.submit(square, number).result(timeout=30))


def test_a_worker_ends_though_a_call_left_an_executor_in_it() -> None:
    with Executor(max_workers=2) as executor:
        assert [executor.submit(squared_by_others, number).result(timeout=60) for number in (3, 4)] == [9, 16]
        begun = time.monotonic()
    assert time.monotonic() - begun < 8, "its worker was killed after some patience"


def test_workers_with_nothing_to_do_end_and_are_started_again() -> None:
    with Executor(max_workers=1, idle=0.2) as executor:
        first = executor.submit(its_pid).result(timeout=30)
        patience = time.monotonic() + 20
        while os.path.exists(f"/proc/{first}") and "State:\tZ" not in Path(f"/proc/{first}/status").read_text():
            assert time.monotonic() < patience
            time.sleep(0.01)
        assert executor.submit(its_pid).result(timeout=30) != first


def test_killed_workers_leave_no_call_that_would_be_made(tmp_path: Path) -> None:
    executor = Executor(tmp_path / "store", max_workers=2)  # a private directory would be gone
    calls = [executor.submit(nap, 60) for _ in range(6)]
    while not calls[0].running():
        time.sleep(0.005)
    begun = time.monotonic()
    executor.kill_workers()
    assert all(call.cancelled() for call in calls)
    seen = executor.queue.statistics()
    assert (seen.waiting, seen.running) == (0, 0)
    executor.shutdown()
    assert time.monotonic() - begun < 30
    with pytest.raises(RuntimeError):
        executor.submit(square, 1)
