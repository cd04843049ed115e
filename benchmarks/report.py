"""What a run says: a table of figures per question and place, and a line per goal, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.harness import SUBJECT, Case, Figure
from benchmarks.targets import GOALS, Goal

Samples = dict[tuple[str, str, str], dict[int, dict[str, float]]]
"""(case id, place, subject) -> round -> figure name -> number."""


class Spread(NamedTuple):
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


def number(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Iterable[float]) -> Spread | None:
    """Median and extremes; None of nothing."""
    values = list(values)
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def ratios(samples: Samples, case: Case, place: str, figure: Figure, peer: str) -> Spread | None:
    """How many times psync is as good as `peer`, each round by itself: what disturbed a round disturbed both."""
    ours, theirs = (column(samples, case, place, subject, figure) for subject in (SUBJECT, peer))
    pairs = [(ours[turn], theirs[turn]) for turn in ours if turn in theirs]
    return spread((mine / other if figure.more else other / mine) for mine, other in pairs if mine and other)


def column(samples: Samples, case: Case, place: str, subject: str, figure: Figure) -> dict[int, float]:
    """Round -> number."""
    rounds = samples.get((case.id, place, subject), {})
    return {turn: figures[figure.name] for turn, figures in rounds.items() if figure.name in figures}


def tables(cases: list[Case], places: list[str], samples: Samples) -> Iterator[str]:
    """One table per question and place: medians, and in brackets how many times psync is as good."""
    for question in dict.fromkeys(case.question for case in cases):
        for place in places:
            mine = [case for case in cases if case.question == question]
            ids = {case.id for case in mine}
            present = {subject for case_id, where, subject in samples if where == place and case_id in ids}
            if not present:
                continue
            columns = [SUBJECT, *dict.fromkeys(peer for case in mine for peer in case.peers if peer in present)]
            yield f"\n### {question} on {place}\n"
            yield "| | " + " | ".join(columns) + " |"
            yield "|---" * (len(columns) + 1) + "|"
            for case in mine:
                for figure in case.figures:
                    yield from _row(samples, case, place, figure, columns)


def _row(samples: Samples, case: Case, place: str, figure: Figure, columns: list[str]) -> Iterator[str]:
    cells = []
    for subject in columns:
        seen = spread(column(samples, case, place, subject, figure).values())
        if seen is None:
            cells.append("")
            continue
        ratio = None if subject == SUBJECT or figure.more is None else ratios(samples, case, place, figure, subject)
        cells.append(number(seen.median) + (f" [x {ratio}]" if ratio else ""))
    if any(cells):
        yield f"| {figure.name}{', ' + figure.unit if figure.unit else ''} | " + " | ".join(cells) + " |"


def verdicts(cases: list[Case], places: list[str], samples: Samples) -> Iterator[str]:
    """A line per goal and place it was measured on."""
    yield "\n### Goals\n"
    yield "| question | on | wanted | got | |"
    yield "|---|---|---|---|---|"
    for goal in GOALS:
        for case in cases:
            figure = next((f for f in case.figures if f.name == goal.figure), None)
            if case.question != goal.question or figure is None:
                continue
            for place in places:
                if goal.place in (None, place):
                    yield from _verdict(goal, case, figure, place, samples)


def _verdict(goal: Goal, case: Case, figure: Figure, place: str, samples: Samples) -> Iterator[str]:
    if goal.peer:
        got = ratios(samples, case, place, figure, goal.peer)
        reached = got is not None and got.median >= goal.better
    else:
        rounds = samples.get((case.id, place, SUBJECT), {}).values()
        seen = (figures for figures in rounds if figure.name in figures)
        got = spread(figures[figure.name] / (figures[goal.base] if goal.base else 1) for figures in seen)
        reached = got is not None and got.median <= goal.most
    if got is not None:
        plain = goal.peer is None and goal.base is None
        wanted = f"{goal.wanted} {figure.unit}" if plain else goal.wanted
        answer = "reached" if reached else "**not reached**"
        yield f"| {goal.figure} | {place} | {wanted} | {got} {figure.unit if plain else 'x'} | {answer} |"
