"""Runs the benchmarks: ``python -m benchmarks [--quick] [--fs tmpfs,disk,ext4,DIR] [question ...]``."""

from __future__ import annotations

import argparse
import compileall
import importlib
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from benchmarks import findings, pictures, readme, report
from benchmarks.harness import ROOT, Case
from benchmarks.peers import SERVERS
from benchmarks.places import opened
from benchmarks.run import Run

QUESTIONS = (
    "store",
    "category",
    "wake",
    "barrier",
    "queues",
    "fan_out",
    "locks",
    "durability",
    "startup",
    "growth",
)
KEPT = Path(__file__).parent / "results"
LINES, TABLE = "run.jsonl", "table.md"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast psync is beside its peers.")
    parser.add_argument("question", nargs="*", help=f"{', '.join(QUESTIONS)}, or a case, as store.small; default: all")
    parser.add_argument("--quick", action="store_true", help="under two minutes: fewer rounds, only peers of the goals")
    parser.add_argument("--fs", default="tmpfs,ext4", help="tmpfs, disk, ext4 (an image, needs root), folders; commas")
    parser.add_argument("--rounds", type=int, help="how often each case is measured for each subject, at most")
    parser.add_argument("--minutes", type=float, help="no round of a case begins that would end later; 12, quick: 1.7")
    parser.add_argument("--into", type=Path, help=f"the folder for the results; {KEPT.name}/full, quick or some here")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: table and pictures from what is there")
    parser.add_argument("--readme", action="store_true", help="put what the full run found into README.md")
    return parser.parse_args(arguments)


def chosen(words: list[str]) -> list[Case]:
    """The cases that the command line names."""
    cases = [case for question in QUESTIONS for case in importlib.import_module(f"benchmarks.{question}").CASES]
    for word in words:
        if not any(word in (case.question, case.id) for case in cases):
            raise SystemExit(f"no question {word!r}; there are: {', '.join(case.id for case in cases)}")
    return [case for case in cases if not words or case.question in words or case.id in words]


def measured(options: argparse.Namespace, cases: list[Case], folder: Path) -> findings.Findings:
    compileall.compile_dir(ROOT / "psync", quiet=1)  # as what is installed has it, whatever the environment says
    with ExitStack() as stack:
        places, left_out = stack.enter_context(opened(options.fs.split(",")))
        found = findings.Findings(findings.about(places), folder / LINES)
        for sentence in left_out:
            found.leave_out(sentence)
        run = Run(cases, places, found, quick=options.quick, rounds=options.rounds)
        if any(peer in SERVERS for case in cases for peer in run.subjects(case)):
            stack.enter_context(importlib.import_module("benchmarks.peers.redis").server())
        run.go(options.minutes or (1.7 if options.quick else 12))
    return found


def stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that the image is unmounted and the server ended


def main() -> int:
    options = parse()
    cases = chosen(options.question)
    signal.signal(signal.SIGTERM, stop)
    folder = options.into or KEPT / ("some" if options.question else "quick" if options.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    found = findings.read(folder / LINES) if options.redraw else measured(options, cases, folder)
    table = report.page(cases, found)
    (folder / TABLE).write_text(table, encoding="utf-8")
    for name, picture in pictures.drawn(cases, found):
        (folder / name).write_text(picture, encoding="utf-8")
    if options.readme:
        readme.update(cases, found)
    shutil.copyfileobj((folder / TABLE).open(), sys.stdout)
    return int(found.failed)


if __name__ == "__main__":
    sys.exit(main())
