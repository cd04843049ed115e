"""The few figures that stand for the rest: the bars of the picture, and the table in the README."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import report
from benchmarks.findings import Findings
from benchmarks.harness import SUBJECT, Case, Figure
from benchmarks.peers import FLOOR

HEADLINES = (
    ("store", "overwrite 100 B", "write a value"),
    ("store", "fresh get 100 B", "read a value"),
    ("store", "unchanged get 100 B", "read it again"),
    ("store", "1 MB set", "write 1 MB"),
    ("store", "keys() at 10k", "list 10,000 keys"),
    ("store", "modify of one key by 4 processes", "count up one key, by 4 processes"),
    ("category", "hset at 10k items", "one more item in a category of 10,000"),
    ("category", "hdict of 100k after hcompress", "read a category of 100,000"),
    ("wake", "wake, median", "wake who waits for a value"),
    ("wake", "set to wake, median", "wake who waits for an event"),
    ("barrier", "round of 8", "a round of a barrier of 8"),
    ("queues", "put", "put a job"),
    ("queues", "get and done", "get a job and say it is done"),
    ("queues", "1 producer, 4 consumers", "jobs a second, 4 consumers"),
    ("queues", "1 producer, 4 consumers, in a loop", "the same, looping over the queue"),
    ("fan_out", "a call submitted, 4 workers", "a call submitted to 4 workers"),
    ("fan_out", "a call mapped, 4 workers", "a call mapped to 4 workers"),
    ("locks", "lock pair", "take and release a lock"),
    ("locks", "lock by 4 processes", "lock wanted by 4 processes"),
    ("startup", "import, store in hand", "import until there is a store"),
)


class Headline(NamedTuple):
    label: str
    figure: Figure
    ours: float
    floor: float | None
    others: dict[str, report.Spread]
    """Peer -> how many times psync is as good, the least first."""


def headlines(cases: list[Case], found: Findings) -> Iterator[Headline]:
    """Those that were measured, on the first place."""
    place = next(iter(found.about["places"]))
    for question, name, label in HEADLINES:
        for case in cases:
            figure = next((figure for figure in case.figures if figure.name == name), None)
            ours = report.median(found.samples, case, place, SUBJECT, name)
            if case.question != question or figure is None or ours is None:
                continue
            ratios = {peer: report.ratios(found.samples, case, place, figure, peer) for peer in case.peers}
            others = {peer: ratio for peer, ratio in ratios.items() if ratio and peer != FLOOR}
            others = dict(sorted(others.items(), key=lambda item: item[1].median))
            floor = report.median(found.samples, case, place, FLOOR, name)
            yield Headline(label, figure, ours, floor, others)
