"""What is shipped: the wheel's files and metadata, what `import psync` costs, and a docstring for every public name."""

from __future__ import annotations

import ast
import configparser
import email
import fnmatch
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import psync

PROJECT = Path(__file__).parent.parent

LATE = ["filelock", "psutil", "argparse", "multiprocessing", "subprocess", "ctypes", "json", "logging", "asyncio"]
"""Modules that `import psync` leaves for those who come to need them."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "psync").rglob("*.py")}
    assert shipped == sources | {"psync/py.typed"}


def test_the_wheel_needs_filelock_and_psutil_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(needed) == ["filelock>=4.2.1", "psutil"]
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_wheel_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "psync = psync.cli.main:main" in archive.read(name).decode().splitlines()


def test_python_m_psync_is_the_command() -> None:
    asked = [sys.executable, "-m", "psync", "--help"]
    said = subprocess.run(asked, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    assert said.startswith("usage: psync ")


def test_importing_psync_imports_nothing_slow() -> None:
    program = f"import sys; before = set(sys.modules); import psync; print(*(set(sys.modules) - before) & {set(LATE)})"
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == []


def test_a_store_without_a_key_loads_no_openssl_nor_what_else_it_has_no_use_for(tmp_path: Path) -> None:
    program = f"import sys, psync; psync.PickleShareDB({str(tmp_path / 'store')!r})['key'] = 1; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, capture_output=True, text=True)
    assert {"_hashlib", "ssl", "random", "tempfile", "shutil", "lzma"} & set(ran.stdout.split()) == set()
    others = tuple(f"psync.engine.{name}" for name in ("redis", "signed", "memory", "admin"))
    assert [module for module in ran.stdout.split() if module.startswith(others)] == []


def test_the_change_log_begins_with_this_version() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    versions = re.findall(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert versions[0] == version == psync.__version__


def test_the_suite_that_ci_runs_is_the_one_that_the_readme_names() -> None:
    command = (PROJECT / ".ci/run").read_text().splitlines()[-1]
    assert "pytest" in command
    assert command in (PROJECT / "README.md").read_text().splitlines()


def test_every_tox_environment_passes_the_variables_that_the_tests_read() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "tests").rglob("*.py"))
    read = set(re.findall(r"\bPSYNC_TEST_[A-Z]+\b", tests))
    assert read >= {"PSYNC_TEST_ENGINE", "PSYNC_TEST_PLACE", "PSYNC_TEST_SCALE"}
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(PROJECT / "tox.ini")
    for name in (each for each in tox.sections() if each.startswith("testenv")):
        passed = tox[name].get("pass_env", tox["testenv"]["pass_env"]).split()
        assert [variable for variable in read if not any(fnmatch.fnmatch(variable, each) for each in passed)] == [], (
            name
        )


@pytest.mark.parametrize("name", psync.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(psync, name)
    missing = [] if inspect.getdoc(thing) else [name]
    if inspect.isclass(thing):
        for method, member in inspect.getmembers(thing):
            public = not method.startswith("_") and (callable(member) or isinstance(member, property))
            if public and not inspect.getdoc(member):
                missing.append(f"{name}.{method}")
    assert missing == []


def test_type_checkers_find_each_public_name_in_the_module_that_has_it() -> None:
    tree = ast.parse((PROJECT / "psync/__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    shown = {alias.name: node.module for node in imports for alias in node.names if alias.asname == alias.name}
    assert shown == psync._MODULES
    assert [name for name, module in shown.items() if not hasattr(importlib.import_module(str(module)), name)] == []


def test_every_file_that_the_tour_names_exists() -> None:
    named = re.findall(r"\b(?:engine|store|sync|work|cli)/[\w/]*(?:\.py)?", psync.__doc__ or "")
    assert len(named) > 20
    assert [name for name in named if not (PROJECT / "psync" / name).exists()] == []


def test_open_has_every_option_of_a_store() -> None:
    def options(function: Callable[..., object]) -> list[tuple[str, object]]:
        parameters = inspect.signature(function).parameters.values()
        return [(each.name, each.default) for each in parameters if each.kind is each.KEYWORD_ONLY]

    assert options(psync.open) == options(psync.PickleShareDB)
