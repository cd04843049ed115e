"""``psync dump DIR | psync load OTHER``: what is a literal arrives, what is not is named, nothing is run."""

from __future__ import annotations

import ast
import datetime
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psync import PickleShareDB
from psync.cli import literal
from psync.cli.errors import Failure
from tests.cli.shell import ENVIRON, psync
from tests.support import files

VALUES: dict[str, Any] = {
    "hello": 15,
    "aku ankka": [1, 2, 313],
    "paths/are/ok/key": [1, (5, 46)],
    "none": None,
    "text": "jäätelö \U0001f366 'quotes\" \\ \n\t\x1b[31m" * 9,
    "lone surrogate": "\ud800",
    "bytes": bytes(range(256)) * 3,
    "numbers": (0, -1, 2**200, 0.1, -0.0, 1e300, 3 + 4j, True),
    "nested": {"a": {1, 2, 3}, (1, "x"): [{}, [], (), set()], "z": {"b": 1, "a": 2}},
    "näin": "ö",
}


def test_what_was_dumped_is_loaded_again(place: str) -> None:
    with PickleShareDB(f"{place}-one") as db:
        db.update(VALUES)
    dump = psync("dump", f"{place}-one")
    assert (dump.code, dump.err) == (0, "")
    load = psync("load", f"{place}-two", typed=dump.out)
    assert load == (0, f"{len(VALUES)} stored, 0 removed\n", "")
    with PickleShareDB(f"{place}-two") as db:
        assert dict(db) == VALUES
        assert list(db["nested"]["z"]) == ["b", "a"], "the order of a dict is part of it"
    assert psync("dump", f"{place}-two").out == dump.out


def test_a_dump_that_can_hold_only_ascii_is_loaded_too(place: str) -> None:
    with PickleShareDB(f"{place}-one") as db:
        db.update(VALUES)
    dumped = psync("dump", f"{place}-one", encoding="ascii")
    assert dumped.out.isascii()
    assert psync("load", f"{place}-two", typed=dumped.out).code == 0
    with PickleShareDB(f"{place}-two") as db:
        assert dict(db) == VALUES


def test_a_hashed_category_survives_dump_and_load(place: str) -> None:
    with PickleShareDB(f"{place}-one") as db:
        for number in range(100):
            db.hset("hashed", number, [number])
            db.hset("hashed", f"name {number}", number)
        db.hcompress("hashed")
        db.hset("hashed", 1, "newer")
        expected = db.hdict("hashed")
    assert psync("load", f"{place}-two", typed=psync("dump", f"{place}-one").out).code == 0
    with PickleShareDB(f"{place}-two") as db:
        assert db.hdict("hashed") == expected
        db.hset("hashed", 1, "newest")
        assert db.hdict("hashed") == expected | {1: "newest"}


def test_an_empty_store_dumps_as_an_empty_list(root: Path, place: str) -> None:
    assert psync("dump", root).out == "[]\n"
    assert psync("load", f"{place}-two", typed="[]\n").code == 0


@files
def test_dump_looks_at_this_directory_when_none_is_named(root: Path) -> None:
    PickleShareDB(root)["a"] = 1
    assert psync("dump", cwd=root).out == "[('a', 1)]\n"


def test_load_makes_the_store_exactly_what_the_dump_holds(root: Path) -> None:
    with PickleShareDB(root) as db:
        db.update({"a": 1, "old": 2, "folder": 3, "value/below": 4})
        assert psync("load", root, typed="[('a', 'new'), ('folder/b', 1), ('value', 2)]").out == "3 stored, 3 removed\n"
        assert dict(db) == {"a": "new", "folder/b": 1, "value": 2}


def test_load_with_keep_removes_nothing(root: Path) -> None:
    with PickleShareDB(root) as db:
        db.update({"a": 1, "old": 2})
        assert psync("load", "--keep", root, typed="{'a': 'new'}").out == "1 stored, 0 removed\n"
        assert dict(db) == {"a": "new", "old": 2}


@files
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1 is no Python literal"),
        ("[('a', 1),\n ('b', <object at 0x7f>)]", "line 2 is no Python literal: ('b', <object at 0x7f>)]"),
        ("[('a', __import__('os').system('touch ran'))]", "line 1: the value of a is no Python literal"),
        ("[('a', 1),\n ('b', open('ran', 'w'))]", "line 2: the value of b is no Python literal: open('ran', 'w')"),
        ("[(f('x'), 1)]", "line 1: a key is no Python literal"),
        ("{**{'a': 1}}", "is no Python literal"),
        ("[1]", "line 1: a pair (key, value) should stand here"),
        ("[('a', 1, 2)]", "line 1: a pair (key, value) should stand here"),
        ("[(1, 2)]", "line 1: a key must be a str, not 1"),
        ("[('a', 1), ('../b', 2)]", "'../b' can't be a key"),
        ("ItemsView(PickleShareDB('/tmp/db'))", "this is no dump"),
        ("[('a', {[]: 1})]", "the value of a is no Python literal"),
        ("[('a', " + "[" * 5000 + "]" * 5000 + ")]", "Python literal"),
        ("[('a', '\0')]", "Python literal"),
    ],
)
def test_what_is_not_all_literals_is_refused_and_nothing_is_changed(root: Path, text: str, complaint: str) -> None:
    (root / "work").mkdir()
    with PickleShareDB(root / "db") as db:
        db["kept"] = 1
        ran = psync("load", root / "db", typed=text, cwd=root / "work")
        assert ran.code == 1
        assert ran.err.startswith("psync load: ")
        assert complaint in ran.err
        assert ran.err.count("\n") == 1
        assert dict(db) == {"kept": 1}
    assert list((root / "work").iterdir()) == [], "something in the text was run"


