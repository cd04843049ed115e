"""Globs find what pathlib finds, and list no folder that can't hold a match."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from psync.errors import InvalidKey
from psync.store.glob import matching
from tests.support import scaled


class Tree:
    """Keys as an engine would tell them, and how often each folder was listed."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.listed: Counter[str] = Counter()

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        self.listed[folder] += 1
        below = [key.removeprefix(f"{folder}/") if folder else key for key in self.keys if self._in(key, folder)]
        folders = {key.split("/", 1)[0] for key in below if "/" in key}
        return [key for key in below if "/" not in key], sorted(folders)

    def glob(self, pattern: str) -> list[str]:
        return sorted(matching(self.entries, pattern))

    @staticmethod
    def _in(key: str, folder: str) -> bool:
        return not folder or key.startswith(f"{folder}/")


KEYS = [
    "a",
    "b.log",
    ".dot",
    "d/a",
    "d/b.log",
    "d/e/a",
    "d/e/f/a",
    "g/a",
    "[x]/?*",
    "new\nline/a",
    ".psync/tmp/1",
    "d/.psync",
]

CASES: list[tuple[str, list[str]]] = [
    ("*", [".dot", "a", "b.log"]),
    ("a", ["a"]),
    ("d", []),
    ("nothing", []),
    ("nothing/*", []),
    ("a/*", []),
    ("*.log", ["b.log"]),
    ("?", ["a"]),
    ("[ab]*", ["a", "b.log"]),
    ("[!a]*", [".dot", "b.log"]),
    ("d/*", ["d/.psync", "d/a", "d/b.log"]),
    ("./d//a", ["d/a"]),
    ("*/a", ["d/a", "g/a", "new\nline/a"]),
    ("*/*/a", ["d/e/a"]),
    ("d/**/a", ["d/a", "d/e/a", "d/e/f/a"]),
    ("**/a", ["a", "d/a", "d/e/a", "d/e/f/a", "g/a", "new\nline/a"]),
    ("**/**/f/**/a", ["d/e/f/a"]),
    ("**/e/**", ["d/e/a", "d/e/f/a"]),
    ("d/**", ["d/.psync", "d/a", "d/b.log", "d/e/a", "d/e/f/a"]),
    ("**/*.log", ["b.log", "d/b.log"]),
    ("**", sorted(set(KEYS) - {".psync/tmp/1"})),
    ("**/*", sorted(set(KEYS) - {".psync/tmp/1"})),
    ("[[]x]/[?][*]", ["[x]/?*"]),
    ("new\n*/a", ["new\nline/a"]),
    ("d/", []),
    ("**/", []),
    (".psync/**", []),
    (".psync/tmp/1", []),
    (".[p]sync/**", []),
    ("**/.psync", ["d/.psync"]),
    ("d**a", []),
    ("***/a", ["d/a", "g/a", "new\nline/a"]),
]


@pytest.mark.parametrize(
    ("pattern", "expected"), CASES, ids=lambda value: repr(value) if isinstance(value, str) else ""
)
def test_a_pattern_finds_its_keys(pattern: str, expected: list[str]) -> None:
    assert Tree(*KEYS).glob(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "names nothing"),
        (".", "names nothing"),
        ("./", "names nothing"),
        ("/*", "begins with a slash"),
        ("../*", "segment '..'"),
        ("a/../*", "segment '..'"),
        ("a/*/..", "segment '..'"),
        ("a\0/*", "NUL"),
        ("*\0", "NUL"),
        ("a" * 256 + "/*", "256 bytes"),
        ("*/" * 2000 + "*", "longer than"),
        ("\ud800/*", "surrogate"),
        (None, "must be a str"),
        (Path("*"), "must be a str"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_pattern_that_no_key_could_match_is_refused_before_anything_is_listed(pattern: Any, why: str) -> None:
    tree = Tree(*KEYS)
    with pytest.raises(InvalidKey, match=why) as caught:
        matching(tree.entries, pattern)
    assert isinstance(caught.value, ValueError) and caught.value.key is pattern
    assert not tree.listed


@pytest.mark.parametrize(
    ("pattern", "listed"),
    [
        ("f50/*", ["f50"]),
        ("f50/a", ["f50"]),
        ("f50/sub/*.x", ["f50/sub"]),
        ("f50/*/1.x", ["f50", "f50/sub"]),
        ("f50/sub/**/*", ["f50/sub"]),
        ("f5?/none/*", ["", *(f"f5{number}/none" for number in range(10))]),
        ("*", [""]),
        ("missing/deep/*", ["missing/deep"]),
        ("f50/", []),
        (".psync/*", []),
    ],
)
def test_only_folders_that_could_hold_a_match_are_listed(pattern: str, listed: list[str]) -> None:
    tree = Tree(*(f"f{number:02}/{name}" for number in range(100) for name in ("a", "sub/1.x", "sub/2.x")))
    tree.glob(pattern)
    assert tree.listed == Counter(listed)


def test_a_folder_is_listed_once_however_many_ways_lead_to_it() -> None:
    tree = Tree("a/a/a/a", "a/b/a/x", "x")
    assert tree.glob("**/a/**/**/a/**/*") == ["a/a/a/a", "a/b/a/x"]
    assert set(tree.listed.values()) == {1}


def test_a_deep_tree_needs_no_deep_stack() -> None:
    key = "/".join(["d"] * (sys.getrecursionlimit() + 100))
    assert Tree(key).glob("**/d") == [key]


NAMES = st.sampled_from(["a", "b", "ab", ".h", "a.b", "[", "]a", "*", "A"])
PARTS = st.sampled_from(
    ["a", "b", ".h", "*", "**", "a*", "*b", "?", "??", "[ab]", "[!a]", "[", ".*", "*.*", "[]a]*", "A"]
)


def reference(root: Path, pattern: str) -> list[str]:
    """What pathlib finds; before Python 3.13 a last ``**`` meant folders only."""
    if sys.version_info < (3, 13) and pattern.rpartition("/")[2] == "**":
        pattern += "/*"
    return sorted({path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file()})


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="psync-glob-"))
    yield folder
    shutil.rmtree(folder)


count = itertools.count()


@settings(max_examples=scaled(150))
@given(st.sets(st.lists(NAMES, min_size=1, max_size=4).map(tuple), max_size=12), st.data())
def test_a_glob_finds_what_pathlib_finds(place: Path, paths: set[tuple[str, ...]], data: st.DataObject) -> None:
    root = place / str(next(count))
    root.mkdir()
    keys = []
    for path in sorted(paths, key=len, reverse=True):
        file = root.joinpath(*path)
        if not file.exists():  # a folder may have taken the name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            keys.append("/".join(path))
    for pattern in data.draw(st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8)):
        found = sorted(matching(Tree(*keys).entries, pattern))
        assert found == reference(root, pattern), pattern


@given(st.text(alphabet="ab*?[]!-./^\\", min_size=1, max_size=12))
@example("[b-a]")
@example("[\\]")
def test_every_pattern_is_found_or_refused(pattern: str) -> None:
    try:
        found = Tree("a", "b/a").glob(pattern)
    except InvalidKey:
        return
    assert set(found) <= {"a", "b/a"}
