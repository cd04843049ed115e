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
DEADLINE = 180.0
"""Seconds after which a measurement is ended; none takes a tenth of that on an idle machine."""

fork = multiprocessing.get_context("fork")


class Figure(NamedTuple):
    """One number that a case yields: its name, its unit, and which way is better (None: it is only looked at)."""

    name: str
    unit: str
    more: bool | None = False


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
    """False: no file is involved, so one place is enough."""

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
    try:
        said, complained = child.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {DEADLINE:.0f} s") from None
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
    print(json.dumps(figures))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
