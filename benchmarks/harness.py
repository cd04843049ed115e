"""One measurement: a fresh process that times one case for one subject and prints its figures.

The parent calls `measure`; the child runs this file as ``python -m benchmarks.harness`` with what to do as JSON in its
only argument, and prints the figures as JSON on its last line. `PYTHONHASHSEED` is fixed because PickleShare's hashed
categories of string keys do not work across processes otherwise.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SUBJECT = "psync"
P99 = ", p99"
"""Behind the name of a figure: what 99 of 100 operations stay below."""
DEADLINE, QUICK_DEADLINE = 120.0, 20.0
"""Seconds after which a measurement is ended; hardly one takes a tenth of that on an idle machine."""

fork = multiprocessing.get_context("fork")


class Figure(NamedTuple):
    """One number that a case yields: its name, its unit, and which way is better (None: it is only looked at)."""

    name: str
    unit: str
    more: bool | None = False
    curve: str = ""
    """The curve that it is a point of, and where: the picture of what grows."""
    at: int = 0


PEAK = Figure("peak memory", "MB")
"""What every case tells besides: the most that the process, or one of those it started, ever had in memory."""


class Pace(NamedTuple):
    """Seconds that an operation takes."""

    median: float
    p99: float

    def figures(self, name: str, scale: float = 1e6) -> dict[str, float]:
        """Under `name`, in microseconds (or the unit that `scale` says); tables find the other beside it."""
        return {name: scale * self.median, f"{name}{P99}": scale * self.p99}


@dataclass(frozen=True)
class Case:
    """Figures that one process yields for one subject, and who is measured beside psync."""

    question: str
    name: str
    run: Callable[[Bench], dict[str, float]]
    figures: tuple[Figure, ...]
    peers: tuple[str, ...] = ()
    rounds: int = 7
    quick_rounds: int = 2
    quick_disk: bool = False
    """Also on the slower places in a quick run."""
    disk: bool = True
    """False: the first place is enough, as no file is involved, or all that can be asked, as a million are."""

    shared: bool = False
    """All subjects use the same fixtures."""

    @property
    def id(self) -> str:
        return f"{self.question}.{self.name}"


@dataclass(frozen=True)
class Bench:
    """What a case needs: the subject's adapter, an empty folder, one that stays for all rounds, and how much to do."""

    peer: ModuleType
    folder: str
    kept: str
    quick: bool

    def few(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def fresh(self, name: str) -> str:
        """A new empty folder for a store."""
        path = os.path.join(self.folder, name)
        os.mkdir(path, 0o700)
        return path

    def fixture(self, name: str, build: Callable[[str], None]) -> str:
        """A folder that `build` filled once for all rounds, in a process of its own: nothing of it stays warm here."""
        path = os.path.join(self.kept, name)
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
            crowd(1, lambda gate: build(path))
        return path


def per_item(operation: Callable[..., object], items: Sequence[tuple[Any, ...]], batches: int = 9) -> float:
    """Seconds per call of `operation(*item)`: the median over batches, so that a burst of other work falls out."""
    size = max(1, len(items) // batches)
    took = []
    for start in range(0, size * min(batches, len(items)), size):
        batch = items[start : start + size]
        began = time.perf_counter()
        for item in batch:
            operation(*item)
        took.append((time.perf_counter() - began) / len(batch))
    return statistics.median(took)


def pace(operation: Callable[..., object], items: Sequence[tuple[Any, ...]], batches: int = 9) -> Pace:
    """What `per_item` says of every second batch, which is timed as a whole, and the 99th of a hundred single calls
    of the others: to look at the clock costs as much as a short operation."""
    size = max(1, len(items) // batches)
    wholes, singles = [], []
    for start in range(0, size * min(batches, len(items)), size):
        batch = items[start : start + size]
        if start // size % 2 == 0:
            wholes.append(per_item(operation, batch, batches=1))
        else:
            singles += [once(operation, *item) for item in batch]
    return Pace(statistics.median(wholes), sorted(singles)[len(singles) * 99 // 100] if singles else wholes[0])


def once(operation: Callable[..., object], *arguments: Any) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    operation(*arguments)
    return time.perf_counter() - began


def crowd(count: int, work: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
    """`work(gate, ...)` in `count` processes at once; each calls `gate()` when it is ready to be timed."""
    barrier = fork.Barrier(count)
    links, processes = [], []
    for each in zip(*arguments, strict=True) if arguments else [()] * count:
        mine, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=_member, args=(theirs, barrier.wait, work, each))
        process.start()
        theirs.close()
        links.append(mine)
        processes.append(process)
    try:
        answers = [link.recv() for link in links]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    failed = [error for ok, error in answers if not ok]
    if failed:
        raise RuntimeError(failed[0])
    return [answer for _, answer in answers]


def idle_cpu(wait: Callable[[], object], seconds: float) -> float:
    """Milliseconds of processor time in a second that a process needs to be in `wait`, which does not return."""
    process = fork.Process(target=wait)
    process.start()
    time.sleep(0.5)  # what the first wait sets up is not the question
    used, began = _processor_time(process.pid), time.monotonic()
    time.sleep(seconds)
    took, alive = time.monotonic() - began, process.is_alive()
    used = _processor_time(process.pid) - used if alive else 0.0
    process.kill()
    process.join()
    if not alive:
        raise AssertionError("it did not wait")
    return 1e3 * used / took


def _processor_time(pid: int | None) -> float:
    """Seconds of all threads, as the scheduler counts them: in nanoseconds, not in ticks of 10 ms."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _peak() -> float:
    """Megabytes. Of itself from the kernel's high-water mark: `ru_maxrss` remembers the process that started this."""
    status = Path("/proc/self/status").read_text()
    mine = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return max(mine, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def _member(link: Connection, gate: Callable[[], object], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        link.send((True, work(gate, *arguments)))
    except BaseException as error:  # told to the parent, which raises
        link.send((False, f"{type(error).__name__}: {error}"))


def measure(case: Case, subject: str, folder: str, kept: str, quick: bool) -> dict[str, float]:
    """The figures of `case` for `subject`, from a fresh process; RuntimeError with its last words if it fails."""
    order = {"case": case.id, "subject": subject, "folder": folder, "kept": kept, "quick": quick}
    environment = dict(os.environ, PYTHONHASHSEED="0")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.harness", json.dumps(order)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    deadline = QUICK_DEADLINE if quick else DEADLINE
    try:
        said, complained = child.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {deadline:.0f} s") from None
    finally:
        _end(child)
    if child.returncode:
        raise RuntimeError((complained.strip().splitlines() or [f"ended with {child.returncode}"])[-1])
    figures: dict[str, float] = json.loads(said.splitlines()[-1])
    return figures


def _end(child: subprocess.Popen[str]) -> None:
    """End the child with all it started: its session's group has its own number."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def find(case_id: str) -> Case:
    question, _, name = case_id.partition(".")
    cases: tuple[Case, ...] = importlib.import_module(f"benchmarks.{question}").CASES
    return next(case for case in cases if case.name == name)


def main(order: dict[str, Any]) -> None:
    peer = importlib.import_module(f"benchmarks.peers.{order['subject']}")
    if hasattr(peer, "clean"):
        peer.clean()
    bench = Bench(peer, order["folder"], order["kept"], order["quick"])
    figures = find(order["case"]).run(bench)
    print()
    print(json.dumps(figures | {PEAK.name: _peak()}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