def test_what_cannot_be_loaded_back_is_named(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["day"] = datetime.date(2026, 11, 24)
        db["fine"] = 1
        db["nan"] = [float("nan")]
    ran = psync("dump", root)
    assert ran.code == 1
    assert "'day': can't be loaded back: it has a datetime.date in it" in ran.err
    assert "'nan': can't be loaded back: it has the number nan in it" in ran.err
    assert "fine" not in ran.err
    assert "datetime.date(2026, 11, 24)" in ran.out
    assert "('fine', 1)" in ran.out


@files
def test_what_cannot_be_read_is_named_and_the_rest_is_dumped(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["a"] = 1
        db["z"] = 2
    (root / "corrupt").write_bytes(b"\x80\x05 not a pickle")
    (root / "foreign").write_bytes(b"\x80\x02cno_such_module\nKind\n.")
    ran = psync("dump", root)
    assert (ran.code, ast.literal_eval(ran.out)) == (1, [("a", 1), ("z", 2)])
    assert "'corrupt'" in ran.err
    assert "'foreign': can't be unpickled here: ModuleNotFoundError" in ran.err
    assert (root / "corrupt").read_bytes() == b"\x80\x05 not a pickle"


def test_a_folder_that_never_was_a_store_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name in ("README.md", ".git/config", "photo.jpg"):
        (tmp_path / name).write_bytes(b"# something else\xff")
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    ran = psync("dump", cwd=tmp_path)
    assert (ran.code, ran.out) == (1, "[]\n")
    assert "README.md" in ran.err and "still at" in ran.err
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before


@files
def test_a_key_seals_no_store_that_is_only_looked_at(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    monkeypatch.setitem(ENVIRON, "PSYNC_KEY_FILE", str(key))
    ran = psync("dump", root)
    assert (ran.code, ran.out, ran.err) == (0, "[]\n", "")
    assert list(root.iterdir()) == []


def test_a_reader_that_stops_early_is_no_trouble(root: Path) -> None:
    with PickleShareDB(root) as db:
        db["large"] = "x" * 5_000_000
    command = f"{sys.executable} -m psync dump {shlex.quote(str(root))} | head -c 10"
    ran = subprocess.run(command, shell=True, env=ENVIRON, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("[('large',", "")


@files
def test_dump_makes_no_directory(root: Path) -> None:
    ran = psync("dump", root / "nothing here")
    assert (ran.code, ran.err) == (1, f"psync dump: {root}/nothing here is not a directory\n")
    assert not (root / "nothing here").exists()


# -- literals ------------------------------------------------------------------------------------

busy_machine = settings(suppress_health_check=[HealthCheck.too_slow])
hashables = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner),
    max_leaves=5,
)
anything = st.recursive(
    hashables | st.frozensets(hashables, max_size=2) | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(hashables, inner) | st.sets(hashables) | st.tuples(inner),
    max_leaves=20,
)


def exactly(value: Any) -> Any:
    """To compare with ``==`` what that takes for equal: True and 1, 0.0 and -0.0."""
    if isinstance(value, dict):
        return "dict", [(exactly(key), exactly(each)) for key, each in value.items()]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(exactly(each)) for each in value)
    return (type(value), [exactly(each) for each in value]) if isinstance(value, list | tuple) else repr(value)


@busy_machine
@given(anything)
def test_a_value_comes_back_as_it_was_or_it_was_said_that_it_would_not(value: Any) -> None:
    if literal.why_not(value) is None:
        [(key, back)] = literal.pairs(f"[{literal.shown('key', value)}]")
        assert (key, exactly(back)) == ("key", exactly(value))


@busy_machine
@given(st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_plain_values_can_all_come_back(value: Any) -> None:
    assert literal.why_not(value) is None


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_value_that_can_not_print_itself_is_printed_by_its_type() -> None:
    assert literal.shown("key", [Shy()]) == "('key', <builtins.list that can't be printed: RuntimeError>)"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: type("Text", (str,), {})("x"), "Text"),
        (lambda: frozenset({1}), "a builtins.frozenset"),
        (lambda: {1: float("inf")}, "the number inf"),
        (lambda: 10**5000, "the number"),
        (lambda: Ellipsis, "a builtins.ellipsis"),
    ],
)
def test_what_prints_as_something_else_is_no_literal(make: Any, reason: str) -> None:
    assert reason in (literal.why_not(make()) or "")


def test_what_contains_itself_or_is_too_deep_is_no_literal() -> None:
    circle: list[Any] = []
    circle += [circle, circle]
    assert literal.why_not(circle) == "a list that contains itself"
    deep: list[Any] = []
    for _ in range(literal.MAX_NESTING_LEVELS - 1):
        deep = [deep]
    assert literal.why_not(deep) is None
    assert next(literal.pairs(f"[{literal.shown('key', deep)}]")) == ("key", deep)
    assert literal.why_not([deep]) == f"a list nested more than {literal.MAX_NESTING_LEVELS} levels deep"


def test_a_failure_is_one_line() -> None:
    with pytest.raises(Failure) as caught:
        list(literal.pairs("[('a', " + "f(" * 50 + ")" * 50 + ")]"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
