"""Pickleshare and both IPythons, fetched once for a run; what can't be fetched is skipped, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dropin import fetched
from tests.dropin.bench import Bench


def _fetch(get: Callable[[Path, str], Path], config: pytest.Config, factory: pytest.TempPathFactory, name: str) -> Path:
    cache = getattr(config, "cache", None)  # None under -p no:cacheprovider
    folder = cache.mkdir("psync-dropin") if cache else factory.mktemp("psync-dropin")
    try:
        return get(folder, name)
    except fetched.Unreachable as reason:
        print(f"skipped: {reason}")
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def original(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with pickleshare 0.7.5 (pickleshare.py and test_pickleshare.py)."""
    return _fetch(fetched.unpacked, pytestconfig, tmp_path_factory, "pickleshare==0.7.5")


@pytest.fixture(scope="session")
def ipython8(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The last IPython that imports pickleshare from outside. Its wheel carries its tests."""
    site = _fetch(fetched.installed, pytestconfig, tmp_path_factory, "ipython==8.39.0")
    return Bench(site, tmp_path_factory.mktemp("ipython8"), "pickleshare")


@pytest.fixture(scope="session")
def ipython9(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """An IPython with its own copy of pickleshare inside."""
    site = _fetch(fetched.installed, pytestconfig, tmp_path_factory, "ipython==9.18.1")
    return Bench(site, tmp_path_factory.mktemp("ipython9"), "IPython.external.pickleshare")


@pytest.fixture(scope="session")
def ipython9_source(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the same IPython 9: its tests are only there."""
    return _fetch(fetched.unpacked, pytestconfig, tmp_path_factory, "ipython==9.18.1")
