"""Runs the benchmarks: ``python -m benchmarks [--quick] [--fs tmpfs,ext4,DIR] [question ...]``."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import random
import shutil
import signal
import sys
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from benchmarks import report, targets
from benchmarks.harness import SUBJECT, Case, measure
from benchmarks.peers import SERVERS, missing
from benchmarks.places import Place, opened

QUESTIONS = ("store", "category", "wake", "queues", "barrier", "locks", "startup", "floor")
DISTRIBUTIONS = (
    "psync", "pickleshare", "filelock", "psutil", "diskcache", "huey", "redis", "persist-queue", "dirq", "fasteners",
    "torch",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast psync is beside its peers.")
    parser.add_argument("question", nargs="*", help=f"{', '.join(QUESTIONS)}, or a case, as store.small; default: all")
    parser.add_argument("--quick", action="store_true", help="under two minutes: fewer rounds, only peers of the goals")
    parser.add_argument("--fs", default="tmpfs,ext4", help="tmpfs, ext4 (an image, needs root), directories; commas")
    parser.add_argument("--rounds", type=int, help="how often each case is measured for each subject")
    return parser.parse_args(arguments)


def chosen(words: list[str]) -> list[Case]:
    """The cases that the command line names."""
    cases = [case for question in QUESTIONS for case in importlib.import_module(f"benchmarks.{question}").CASES]
    for word in words:
        if not any(word in (case.question, case.id) for case in cases):
            raise SystemExit(f"no question {word!r}; there are: {', '.join(case.id for case in cases)}")
    return [case for case in cases if not words or case.question in words or case.id in words]


class Run:
    """All measurements of one command: what was had, what was left out and why."""

    def __init__(self, options: argparse.Namespace, log: TextIO) -> None:
        self.options = options
        self.log = log
        self.samples: report.Samples = {}
        self.left_out: dict[str, None] = {}
        self.chance = random.Random()

    def subjects(self, case: Case) -> list[str]:
        peers = case.peers
        if self.options.quick:
            wanted = targets.peers_wanted(case.question, {figure.name for figure in case.figures})
            peers = tuple(peer for peer in peers if peer in wanted or peer == "plain")
        present = []
        for subject in (SUBJECT, *peers):
            reason = missing(subject)
            if reason is None:
                present.append(subject)
            else:
                self.left_out[f"{subject} is left out: {reason}"] = None
        return present

    def case(self, case: Case, place: Place) -> None:
        """Round after round, every subject once, in an order that changes."""
        rounds = self.options.rounds or (case.quick_rounds if self.options.quick else case.rounds)
        subjects = self.subjects(case)
        home = os.path.join(place.path, case.id)
        began = time.monotonic()
        for turn in range(rounds):
            self.chance.shuffle(subjects)
            for subject in list(subjects):
                kept = os.path.join(home, "kept" if case.shared else f"kept {subject}")
                folder = os.path.join(home, f"{subject} {turn}")
                for path in (kept, folder):
                    os.makedirs(path, mode=0o700, exist_ok=True)
                try:
                    figures = measure(case, subject, folder, kept, self.options.quick)
                except RuntimeError as reason:
                    self.left_out[f"{subject} failed in {case.id} on {place.name}: {reason}"] = None
                    subjects.remove(subject)
                    continue
                finally:
                    shutil.rmtree(folder)
                self.samples.setdefault((case.id, place.name, subject), {})[turn] = figures
                line = {"case": case.id, "place": place.name, "subject": subject, "round": turn, "figures": figures}
                print(json.dumps(line), file=self.log, flush=True)
        shutil.rmtree(home)
        print(f"{case.id} on {place.name}: {time.monotonic() - began:.1f} s", file=sys.stderr)


def about() -> dict[str, Any]:
    """What the numbers depend on."""
    versions = {}
    for name in DISTRIBUTIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that the image is unmounted and the server ended


def main() -> int:
    options = parse()
    cases = chosen(options.question)
    signal.signal(signal.SIGTERM, stop)
    facts = about()
    with ExitStack() as stack:
        places, left_out = stack.enter_context(opened(options.fs.split(",")))
        log = stack.enter_context((RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}.jsonl").open("w"))
        print(json.dumps(facts), file=log, flush=True)
        run = Run(options, log)
        run.left_out.update(dict.fromkeys(left_out))
        if any(peer in SERVERS for case in cases for peer in run.subjects(case)):
            stack.enter_context(importlib.import_module("benchmarks.peers.redis").server())
        for case in cases:
            for place in places[:1] if not case.disk else places:
                if place is places[0] or not options.quick or case.quick_disk:
                    run.case(case, place)
    names = [place.name for place in places]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts["versions"].items()))
    print(f"Python {facts['python']}, {facts['system']}, {facts['processors']} processors, {versions}.\n")
    print("Medians; in square brackets how many times psync is as good as that peer, from the worst round to the best.")
    for line in (*report.tables(cases, names, run.samples), *report.verdicts(cases, names, run.samples)):
        print(line)
    for line in run.left_out:
        print(f"\n{line}")
    return int(any(line.startswith(f"{SUBJECT} failed") for line in run.left_out))


if __name__ == "__main__":
    sys.exit(main())
