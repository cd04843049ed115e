"""What these tests take from the package index: pickleshare itself, and the IPythons that are built on it.

Nothing of it is part of this project: it is fetched when the tests run and kept in pytest's cache
folder. A folder appears there whole (made beside its place, then renamed) or not at all.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import filelock

SECONDS = 120.0
"""How long one call of pip may take, in seconds."""


class Unreachable(Exception):
    """The package index gave nothing: no network, no such index, or too slow."""


def unpacked(cache: Path, requirement: str) -> Path:
    """The folder of the source distribution that `requirement` (``name==version``) names."""
    place = cache / f"sdist-{requirement}"
    with _only_one(place):
        if place.is_dir():
            return place
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", scratch, requirement)
            archive = next(Path(scratch).glob("*.tar.gz"))
            with tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # 3.11.4 brought it
                tar.extractall(Path(scratch) / "out")
            _keep(next((Path(scratch) / "out").iterdir()), place)
    return place


def installed(cache: Path, requirement: str) -> Path:
    """A folder to put on PYTHONPATH, with `requirement` and all that it needs, for the Python that runs the tests."""
    place = cache / f"installed-{requirement}-{sys.implementation.cache_tag}"
    with _only_one(place):
        if place.is_dir():
            return place
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "site"
            _pip("install", "--no-compile", "--target", str(made), requirement)
            _keep(made, place)
    return place


def _only_one(place: Path) -> filelock.BaseFileLock:
    """The tests' other processes wait meanwhile: they would do the same."""
    return filelock.FileLock(f"{place}.lock", timeout=3 * SECONDS)


def _keep(made: Path, place: Path) -> None:
    with contextlib.suppress(FileExistsError, OSError):  # another run of the tests may have been quicker
        os.rename(made, place)
    if not place.is_dir():
        raise Unreachable(f"{place} can't be made")


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "15", "-q"]
    try:
        made = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"pip {arguments[0]} {arguments[-1]} took more than {SECONDS:.0f} s") from None
    if made.returncode:
        said = [line for line in made.stderr.splitlines() if line.startswith("ERROR")] or made.stderr.splitlines()
        raise Unreachable(f"pip {arguments[0]} {arguments[-1]}: {said[-1] if said else made.returncode}")
