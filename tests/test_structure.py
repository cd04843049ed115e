"""The structure of the package: no modules that import each other in a circle, no private name read from outside.

Every import counts, those within functions and those for a type checker too: a reader follows them all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import PACKAGE, absolute, files_of, plant

PRIVATE_ALLOWED = {
    *("_replace", "_asdict", "_fields", "_make", "_exit"),
    *("_release_save", "_acquire_restore", "_is_owned"),
    *("_sock", "_backend_kwargs", "_getframe"),
    *("_bootstrap", "_module_locks"),
}
"""Names that only look private, or have no public form: of named tuples, `os._exit`; the protocol of `threading`
between a condition and its lock, which may be another module's; the socket of a connection of redis-py (see
`socket_of`), and what joblib's own backends read of a `Parallel`; the locks of the modules that are being imported."""


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(package: Path) -> dict[str, dict[str, int]]:
    """Module -> the modules of the package that it imports, and in which line first."""
    trees = dict(files_of(package))
    modules = {module_of(file) for file in trees}
    found: dict[str, dict[str, int]] = {}
    for file, tree in trees.items():
        mine = found.setdefault(module_of(file), {})
        for node in ast.walk(tree):
            for target in targets(node, file):
                name = target
                while name and name not in modules:
                    name = name.rpartition(".")[0]
                if name and name != module_of(file):
                    mine.setdefault(name, node.lineno)
    return found


def targets(node: ast.AST, file: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{absolute(node, file)}.{alias.name}" for alias in node.names)


def circles(imports: dict[str, dict[str, int]]) -> list[set[str]]:
    """The sets of modules of which each can be reached from each other. (Tarjan, 1972.)"""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in imports.get(module, {}):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            circle = set(stack[at:])
            del stack[at:]
            if len(circle) > 1:
                found.append(circle)

    for module in sorted(imports):
        if module not in order:
            visit(module)
    return found


def told(circle: set[str], imports: dict[str, dict[str, int]]) -> str:
    """A circle as a sentence, with a line for each import in it."""
    lines = [
        f"{module}:{line} imports {other}"
        for module in sorted(circle)
        for other, line in sorted(imports[module].items())
        if other in circle
    ]
    return f"{len(circle)} modules import each other: {'; '.join(lines)}"


def private_reads(package: Path) -> list[str]:
    """Private attributes and names of modules that another file than the one that defines them reads, as sentences."""
    found = []
    for file, tree in files_of(package):
        own = {name for node in ast.walk(tree) for name in defined(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own | inherited(node):
                found.append(f"`{file}:{node.lineno}` reads {ast.unparse(node)}, which another file defines")
            elif isinstance(node, ast.ImportFrom):
                found += [
                    f"`{file}:{node.lineno}` imports {alias.name} from {absolute(node, file)}"
                    for alias in node.names
                    if is_private(alias.name)
                ]
    return found


def inherited(node: ast.Attribute) -> set[str]:
    """What a class may read of itself, although a base in another file defines it."""
    return {node.attr} if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") else set()


def is_private(name: str) -> bool:
    return name[0] == "_" and name[-2:] != "__" and name not in PRIVATE_ALLOWED


def defined(node: ast.AST) -> Iterator[str]:
    """The names that a node gives to something: a definition, an assignment to a name or to an attribute, a slot."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
        yield node.attr
    elif isinstance(node, ast.arg):
        yield node.arg


# -- the package -------------------------------------------------------------------------------


def test_no_modules_import_each_other() -> None:
    imports = imports_of(PACKAGE)
    assert [told(circle, imports) for circle in circles(imports)] == []


def test_what_is_private_is_read_only_where_it_is_defined() -> None:
    assert private_reads(PACKAGE) == []


# -- the reader --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "from psync.store import db",
        "import psync.store.db",
        "from .db import Store",
        "def late():\n    from psync.store.db import Store",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from psync.store.db import Store",
    ],
)
def test_a_circle_is_found_however_it_is_made(tmp_path: Path, line: str) -> None:
    plant(tmp_path, "psync/store/db.py", "from psync.store.link import Link\nclass Store: ...\n")
    package = plant(tmp_path, "psync/store/link.py", f"{line}\nclass Link: ...\n")
    imports = imports_of(package)
    assert circles(imports) == [{"psync.store.db", "psync.store.link"}]
    assert "psync.store.db:1 imports psync.store.link" in told({"psync.store.db", "psync.store.link"}, imports)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def f(x):\n    return x._state\n", "`psync/a.py:2` reads x._state, which another file defines"),
        ("from psync.b import _hidden\n", "`psync/a.py:1` imports _hidden from psync.b"),
    ],
)
def test_a_private_read_is_found(tmp_path: Path, text: str, sentence: str) -> None:
    assert private_reads(plant(tmp_path, "psync/a.py", text)) == [sentence]


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def __init__(self):\n        self._x = 1\n    def f(self, other):\n        return other._x\n",
        "def f(t):\n    return t._replace(a=1), t.__dict__\n",
    ],
)
def test_what_a_file_defines_itself_it_may_read(tmp_path: Path, text: str) -> None:
    assert private_reads(plant(tmp_path, "psync/a.py", text)) == []
