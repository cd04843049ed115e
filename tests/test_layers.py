"""Who may import whom, and which floor has the door to which effect: two tables, and one reader of import lines.

A floor imports only what lies below it. Each effect (files, time, pickling, processes, printing ...) has one
door. Imports that only a type checker sees are free, except that no floor looks up even there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from psync.cli import main

PACKAGE = Path(__file__).parent.parent / "psync"

FLOORS = ["errors", "engine", "store", "sync", "work", "cli"]
"""From the ground up: each imports only those before it, and itself."""

FRONT_DOOR = ["psync/__init__.py", "psync/__main__.py"]
"""They may import every floor, and no floor imports them."""

DROP_IN = {
    "psync/pickleshare.py": ["errors", "store", "cli"],
    "psync/joblib.py": ["errors", "engine", "store", "sync", "work"],
}
"""Beside the floors: what a module for those who come from elsewhere may import."""

BLIND = {
    "psync/engine/contract": ["psync.engine.directory", "psync.engine.memory", "psync.engine.redis"],
    "psync/engine/memory": ["psync.engine.directory", "psync.engine.redis"],
    "psync/engine/directory": ["psync.engine.memory", "psync.engine.redis"],
    "psync/engine/redis": ["psync.engine.directory", "psync.engine.memory"],
    **{
        f"psync/{floor}/": ["psync.engine.directory", "psync.engine.memory", "psync.engine.redis"]
        for floor in FLOORS[2:]
    },
}
"""What must not know what: in the engine, and above it, where nothing may know what keeps the bytes."""

DOORS = {
    "os": ["engine/", "work/shell/"],
    "fcntl": [
        "engine/directory/engine.py",
        *[f"engine/directory/{room}/" for room in "admin buckets cells fs liveness locks log registers".split()],
        "engine/system/reentry.py",
    ],
    "mmap": [f"engine/directory/{room}/" for room in ("admin", "locks", "log", "notify", "registers")],
    "ctypes": ["engine/directory/fs/", "engine/directory/notify/", "work/shell/"],
    "shutil": ["engine/admin.py", "engine/factory.py", "engine/directory/admin/trials.py"],
    "tempfile": ["engine/factory.py"],
    "select": ["engine/directory/notify/", "engine/redis/"],
    "socket": ["engine/redis/"],
    "filelock": ["engine/directory/locks/"],
    "redis": ["engine/redis/"],
    "time": ["engine/system/", "engine/contract/report.py"],
    "open": ["engine/", "work/shell/"],
    "psutil": ["engine/system/process_identity.py"],
    "pathlib": ["engine/", "store/", "cli/", "pickleshare.py"],
    "pickle": ["store/pickles.py"],
    "multiprocessing": ["work/", "cli/", "joblib.py"],
    "subprocess": ["work/", "cli/"],
    "argparse": ["cli/", "pickleshare.py"],
    "print": ["cli/", "pickleshare.py"],
    "input": ["cli/"],
}
"""Each effect, and the files and folders of the package that may import (or, for a builtin, call) it."""

_OS_ROOMS = [f"engine/directory/{room}/" for room in ("admin", "buckets", "cells", "fs", "liveness", "locks", "log")]
OS_DOORS = {
    "starts or ends processes": (
        "_exit abort execv execve execvp execvpe fork forkpty kill killpg popen posix_spawn posix_spawnp setpgid "
        "setsid spawnv system wait wait3 wait4 waitid waitpid",
        ["work/shell/", "engine/directory/admin/trials.py"],
    ),
    "makes, renames or removes names": (
        "chmod chown link makedirs mkdir mkfifo mknod remove removedirs rename renames replace rmdir symlink unlink",
        [
            "engine/directory/fs/",
            "engine/directory/admin/trials.py",
            "engine/directory/cells/nfs.py",
            "engine/directory/engine.py",
            "engine/directory/liveness/",
            "engine/directory/log/segment_files.py",
            "engine/directory/log/segment_recovery.py",
            "engine/admin.py",
        ],
    ),
    "writes files": (
        "copy_file_range fdatasync fsync ftruncate posix_fallocate pwrite pwritev sendfile sync truncate utime write "
        "writev",
        [*_OS_ROOMS, "engine/directory/notify/", "engine/directory/registers/", "work/shell/exec.py"],
    ),
    "opens or reads files": (
        "fdopen listdir lseek lstat memfd_create open pipe posix_fadvise pread preadv read readlink readv scandir stat "
        "statvfs walk",
        [
            *_OS_ROOMS,
            "engine/directory/engine.py",
            "engine/directory/notify/",
            "engine/directory/registers/",
            "engine/directory/scan.py",
            "engine/factory.py",
            "engine/signed/keys.py",
            "engine/system/",
            "work/shell/",
        ],
    ),
}
"""Functions of `os` by their effect, and the rooms that may call them. Memory, Redis and the contract need none."""

FREE = {"os.PathLike", "os.fspath", "pathlib.PurePath", "pathlib.PurePosixPath"}
"""Names that live in such a module and have no effect."""

UNREADABLE = {"__import__", "importlib.import_module", "import_module"}
"""Ways to import that this test can't follow. Only the files in `TABLES` may use them."""

