"""The table in the README, which is what the kept full run found."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.findings import Findings
from benchmarks.harness import Case
from benchmarks.headlines import headlines
from benchmarks.report import number

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- what the benchmarks say -->", "<!-- until here -->"


def table(cases: list[Case], found: Findings) -> str:
    """A row for each headline: psync's figure, the floor's, and how many times psync is as good as each peer."""
    lines = [f"{found.caption()}:", "", "| | psync | floor | how many times psync is as good |", "|---|---|---|---|"]
    for line in headlines(cases, found):
        others = ", ".join(f"{peer} {_emphasised(ratio.median)}" for peer, ratio in line.others.items())
        unit = line.figure.unit if line.figure.unit.startswith("/") else f" {line.figure.unit}"
        floor = "" if line.floor is None else f"{number(line.floor)}{unit}"
        lines.append(f"| {line.label} | {number(line.ours)}{unit} | {floor} | {others} |")
    return "\n".join(lines)


def _emphasised(ratio: float) -> str:
    """Where psync is behind, that leaps to the eye."""
    return number(ratio) if ratio >= 1 else f"**{number(ratio)}**"


def update(cases: list[Case], found: Findings, path: Path = README) -> None:
    """Replace what stands between the two marks."""
    text = path.read_text(encoding="utf-8")
    new = f"{BEGIN}\n\n{table(cases, found)}\n\n{END}"
    path.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: new, text, flags=re.DOTALL), encoding="utf-8")
