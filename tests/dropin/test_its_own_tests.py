"""The tests that pickleshare and IPython wrote for their pickleshare, run on psync.pickleshare in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.dropin.bench import Bench

PINNED_TO_THE_OLD_CODE = {
    "test_waitget_picks_up_value_after_polling": "replaces time.sleep and counts the calls; psync waits otherwise",
    "test_waitget_times_out": "replaces time.sleep and pins its schedule",
    "test_init_mkdir_other_errors_propagate": "makes Path.mkdir fail; psync makes folders with os.mkdir",
    "test_setitem_tolerates_file_vanishing": "makes Path.stat fail to look into the cache; psync doesn't call it",
    "test_setitem_other_stat_errors_propagate": "makes Path.stat fail; psync doesn't call it",
    "test_link_repr_is_broken": "expects repr(link) to fail; here it works",
}
"""Tests of IPython's that replace a call inside the old module, or expect its bug, and why they can't hold here."""


SHORT_PAUSES = """\
import time
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 100)
"""
"""Pickleshare's stress test sleeps for half a minute in all, to let rivals in; it has none here."""

ABOUT_THE_STORE = (
    "test_storemagic or test_completerlib or test_alias or test_rehashx or test_store or test_bookmark "
    "or test_cd or test_dirops"
)
"""IPython's tests that go through its store, for pytest's ``-k``."""


def test_the_tests_of_pickleshare_pass(original: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "nothing", tmp_path / "bench", "pickleshare")
    (tmp_path / "conftest.py").write_text(SHORT_PAUSES)
    shutil.copy(original / "test_pickleshare.py", tmp_path)
    assert bench.passed("test_pickleshare.py", cwd=tmp_path) == 2


def test_the_tests_of_ipython_8_about_its_store_pass(ipython8: Bench, tmp_path: Path) -> None:
    core, extensions = ipython8.site / "IPython/core/tests", ipython8.site / "IPython/extensions/tests"
    files = (core / "test_magic.py", core / "test_alias.py", core / "test_completerlib.py")
    passed = ipython8.passed(
        *map(str, files), str(extensions / "test_storemagic.py"), "-k", ABOUT_THE_STORE, cwd=tmp_path
    )
    assert passed == 24


def test_the_tests_of_ipython_9_about_its_store_pass(ipython9: Bench, ipython9_source: Path, tmp_path: Path) -> None:
    shutil.copytree(ipython9_source / "tests", tmp_path / "tests")
    files = ("magic", "alias", "completerlib", "storemagic")
    passed = ipython9.passed(*(f"tests/test_{name}.py" for name in files), "-k", ABOUT_THE_STORE, cwd=tmp_path)
    assert passed == 36


def test_the_tests_of_ipythons_own_pickleshare_pass(ipython9: Bench, ipython9_source: Path, tmp_path: Path) -> None:
    shutil.copytree(ipython9_source / "tests", tmp_path / "tests")
    deselected = [f"--deselect=tests/test_pickleshare.py::{name}" for name in PINNED_TO_THE_OLD_CODE]
    text = (tmp_path / "tests" / "test_pickleshare.py").read_text()
    assert all(f"def {name}(" in text for name in PINNED_TO_THE_OLD_CODE)
    passed = ipython9.passed("tests/test_pickleshare.py", *deselected, cwd=tmp_path)
    assert passed == text.count("\ndef test_") - len(PINNED_TO_THE_OLD_CODE)
