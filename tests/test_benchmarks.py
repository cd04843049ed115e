"""The benchmarks ask what they say they ask, and the README shows what they found."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import findings, readme, targets
from benchmarks.__main__ import KEPT, LINES, QUESTIONS, chosen
from benchmarks.harness import Case, Figure, Pace, idle_cpu, pace, per_item
from benchmarks.peers import NEEDS
from benchmarks.places import Place
from benchmarks.report import ratios
from benchmarks.run import Run

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CASES = chosen([])


def test_every_file_that_has_cases_is_a_question() -> None:
    files = {path.stem for path in BENCHMARKS.glob("*.py") if "\nCASES = " in path.read_text(encoding="utf-8")}
    assert files == set(QUESTIONS)


def test_every_peer_has_an_adapter_and_every_adapter_says_what_it_needs() -> None:
    adapters = {path.stem for path in (BENCHMARKS / "peers").glob("*.py")} - {"__init__"}
    assert {peer for case in CASES for peer in case.peers} <= set(NEEDS)
    assert adapters == set(NEEDS)


def test_every_goal_speaks_of_figures_that_are_measured_beside_that_peer() -> None:
    for goal in targets.GOALS:
        case = next(case for case in CASES if goal.figure in {figure.name for figure in case.figures})
        assert goal.question == case.question
        assert goal.peer is None or goal.peer in case.peers
        assert goal.base is None or goal.base in {figure.name for figure in case.figures}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a short run of one case."""
    folder = tmp_path_factory.mktemp("run")
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "2", "--fs", str(folder)]
    command += ["--into", str(folder / "results"), "locks.lock"]
    subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True, timeout=120)
    return folder / "results"


def test_a_run_keeps_what_it_measured_and_where(run: Path) -> None:
    about, *lines = map(json.loads, (run / LINES).read_text().splitlines())
    assert {"when", "machine", "system", "python", "places", "versions"} <= set(about)
    assert about["versions"]["psync"]
    mine = [line for line in lines if line.get("subject") == "psync"]
    assert [line["round"] for line in mine] == [0, 1]
    assert all(line["figures"]["lock pair"] > 0 < line["figures"]["lock pair, p99"] for line in mine)
    assert all(5 < line["figures"]["peak memory"] < 500 for line in mine)


def test_a_run_makes_a_table_with_the_floor_and_what_was_left_out(run: Path) -> None:
    table = (run / "table.md").read_text(encoding="utf-8")
    assert "| psync | floor |" in table
    assert "lock pair, µs" in table
    missing = [peer for peer in ("fasteners", "diskcache") if importlib.util.find_spec(peer) is None]
    assert all(f"{peer} is left out" in table for peer in missing)


def test_a_run_draws_its_ratios(run: Path) -> None:
    picture = ElementTree.fromstring((run / "ratios.svg").read_text(encoding="utf-8"))
    words = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert "take and release a lock" in words
    assert any(word and word.startswith("filelock ") for word in words)


def test_what_was_kept_is_read_as_it_was(run: Path) -> None:
    found = findings.read(run / LINES)
    (case,) = chosen(["locks.lock"])
    (place,) = found.about["places"]
    ratio = ratios(found.samples, case, place, case.figures[0], "filelock")
    assert ratio is not None
    assert ratio.median > 1


def test_a_round_does_not_begin_that_would_end_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    measured: list[str] = []

    def took(run: Run, case: Case, place: Place, turn: int) -> None:
        (tmp_path / case.id).mkdir(exist_ok=True)
        measured.append(case.name)
        now[0] += 50 if case.name == "long" else 10

    monkeypatch.setattr(Run, "block", took)
    cases = [Case("store", name, lambda bench: {}, (Figure("f", ""),), rounds=3) for name in ("long", "short")]
    found = findings.Findings({"places": {}})
    place = Place("here", str(tmp_path), "tmpfs")
    Run(cases, [place], found, quick=False, rounds=None).go(minutes=1.5, clock=lambda: now[0])
    assert sorted(measured) == ["long", "short", "short", "short"]
    assert not found.left_out


def test_a_pace_is_the_median_of_whole_batches_and_the_tail_of_single_calls() -> None:
    calls: list[int] = []
    seen = pace(calls.append, [(i,) for i in range(900)])
    assert calls == list(range(900))
    assert 0 < seen.median < 0.01
    assert Pace(1e-6, 5e-6).figures("put") == pytest.approx({"put": 1.0, "put, p99": 5.0})
    assert per_item(lambda: None, [()] * 9) >= 0


def test_waiting_for_nothing_is_idle_and_a_busy_loop_is_not() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not say how long a thread ran (/proc/self/schedstat)")

    def spin() -> None:
        while True:
            pass

    assert idle_cpu(lambda: subprocess.run(["sleep", "30"], check=False), 0.3) < 50 < idle_cpu(spin, 0.3)


def test_the_readme_shows_what_the_kept_run_found() -> None:
    found = findings.read(KEPT / "full" / LINES)
    assert readme.table(CASES, found) in readme.README.read_text(encoding="utf-8"), (
        "put it there: python -m benchmarks --redraw --readme"
    )


def test_a_run_draws_what_its_file_says(tmp_path: Path) -> None:
    found = findings.Findings({"places": {}}, tmp_path / LINES)
    found.add("store.small", "tmpfs", "psync", 0, {"get 100 B": 1.23456789})
    assert findings.read(tmp_path / LINES).samples == found.samples
