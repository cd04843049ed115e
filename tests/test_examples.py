"""The examples run, and what they print is so."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support import scaled

PROJECT = Path(__file__).parent.parent


def fan_out(*arguments: object) -> tuple[int, int]:
    """Runs the example; returns how many words in how many files it found. It has checked itself by then."""
    command = [sys.executable, "-W", "error", "examples/fan_out.py", *map(str, arguments)]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert ran.stdout.endswith("the counts agree\n")
    assert "Traceback" not in ran.stderr
    found = re.match(r"([\d,]+) words in ([\d,]+) files", ran.stdout)
    assert found
    words, files = (int(number.replace(",", "")) for number in found.groups())
    return words, files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred files, the n-th of n words, in a tree, one of them no text."""
    for number in range(1, 100):
        place = tmp_path / "texts" / str(number % 7)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(" ".join(f"word{which}" for which in range(number)))
    (tmp_path / "texts" / "binary").write_bytes(hashlib.sha256(b"x").digest() + bytes(range(256)))
    return tmp_path / "texts"


def test_fan_out_counts_every_word_of_every_file(folder: Path, root: Path) -> None:
    (folder / "binary").unlink()
    assert fan_out(folder, "--workers", 2, "--dir", root) == (sum(range(1, 100)), 99)


def test_fan_out_reads_files_that_are_no_text(folder: Path) -> None:
    words, files = fan_out(folder)
    assert words > sum(range(1, 100))
    assert files == 100


def test_fan_out_loses_nothing_with_a_killed_worker(folder: Path, root: Path) -> None:
    (folder / "binary").unlink()
    assert fan_out(folder, "--workers", 2, "--dir", root, "--kill") == (sum(range(1, 100)), 99)


def test_fan_out_can_be_repeated_in_the_same_directory(folder: Path, root: Path) -> None:
    assert fan_out(folder, "--dir", root) == fan_out(folder, "--dir", root)


@pytest.mark.slow
def test_fan_out_loses_nothing_of_the_standard_library(tmp_path: Path) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    chosen = [*sorted(library.glob("*.py")), *sorted(library.glob("[a-r]*/*.py"))][: scaled(400)]
    for number, name in enumerate(chosen):
        os.symlink(name, tmp_path / f"{number}-{name.name}")
    words, files = fan_out(tmp_path, "--workers", 3, "--kill")
    assert files == len(chosen)
    assert words > 100 * files


def ran(*command: object, path: Path | None = None) -> str:
    """What the command printed; it must succeed and complain of nothing but what `psync run` sums up."""
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "PATH": os.pathsep.join([str(path or ""), os.environ["PATH"]])}
    done = subprocess.run(
        [*map(str, command)], cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert [line for line in done.stderr.splitlines() if not line.startswith("psync run: ")] == []
    return done.stdout


def test_what_two_sweeps_compute_is_collected_by_another_script(root: Path) -> None:
    python = [sys.executable, "-W", "error"]
    sweeps = [subprocess.Popen([*python, "examples/sweep.py", root], cwd=PROJECT, stdout=subprocess.PIPE) for _ in "12"]
    collected = ran(*python, "examples/collect.py", root)
    assert collected.count("\n") == 17
    assert collected.endswith("16 points, all as they should be\n")
    for sweep in sweeps:
        assert sweep.communicate(timeout=60)[0] == b"all 16 points are computed\n"
        assert sweep.returncode == 0
    assert ran(*python, "examples/sweep.py", root) == "all 16 points are computed\n"


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder with a `psync` in it that is this one."""
    command = tmp_path / "bin" / "psync"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m psync "$@"\n')
    command.chmod(0o755)
    return command.parent


def test_a_pipeline_of_shell_commands_counts_every_word(folder: Path, command: Path) -> None:
    (folder / "binary").unlink()
    said = ran("sh", "examples/pipeline.sh", folder, path=command)
    assert said == f"4950 words in 99 files under {folder}\nthe counts agree\n"


def test_an_array_job_meets_at_a_barrier_between_its_phases(command: Path) -> None:
    said = ran("sh", "examples/slurm_array.sh", path=command).splitlines()
    assert sorted(line.split(":")[0] for line in said) == [f"task {number} of 4" for number in range(4)]
    assert all(line.endswith("of 4999950000") for line in said)


def test_an_array_job_in_which_a_task_fails_ends_and_fails(command: Path, tmp_path: Path) -> None:
    text = (PROJECT / "examples/slurm_array.sh").read_text()
    (tmp_path / "array.sh").write_text(text.replace('part=$(seq "$me"', '[ "$me" -ne 2 ] || exit 7\npart=$(seq "$me"'))
    (tmp_path / "array.sh").write_text((tmp_path / "array.sh").read_text().replace("--timeout 3600", "--timeout 2"))
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "PATH": f"{command}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", tmp_path / "array.sh"], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (1, 124), done.stderr  # another's time ran out first, or its own
    assert "only 3 of 4 had come" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_with_joblib_finds_what_one_process_finds() -> None:
    pytest.importorskip("joblib", reason="joblib is not installed (extra `joblib`)")
    said = ran(sys.executable, "-W", "error", "examples/joblib_search.py").splitlines()
    assert re.fullmatch(r"\d+ neighbours predict best: .*", said[0])
    assert said[1:] == ["the errors agree"]


@pytest.mark.parametrize("example", sorted(path.name for path in (PROJECT / "examples").iterdir() if path.is_file()))
def test_an_example_is_short(example: str) -> None:
    assert len((PROJECT / "examples" / example).read_text().splitlines()) < 60
