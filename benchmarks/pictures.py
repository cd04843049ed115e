"""The pictures of a run: bars for how many times psync is as good as others, curves for what grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import report
from benchmarks.findings import Findings
from benchmarks.harness import SUBJECT, Case
from benchmarks.headlines import Headline, headlines
from benchmarks.peers import FLOOR
from benchmarks.svg import COLOURS, INK, PALE, LogScale, Page, short

MINE = "#0b3d91"
BEHIND = "#b3b3b3"


def drawn(cases: list[Case], found: Findings) -> Iterator[tuple[str, str]]:
    """(file name, SVG) of each picture for which there is something to draw."""
    lines = list(headlines(cases, found))
    if lines:
        yield "ratios.svg", str(bars(lines, found.caption()))
    panels = list(grown(cases, found))
    if panels:
        yield "growth.svg", str(curves(panels, found.caption()))


# -- bars --------------------------------------------------------------------------------------

BAR, GAP, WORDS, LEFT, RIGHT, TOP = 13, 8, 240, 252, 170, 62


def bars(lines: list[Headline], caption: str) -> Page:
    """A group for each headline, a bar for each peer: to the right psync is ahead, to the left behind."""
    shown = [line for line in lines if line.others]
    height = TOP + sum(BAR * len(line.others) + GAP for line in shown) + 30
    page = Page(900, height)
    every = [ratio for line in shown for ratio in line.others.values()]
    least, most = (f([ratio.median for ratio in every] or [1.0]) for f in (min, max))
    scale = LogScale(min(least, 0.5) / 1.3, max(most, 10.0), LEFT, page.width - RIGHT)
    page.text(12, 22, "How many times psync is as fast (more is better)", size=16, bold=True)
    page.text(12, 40, caption, size=10, colour="#666666")
    for tick in scale.ticks():
        page.line([(scale(tick), TOP - 4), (scale(tick), height - 26)], PALE)
        page.text(scale(tick), height - 12, f"{short(tick)}×", size=10, anchor="middle")
    colours = palette(peer for line in shown for peer in line.others)
    y = float(TOP)
    for line in shown:
        page.text(WORDS, y + BAR * len(line.others) / 2 + 4, line.label, anchor="end")
        for peer, ratio in line.others.items():
            _bar(page, scale, y, peer, ratio, colours[peer])
            y += BAR
        y += GAP
    page.line([(scale(1), TOP - 4), (scale(1), height - 26)], INK, 1.2)
    return page


def _bar(page: Page, scale: LogScale, y: float, peer: str, ratio: report.Spread, colour: str) -> None:
    begin, end = sorted((scale(1), scale(ratio.median)))
    page.box(begin, y + 1, max(end - begin, 1), BAR - 3, colour if ratio.median >= 1 else BEHIND)
    middle = y + BAR / 2
    page.line([(scale(ratio.low), middle), (scale(ratio.high), middle)], INK, 0.8)
    page.text(
        max(scale(ratio.high), scale(1)) + 6, y + BAR - 3, f"{peer} {report.number(ratio.median)}", size=10, colour=INK
    )


def palette(names: Iterator[str]) -> dict[str, str]:
    """A colour for each name: psync's and the floor's are always the same."""
    others = [name for name in dict.fromkeys(names) if name not in (SUBJECT, FLOOR)]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(others)}
    return colours | {SUBJECT: MINE, FLOOR: "#999999"}


# -- curves ------------------------------------------------------------------------------------


class Panel(NamedTuple):
    """One chart: for each subject its points."""

    title: str
    unit: str
    lines: dict[str, list[tuple[int, float]]]


ACROSS, WIDE, HIGH = 3, 300, 210


def grown(cases: list[Case], found: Findings) -> Iterator[Panel]:
    """A panel for each curve that has two points at least, from the first place."""
    place = next(iter(found.about["places"]))
    for case in cases:
        for curve in dict.fromkeys(figure.curve for figure in case.figures if figure.curve):
            figures = [figure for figure in case.figures if figure.curve == curve]
            lines = {}
            for subject in (*case.peers, SUBJECT):
                seen = ((f.at, report.median(found.samples, case, place, subject, f.name)) for f in figures)
                lines[subject] = [(at, value) for at, value in seen if value]
            lines = {subject: points for subject, points in lines.items() if points}
            if any(len(points) > 1 for points in lines.values()):
                yield Panel(curve, figures[0].unit, lines)


def curves(panels: list[Panel], caption: str) -> Page:
    down = -(-len(panels) // ACROSS)
    page = Page(ACROSS * WIDE + 10, TOP + down * HIGH + 34)
    page.text(12, 22, "What happens when things grow", size=16, bold=True)
    page.text(12, 40, caption, size=10, colour="#666666")
    colours = palette(subject for panel in panels for subject in panel.lines)
    for number, panel in enumerate(panels):
        _chart(page, panel, 10 + number % ACROSS * WIDE, TOP + number // ACROSS * HIGH, colours)
    x = 14.0
    for subject in (SUBJECT, *(subject for subject in colours if subject != SUBJECT)):
        name = "floor" if subject == FLOOR else subject
        page.line([(x, page.height - 16), (x + 18, page.height - 16)], colours[subject], 2.5)
        page.text(x + 23, page.height - 12, name)
        x += 40 + 6.6 * len(name)
    return page


def _chart(page: Page, panel: Panel, x: float, y: float, colours: dict[str, str]) -> None:
    points = [point for line in panel.lines.values() for point in line]
    sizes, values = [at for at, _ in points], [value for _, value in points]
    across = LogScale(min(sizes), max(sizes), x + 42, x + WIDE - 18)
    up = LogScale(min(values) / 1.5, max(max(values) * 1.5, min(values) * 4), y + HIGH - 34, y + 20)
    page.text(x + 4, y + 10, f"{panel.title}, {panel.unit}", bold=True)
    for tick in up.ticks():
        page.line([(across.begin, up(tick)), (across.end, up(tick))], PALE)
        page.text(across.begin - 5, up(tick) + 4, short(tick), size=10, anchor="end")
    for size in sorted(set(sizes)):
        page.text(across(size), y + HIGH - 18, short(size), size=10, anchor="middle")
    for subject, line in panel.lines.items():
        places = [(across(at), up(value)) for at, value in line]
        page.line(places, colours[subject], 2.5 if subject == SUBJECT else 1.5, "4 3" if subject == FLOOR else "")
        for place in places:
            page.dot(*place, colours[subject])
