"""All measurements of one command: round after round, cases and subjects in an order that changes, until time is up."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks import targets
from benchmarks.findings import Findings
from benchmarks.harness import SUBJECT, Case, measure
from benchmarks.peers import FLOOR, missing
from benchmarks.places import Place

Block = tuple[Case, Place]
"""One case on one place: its subjects are measured one right after the other, so each round has its own ratios."""


class Run:
    """Measures `cases` on `places` into `found`.

    The first round is every block once, those on the first place before others. A later one leaves out those that have
    had all their rounds, and those that would not be done before `minutes` are over, if they took as long as last time.
    """

    def __init__(
        self, cases: Sequence[Case], places: Sequence[Place], found: Findings, *, quick: bool, rounds: int | None
    ) -> None:
        self.cases = cases
        self.places = places
        self.found = found
        self.quick = quick
        self.rounds = rounds
        self.chance = random.Random()
        self.took: dict[tuple[str, str], float] = {}
        self.failed: set[tuple[str, str, str]] = set()
        """(case, place, subject) that are not tried again."""

    def go(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        deadline = clock() + 60 * minutes
        blocks = self.blocks()
        for turn in range(max((self.turns(case) for case, _ in blocks), default=0)):
            self.chance.shuffle(blocks)
            if turn == 0:  # what takes long, and is measured in one place only, after what there is to compare
                blocks.sort(key=lambda block: (self.places.index(block[1]), not block[0].disk))
            for case, place in blocks:
                if turn >= self.turns(case):
                    continue
                began = clock()
                if began + self.took.get((case.id, place.name), 0.0) > deadline:
                    if turn == 0:
                        self.found.leave_out(f"{case.id} on {place.name} is left out: the time was up")
                    continue
                self.block(case, place, turn)
                self.took[case.id, place.name] = clock() - began
                if turn == self.turns(case) - 1:
                    shutil.rmtree(os.path.join(place.path, case.id))
                print(f"round {turn + 1}: {case.id} on {place.name}: {clock() - began:.1f} s", file=sys.stderr)

    def blocks(self) -> list[Block]:
        """Every case on every place that tells something about it."""
        return [
            (case, place)
            for case in self.cases
            for place in (self.places if case.disk else self.places[:1])
            if place is self.places[0] or not self.quick or case.quick_disk
        ]

    def turns(self, case: Case) -> int:
        return self.rounds or (case.quick_rounds if self.quick else case.rounds)

    def subjects(self, case: Case) -> list[str]:
        """psync and those beside it; in a quick run only those of whom a goal speaks, and the floor."""
        peers = case.peers
        if self.quick:
            wanted = targets.peers_wanted(case.question, {figure.name for figure in case.figures}) | {FLOOR}
            peers = tuple(peer for peer in peers if peer in wanted)
        present = []
        for subject in (SUBJECT, *peers):
            reason = missing(subject)
            if reason is None:
                present.append(subject)
            else:
                self.found.leave_out(f"{subject} is left out: {reason}")
        return present

    def block(self, case: Case, place: Place, turn: int) -> None:
        """Every subject once, each in a fresh process and an empty folder."""
        home = os.path.join(place.path, case.id)
        subjects = self.subjects(case)
        self.chance.shuffle(subjects)
        for subject in subjects:
            if (case.id, place.name, subject) in self.failed:
                continue
            kept = os.path.join(home, "kept" if case.shared else f"kept {subject}")
            folder = os.path.join(home, f"{subject} {turn}")
            for path in (kept, folder):
                os.makedirs(path, mode=0o700, exist_ok=True)
            try:
                figures = measure(case, subject, folder, kept, self.quick)
            except RuntimeError as reason:
                self.failed.add((case.id, place.name, subject))
                self.found.leave_out(f"{subject} failed in {case.id} on {place.name}: {reason}")
            else:
                self.found.add(case.id, place.name, subject, turn, figures)
            finally:
                shutil.rmtree(folder)
