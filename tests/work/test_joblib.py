"""joblib on psync's workers: joblib's own tests of a backend that can be used again, and what psync promises beside.

Of joblib's tests those are left out that look into loky or into a pool of `multiprocessing`, that ask for memory maps
(an array travels as the value it is), or that have no backend in them. Workers are forked here, where that is safe,
because it is quick; the last tests start them afresh, as users get them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

joblib = pytest.importorskip("joblib", reason="joblib is not installed (extra `joblib`)")
theirs = pytest.importorskip("joblib.test.test_parallel", reason="this joblib came without its tests")

import psync.joblib  # noqa: E402
from psync import WorkQueue  # noqa: E402
from psync.joblib import PsyncBackend  # noqa: E402
from psync.work import Worker  # noqa: E402
from tests.concurrency.simultaneous import FORK, end  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
PROJECT = Path(__file__).parent.parent.parent
CONTEXTS = {"config": joblib.parallel_config, "backend": joblib.parallel_backend}
BOTH = ("generator", "generator_unordered")


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(joblib.parallel.BACKENDS, "psync", partial(PsyncBackend, context="fork"))
    monkeypatch.setattr(joblib.parallel, "DEFAULT_BACKEND", "psync")
    yield
    psync.joblib.shutdown()


CASES: list[tuple[str, dict[str, Any]]] = [
    *[("test_simple_parallel", {"n_jobs": jobs, "verbose": 2}) for jobs in (1, 2, -1, -2)],
    ("test_parallel_pretty_print", {"n_jobs": 2}),
    ("test_background_thread_parallelism", {}),
    ("test_parallel_as_context_manager", {}),
    ("test_parallel_timeout_success", {}),
    ("test_parallel_timeout_fail", {}),
    *[("test_parallel_timeout_fail_with_generator", {"return_as": way}) for way in BOTH],
    ("test_error_capture", {}),
    ("test_error_in_task_iterator", {}),
    ("test_dispatch_multiprocessing", {}),
    ("test_batching_auto_subprocesses", {}),
    ("test_nested_exception_dispatch", {}),
    ("test_invalid_njobs", {}),
    *[("test_njobs_converted_to_int", {"n_jobs": jobs}) for jobs in ("2", 2.3)],
    *[("test_nested_backend_context_manager", {"context": context}) for context in CONTEXTS.values()],
    *[("test_parallel_unordered_generator_returns_fastest_first", {"n_jobs": jobs}) for jobs in (2, 4)],
    *[("test_abort_backend", {"n_jobs": jobs}) for jobs in (1, 2, -1)],
    *[("test_deadlock_with_generator", {"return_as": way, "n_jobs": 2}) for way in BOTH],
    *[("test_multiple_generator_call", {"return_as": way, "n_jobs": 2}) for way in BOTH],
    *[("test_multiple_generator_call_managed", {"return_as": way, "n_jobs": 2}) for way in BOTH],
    *[
        ("test_multiple_generator_call_separated", {"return_as_1": one, "return_as_2": other, "n_jobs": 2})
        for one in BOTH
        for other in BOTH
    ],
    *[
        ("test_multiple_generator_call_separated_gc", {"return_as_1": way, "return_as_2": way, "error": False})
        for way in BOTH
    ],
    ("test_lambda_expression", {}),
    ("test_backend_batch_statistics_reset", {}),
    ("test_initializer_parallel", {"n_jobs": 2}),
    *[("test_initializer_context", {"n_jobs": 2, "context": context}) for context in CONTEXTS.values()],
]


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=lambda one: one if isinstance(one, str) else "")
def test_theirs_for_a_backend(name: str, arguments: dict[str, Any]) -> None:
    if name == "test_deadlock_with_generator":
        pytest.importorskip("numpy", reason="numpy is not installed")
    getattr(theirs, name)(backend="psync", **arguments)


@pytest.mark.parametrize("context", CONTEXTS)
def test_theirs_of_nesting(context: str) -> None:
    theirs.check_nesting_level(CONTEXTS[context], "psync", 0)
    theirs.test_backend_nesting_level(CONTEXTS[context], "psync", "psync")
    if sys.version_info < (3, 12):  # from then on Python itself warns, of forks beside threads
        theirs.test_nested_parallel_warnings("psync", "psync", False)
    for inner in ("psync", "threading", "multiprocessing", "sequential"):
        theirs.test_nested_loop("psync", inner)
    theirs.test_nested_loop("threading", "psync")


@pytest.mark.parametrize("context", CONTEXTS)
def test_theirs_of_nesting_without_end(context: str) -> None:
    with CONTEXTS[context]("psync", n_jobs=2):
        found = theirs._recursive_backend_info()
    assert found == [("PsyncBackend", 0), ("ThreadingBackend", 1), ("SequentialBackend", 2), ("SequentialBackend", 2)]
    with CONTEXTS[context]("psync", n_jobs=2), pytest.raises(RecursionError):
        theirs._recursive_parallel()


DEFAULT: list[tuple[str, dict[str, Any]]] = [
    *[("test_parallel_kwargs", {"n_jobs": jobs}) for jobs in (1, 3)],
    ("test_exception_dispatch", {}),
    ("test_parallel_with_exhausted_iterator", {}),
    ("test_globals_update_at_each_parallel_call", {}),
    *[
        ("test_dispatch_race_condition", {"n_tasks": tasks, "n_jobs": jobs, "pre_dispatch": ahead, "batch_size": size})
        for tasks, jobs, ahead, size in [
            (2, 2, "all", "auto"),
            (517, 2, "n_jobs", "auto"),
            (10, 4, "n_jobs", "auto"),
            (25, 6, "2 * n_jobs", 1),
            (250, 6, "all", 1),
            (250, 6, "2 * n_jobs", 7),
        ]
    ],
]


@pytest.mark.parametrize(("name", "arguments"), DEFAULT, ids=lambda one: one if isinstance(one, str) else "")
def test_theirs_where_psync_is_the_default(name: str, arguments: dict[str, Any]) -> None:
    getattr(theirs, name)(**arguments)


@pytest.mark.parametrize("jobs", [2, 4])
def test_workers_are_used_again(jobs: int) -> None:
    """As `test_loky_reuse_workers` and `test_initializer_reused` have it, without a look into loky."""

    def pids() -> set[int]:
        return set(joblib.Parallel(jobs, backend="psync")(joblib.delayed(theirs.sleep_and_return_pid)() for _ in "12"))

    first = psync.joblib._cache._one
    assert first is None
    found = pids()
    kept = psync.joblib._cache._one
    for _ in range(5):
        found |= pids()
        assert psync.joblib._cache._one is not None and kept is not None
        assert psync.joblib._cache._one[1] is kept[1]
    assert os.getpid() not in found and len(found) <= jobs


told: list[int] = []


def be_told(number: int) -> None:
    told.append(number)


def all_told() -> list[int]:
    return told


def test_other_terms_are_other_workers() -> None:
    def tell(number: int) -> list[list[int]]:
        parallel = joblib.Parallel(2, backend="psync", initializer=be_told, initargs=(number,))
        found: list[list[int]] = parallel(joblib.delayed(all_told)() for _ in range(4))
        return found

    assert [tell(number) for number in (1, 2, 3)] == [[[1]] * 4, [[2]] * 4, [[3]] * 4]


# -- what psync promises beside --------------------------------------------------------------------------


def kill_once(flag: str, number: int) -> int:
    if number == 7:
        with contextlib.suppress(FileExistsError):
            os.mkdir(flag)
            os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_not_noticed(root: Path, tmp_path: Path) -> None:
    with joblib.parallel_config("psync", dir=root, n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(kill_once)(str(tmp_path / "flag"), number) for number in range(40))
    assert found == list(range(40)) and (tmp_path / "flag").exists()


def test_workers_elsewhere_take_part(root: Path) -> None:
    elsewhere = FORK.Process(target=lambda: Worker(WorkQueue(root, "joblib")).run(idle=30))
    elsewhere.start()
    try:
        with joblib.parallel_config("psync", dir=root, workers=0, n_jobs=4):
            pids = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(20))
        assert set(pids) == {elsewhere.pid}
    finally:
        end(elsewhere)


def test_an_abort_leaves_nothing_to_do_and_nobody_at_it(root: Path) -> None:
    with joblib.parallel_config("psync", dir=root, n_jobs=2), pytest.raises(TypeError):
        joblib.Parallel()(joblib.delayed(time.sleep)(seconds) for seconds in [60, "no number", *[60] * 10])
    seen = WorkQueue(root, "joblib").statistics()
    assert (seen.waiting, seen.running) == (0, 0)


def test_what_can_not_be_pickled_is_an_error_wherever_it_is_found() -> None:
    with joblib.parallel_config("psync", n_jobs=2), pytest.raises((TypeError, psync.RemoteError)):
        late = [*range(50), sys.stdout, *range(50)]
        joblib.Parallel(batch_size=1)(joblib.delayed(str)(item) for item in late)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(TypeError, match="unexpected"):
        joblib.parallel_config("psync", folder="x")
    with pytest.raises(TypeError, match="unexpected"):
        joblib.Parallel(2, backend="psync", folder="x")(joblib.delayed(abs)(number) for number in range(3))


SCRIPT = """
import joblib
import psync.joblib

class Shape:
    def __init__(self, sides):
        self.sides = sides

def more(shape, by=1):
    return Shape(shape.sides + by)

if __name__ == "__main__":
    with joblib.parallel_config("psync", n_jobs=2):
        made = joblib.Parallel()(joblib.delayed(more)(Shape(number), by=2) for number in range(5))
        lambdas = joblib.Parallel()(joblib.delayed(lambda x: x + 1)(number) for number in range(3))
    print([shape.sides for shape in made], type(made[0]) is Shape, lambdas)
"""


def run(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_what_a_script_defines_travels_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run(sys.executable, "script.py", folder=tmp_path)
    assert (done.stdout, done.stderr) == ("[2, 3, 4, 5, 6] True [1, 2, 3]\n", "")


def test_a_script_without_its_guard_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    done = run(sys.executable, "script.py", folder=tmp_path)
    assert done.returncode == 1
    assert "BrokenExecutor: a worker failed before it could begin" in done.stderr
    assert '__name__ == "__main__"' in done.stderr or "__name__ == '__main__'" in done.stderr
