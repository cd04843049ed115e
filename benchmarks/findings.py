"""What a run found and what it depends on, kept as JSON lines: what it was measured on, then a line per measurement."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import SUBJECT
from benchmarks.places import Place

DISTRIBUTIONS = (
    "psync", "pickleshare", "filelock", "psutil", "diskcache", "sqlitedict", "lmdb", "redis", "huey", "dirq",
    "persist-queue", "fasteners", "joblib", "dask", "torch",
)  # fmt: skip
Samples = dict[tuple[str, str, str], dict[int, dict[str, float]]]
"""(case id, place, subject) -> round -> figure name -> number."""


class Findings:
    """The measurements of one run; each is appended to `path`, if there is one, as soon as it is there."""

    def __init__(self, about: dict[str, Any], path: Path | None = None) -> None:
        self.about = about
        self.samples: Samples = {}
        self.left_out: dict[str, None] = {}
        self._path = path
        if path:
            path.write_text(json.dumps(about) + "\n")

    def add(self, case: str, place: str, subject: str, turn: int, figures: dict[str, float]) -> None:
        rounded = {name: float(f"{value:.5g}") for name, value in figures.items()}  # drawn now as from the file later
        self.samples.setdefault((case, place, subject), {})[turn] = rounded
        self._append({"case": case, "place": place, "subject": subject, "round": turn, "figures": rounded})

    def leave_out(self, sentence: str) -> None:
        if sentence not in self.left_out:
            self.left_out[sentence] = None
            self._append({"left out": sentence})

    def _append(self, line: dict[str, Any]) -> None:
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    @property
    def failed(self) -> bool:
        """Whether psync itself could not be measured somewhere."""
        return any(sentence.startswith(f"{SUBJECT} failed") for sentence in self.left_out)

    def rounds(self) -> int:
        """The most that anything was measured."""
        return max((len(turns) for turns in self.samples.values()), default=0)

    def caption(self) -> str:
        """Where and when, in a line."""
        about = self.about
        kinds = ", ".join(name if name == kind else f"{name} ({kind})" for name, kind in about["places"].items())
        return (
            f"{about['when'][:10]}, {about['machine']}, {about['processors']} processors, {about['system']}, "
            f"Python {about['python']}, on {kinds}, load {about['load']:.1f} at first, up to {self.rounds()} rounds"
        )

    def versions(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in self.about["versions"].items())


def read(path: Path) -> Findings:
    """What an earlier run found."""
    about, *lines = map(json.loads, path.read_text().splitlines())
    found = Findings(about)
    for line in lines:
        if "left out" in line:
            found.leave_out(line["left out"])
        else:
            found.add(line["case"], line["place"], line["subject"], line["round"], line["figures"])
    return found


def about(places: Sequence[Place]) -> dict[str, Any]:
    """What the numbers depend on."""
    versions = {}
    for name in DISTRIBUTIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GB",
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "places": {place.name: place.kind for place in places},
        "versions": versions,
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