TABLES = {
    "psync/__init__.py": "_NAMES",
    "psync/cli/main.py": "COMMANDS",
    "psync/engine/system/fork_hooks.py": "_deferred",
}
"""The files that import modules by name, each from the table that it has: tests check the tables."""


class Line(NamedTuple):
    """One thing that a line of a file reaches for: a module it imports or a builtin it calls."""

    file: str
    number: int
    verb: str
    target: str
    typing_only: bool

    def __str__(self) -> str:
        return f"`{self.file}:{self.number}` {self.verb} {self.target}"


# -- reading -----------------------------------------------------------------------------------


def files_of(package: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every file of the package: its name, beginning with `psync/`, and its syntax tree."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package.parent).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def reach(node: ast.AST, file: str, typing_only: bool = False) -> Iterator[Line]:
    """Every import, and every call of a guarded builtin, wherever below `node` it stands."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Line(file, node.lineno, "imports", alias.name, typing_only)
    elif isinstance(node, ast.ImportFrom):
        module = absolute(node, file)
        for alias in node.names:
            # `from psync.engine import memory` may name a module as well as a class: its full name shows both.
            yield Line(file, node.lineno, "imports", f"{module}.{alias.name}", typing_only)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in {*DOORS, *UNREADABLE}:
        yield Line(file, node.lineno, "calls", ast.unparse(node.func), typing_only)
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.body:
            yield from reach(child, file, typing_only=True)
        for child in node.orelse:
            yield from reach(child, file, typing_only)
        return
    for child in ast.iter_child_nodes(node):
        yield from reach(child, file, typing_only)


def absolute(node: ast.ImportFrom, file: str) -> str:
    """The module that a `from` line names, with its leading dots resolved."""
    if not node.level:
        return node.module or ""
    folder = file.split("/")[: -node.level]
    return ".".join([*folder, *([node.module] if node.module else [])])


# -- judging -----------------------------------------------------------------------------------


def floor_of(dotted: str) -> str | None:
    """The floor that `psync.store.codec` stands on; None for `psync` itself and for what is beside the floors."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "psync" and parts[1] in FLOORS else None


def wrong_floors(package: Path) -> list[str]:
    """What stands on no floor or looks up, as sentences."""
    found = []
    for file, tree in files_of(package):
        here = floor_of(file.removesuffix(".py").replace("/", "."))
        if file in FRONT_DOOR:
            continue
        if here is None and file not in DROP_IN:
            found.append(f"`{file}` stands on no floor; the floors are {', '.join(FLOORS)}")
            continue
        allowed = DROP_IN[file] if here is None else FLOORS[: FLOORS.index(here) + 1]
        for line in reach(tree, file):
            if line.verb == "imports" and line.target.split(".")[0] == "psync":
                found += judge(line, allowed)
    return found


def judge(line: Line, allowed: list[str]) -> Iterator[str]:
    there = floor_of(line.target)
    if there is None:
        yield f"{line}, the front door; import the floor that has it ({', '.join(allowed)})"
    elif there not in allowed:
        yield f"{line}; it may import only {', '.join(allowed)}"
    for blind, hidden in BLIND.items():
        if line.file.startswith(blind) and f"{line.target}.".startswith(tuple(f"{name}." for name in hidden)):
            yield f"{line}; `{blind}` must know nothing of it"


def wrong_doors(package: Path) -> list[str]:
    """What reaches for an effect that has its door elsewhere, as sentences."""
    found = []
    for line in chain.from_iterable(reach(tree, file) for file, tree in files_of(package)):
        if line.typing_only or line.target in FREE:
            continue
        if line.target in UNREADABLE and line.file not in TABLES:
            found.append(f"{line}; write the import out, so that this test can read it")
        first, *rest = line.target.split(".")
        effect = (
            rest[-1] if first == "psync" and rest else first
        )  # `from psync.store.pickles import pickle` is no way round
        doors = DOORS.get(effect, [])
        if doors and not any(line.file.startswith(f"psync/{door}") for door in doors):
            found.append(f"{line}; only {' and '.join(f'`{door}`' for door in doors)} may")
    return found


def wrong_os_calls(package: Path) -> list[str]:
    """Which functions of `os` are used outside the rooms that exist for them, as sentences."""
    found = []
    for file, tree in files_of(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                for effect, (names, doors) in OS_DOORS.items():
                    if node.attr in names.split() and not any(file.startswith(f"psync/{door}") for door in doors):
                        allowed = " and ".join(f"`{door}`" for door in doors)
                        found.append(f"`{file}:{node.lineno}` {effect} by os.{node.attr}; only {allowed} may")
    return found


# -- the package -------------------------------------------------------------------------------


def test_a_floor_imports_only_lower_floors() -> None:
    assert wrong_floors(PACKAGE) == []


def test_each_effect_has_one_door() -> None:
    assert wrong_doors(PACKAGE) == []


def test_each_function_of_os_is_called_in_the_rooms_that_exist_for_it() -> None:
    assert wrong_os_calls(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "call", "effect"),
    [
        ("engine/memory/turns.py", "fork", "starts or ends processes"),
        ("engine/redis/log.py", "open", "opens or reads files"),
        ("engine/directory/log/append.py", "rename", "makes, renames or removes names"),
        ("engine/signed/keys.py", "pwrite", "writes files"),
    ],
)
def test_a_function_of_os_elsewhere_is_told_in_a_sentence(file: str, call: str, effect: str, tmp_path: Path) -> None:
    path = tmp_path / "psync" / file
    path.parent.mkdir(parents=True)
    path.write_text(f"import os\n\nos.{call}()\n")
    (told,) = wrong_os_calls(tmp_path / "psync")
    assert told.startswith(f"`psync/{file}:3` {effect} by os.{call}; only `")


def test_every_command_is_a_module_of_the_cli_with_its_two_functions() -> None:
    for command in main.COMMANDS:
        file = PACKAGE / "cli" / f"{main.MODULES.get(command, command)}.py"
        functions = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert functions >= {"options", "run"}, file


def test_no_command_imports_the_module_that_imports_the_commands() -> None:
    lines = [line for file, tree in files_of(PACKAGE) for line in reach(tree, file)]
    importers = {line.file for line in lines if f"{line.target}.".startswith("psync.cli.main.")}
    assert importers == {"psync/__main__.py", "psync/pickleshare.py"}


def test_every_door_is_a_place_that_exists() -> None:
    rooms = [*DOORS.values(), *(rooms for _, rooms in OS_DOORS.values())]
    places = {door for doors in rooms for door in doors} - {f"{floor}/" for floor in FLOORS}
    assert [place for place in sorted(places) if not (PACKAGE / place).exists()] == []


# -- the reader --------------------------------------------------------------------------------


def plant(folder: Path, file: str, text: str) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder / "psync"


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        (
            "sync/barrier.py",
            "import re\n\nimport os\n",
            "`psync/sync/barrier.py:3` imports os; only `engine/` and `work/shell/` may",
        ),
        (
            "sync/barrier.py",
            "def wait():\n    from os import path\n",
            "`psync/sync/barrier.py:2` imports os.path; only `engine/` and `work/shell/` may",
        ),
        (
            "store/db.py",
            "import time as t\n",
            "`psync/store/db.py:1` imports time; only `engine/system/` and `engine/contract/report.py` may",
        ),
        ("store/db.py", "import pickle\n", "`psync/store/db.py:1` imports pickle; only `store/pickles.py` may"),
        (
            "engine/memory.py",
            "import pickle\n",
            "`psync/engine/memory.py:1` imports pickle; only `store/pickles.py` may",
        ),
        (
            "store/db.py",
            "from .pickles import pickle\n",
            "`psync/store/db.py:1` imports psync.store.pickles.pickle; only `store/pickles.py` may",
        ),
        (
            "engine/files.py",
            "import psutil\n",
            "`psync/engine/files.py:1` imports psutil; only `engine/system/process_identity.py` may",
        ),
        ("sync/lock.py", "print(1)\n", "`psync/sync/lock.py:1` calls print; only `cli/` and `pickleshare.py` may"),
        ("store/db.py", "open('x')\n", "`psync/store/db.py:1` calls open; only `engine/` and `work/shell/` may"),
        (
            "sync/queue.py",
            "import multiprocessing.pool\n",
            "`psync/sync/queue.py:1` imports multiprocessing.pool; only `work/` and `cli/` and `joblib.py` may",
        ),
        (
            "store/db.py",
            "import importlib\nimportlib.import_module('os')\n",
            "`psync/store/db.py:2` calls importlib.import_module; write the import out, so that this test can read it",
        ),
        (
            "store/db.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import os\n",
            "`psync/store/db.py:5` imports os; only `engine/` and `work/shell/` may",
        ),
    ],
)
def test_an_effect_outside_its_door_is_found(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    assert wrong_doors(plant(tmp_path, f"psync/{file}", text)) == [sentence]


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        (
            "engine/files.py",
            "import psync.store.codec\n",
            "`psync/engine/files.py:1` imports psync.store.codec; it may import only errors, engine",
        ),
        (
            "store/db.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..sync import queue\n",
            "`psync/store/db.py:3` imports psync.sync.queue; it may import only errors, engine, store",
        ),
        (
            "pickleshare.py",
            "from psync.sync import WorkQueue\n",
            "`psync/pickleshare.py:1` imports psync.sync.WorkQueue; it may import only errors, store, cli",
        ),
        (
            "engine/memory.py",
            "from psync.engine import directory\n",
            "`psync/engine/memory.py:1` imports psync.engine.directory; `psync/engine/memory` must know nothing of it",
        ),
        (
            "engine/contract.py",
            "from .directory.files import replace\n",
            "`psync/engine/contract.py:1` imports psync.engine.directory.files.replace;"
            " `psync/engine/contract` must know nothing of it",
        ),
        (
            "sync/queue.py",
            "from psync import PickleShareDB\n",
            "`psync/sync/queue.py:1` imports psync.PickleShareDB, the front door;"
            " import the floor that has it (errors, engine, store, sync)",
        ),
        ("helpers.py", "import re\n", "`psync/helpers.py` stands on no floor; the floors are " + ", ".join(FLOORS)),
    ],
)
def test_a_look_at_a_higher_floor_is_found(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    assert wrong_floors(plant(tmp_path, f"psync/{file}", text)) == [sentence]


def test_what_only_a_type_checker_sees_is_no_effect(tmp_path: Path) -> None:
    package = plant(
        tmp_path,
        "psync/store/db.py",
        "from os import PathLike\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import time\n",
    )
    assert wrong_doors(package) == []
