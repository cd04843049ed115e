"""What a run says: a table of figures per question and place, and a line per goal, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.findings import Findings, Samples
from benchmarks.harness import P99, PEAK, SUBJECT, Case, Figure
from benchmarks.peers import FLOOR
from benchmarks.targets import GOALS, Goal

HOW_TO_READ = f"""\
Medians, and in round brackets the time that 99 of 100 operations stay below. In square brackets how many times psync is
as good as that peer, and from its worst round to its best; more than 1 is better. In the column *floor*, the same
system calls from plain Python with no check around them, they say how many times the floor psync takes. *{PEAK.name}*
is of the hungriest process."""


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
    ours, theirs = (column(samples, case, place, subject, figure.name) for subject in (SUBJECT, peer))
    pairs = [(ours[turn], theirs[turn]) for turn in ours if turn in theirs]
    return spread((mine / other if figure.more else other / mine) for mine, other in pairs if mine and other)


def column(samples: Samples, case: Case, place: str, subject: str, figure: str) -> dict[int, float]:
    """Round -> number."""
    rounds = samples.get((case.id, place, subject), {})
    return {turn: figures[figure] for turn, figures in rounds.items() if figure in figures}


def median(samples: Samples, case: Case, place: str, subject: str, figure: str) -> float | None:
    numbers = column(samples, case, place, subject, figure).values()
    return statistics.median(numbers) if numbers else None


def page(cases: list[Case], found: Findings) -> str:
    """All that a run says."""
    lines = [f"# psync {found.about['versions']['psync']} beside its peers", "", f"{found.caption()}.", ""]
    lines += [f"{found.versions()}.", "", HOW_TO_READ]
    places = list(found.about["places"])
    lines += [*tables(cases, places, found.samples), *verdicts(cases, places, found.samples)]
    lines += ["", *(f"- {sentence}" for sentence in found.left_out)]
    return "\n".join(lines).rstrip() + "\n"


def tables(cases: list[Case], places: list[str], samples: Samples) -> Iterator[str]:
    """One table per question and place."""
    for question in dict.fromkeys(case.question for case in cases):
        for place in places:
            mine = [case for case in cases if case.question == question]
            ids = {case.id for case in mine}
            present = {subject for case_id, where, subject in samples if where == place and case_id in ids}
            if not present:
                continue
            peers = dict.fromkeys(peer for case in mine for peer in case.peers if peer in present)
            subjects = sorted([SUBJECT, *peers], key=lambda subject: (subject != SUBJECT, subject != FLOOR))
            yield f"\n## {question} on {place}\n"
            yield "| | " + " | ".join("floor" if subject == FLOOR else subject for subject in subjects) + " |"
            yield "|---" * (len(subjects) + 1) + "|"
            for case in mine:
                for figure in (*case.figures, PEAK._replace(name=f"{PEAK.name} of {case.name}")):
                    yield from _row(samples, case, place, figure, subjects)


def _row(samples: Samples, case: Case, place: str, figure: Figure, subjects: list[str]) -> Iterator[str]:
    name = PEAK.name if figure.name.startswith(PEAK.name) else figure.name
    cells = [_cell(samples, case, place, figure._replace(name=name), subject) for subject in subjects]
    if any(cells):
        yield f"| {figure.name}{', ' + figure.unit if figure.unit else ''} | " + " | ".join(cells) + " |"


def _cell(samples: Samples, case: Case, place: str, figure: Figure, subject: str) -> str:
    seen = median(samples, case, place, subject, figure.name)
    if seen is None:
        return ""
    text = number(seen)
    p99 = median(samples, case, place, subject, f"{figure.name}{P99}")
    if p99 is not None:
        text += f" ({number(p99)})"
    ratio = None if subject == SUBJECT or figure.more is None else ratios(samples, case, place, figure, subject)
    if ratio is None:
        return text
    if subject == FLOOR:
        ratio = Spread(1 / ratio.median, 1 / ratio.high, 1 / ratio.low)
    return f"{text} [x {ratio}]"


def verdicts(cases: list[Case], places: list[str], samples: Samples) -> Iterator[str]:
    """A line per goal and place it was measured on."""
    yield "\n## Goals\n"
    yield "| figure | on | wanted | got | |"
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
