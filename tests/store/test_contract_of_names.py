"""Every name of PickleShare 0.7.5 is here and takes what it took; every public name says what it gives."""

from __future__ import annotations

import collections.abc
import inspect
from pathlib import Path
from typing import Any

import pytest

import psync
from psync import PickleShareDB, PickleShareLink
from tests.support import files

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("__init__", ("root",), {}),
    ("__init__", (), {"root": "root"}),
    ("__getitem__", ("key",), {}),
    ("__setitem__", ("key", 1), {}),
    ("__delitem__", ("key",), {}),
    ("__iter__", (), {}),
    ("__len__", (), {}),
    ("__contains__", ("key",), {}),
    ("hset", ("root", "key", 1), {}),
    ("hset", (), {"hashroot": "root", "key": "key", "value": 1}),
    ("hget", ("root", "key"), {}),
    ("hget", ("root", "key", None, False), {}),
    ("hget", (), {"hashroot": "root", "key": "key", "default": None, "fast_only": False}),
    ("hdict", ("root",), {}),
    ("hdict", (), {"hashroot": "root"}),
    ("hcompress", ("root",), {}),
    ("hcompress", (), {"hashroot": "root"}),
    ("keys", (), {}),
    ("keys", ("*",), {}),
    ("keys", (), {"globpat": "*"}),
    ("uncache", (), {}),
    ("uncache", ("a", "b"), {}),
    ("waitget", ("key",), {}),
    ("waitget", ("key", 1), {}),
    ("waitget", (), {"key": "key", "maxwaittime": 1}),
    ("getlink", ("folder",), {}),
    ("getlink", (), {"folder": "folder"}),
    ("get", ("key", 1), {}),
    ("pop", ("key", 1), {}),
    ("popitem", (), {}),
    ("setdefault", ("key", 1), {}),
    ("update", ({"key": 1},), {}),
    ("clear", (), {}),
    ("items", (), {}),
    ("values", (), {}),
]
"""How PickleShare's methods were called; the calls of `MutableMapping` with them."""


@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_call_that_pickleshare_took_is_taken(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    inspect.signature(getattr(PickleShareDB, name)).bind(None, *args, **kwargs)


DEFAULTS = [("waitget", "maxwaittime", 60), ("hget", "fast_only", True), ("keys", "globpat", None)]


@pytest.mark.parametrize(("name", "parameter", "default"), DEFAULTS)
def test_the_defaults_are_pickleshares(name: str, parameter: str, default: Any) -> None:
    assert inspect.signature(getattr(PickleShareDB, name)).parameters[parameter].default == default


NEW = {
    "add": ["key", "value"],
    "modify": ["key", "function", "default"],
    "hdel": ["hashroot", "key"],
    "hpop": ["hashroot", "key", "default"],
    "hupdate": ["hashroot", "mapping"],
    "hadd": ["hashroot", "key", "value"],
    "hwait": ["hashroot", "key", "maxwaittime"],
    "waitany": ["keys", "maxwaittime"],
    "waitgone": ["key", "maxwaittime"],
    "sweep": [],
    "close": [],
}


@pytest.mark.parametrize("name", NEW)
def test_the_new_verbs_have_their_parameters(name: str) -> None:
    assert list(inspect.signature(getattr(PickleShareDB, name)).parameters)[1:] == NEW[name]


def test_a_store_is_a_mutable_mapping() -> None:
    assert issubclass(PickleShareDB, collections.abc.MutableMapping)


@files
def test_the_root_is_a_path(root: Path) -> None:
    with PickleShareDB(str(root)) as db:
        assert db.root == root
        assert isinstance(db.root, Path)


@files
def test_the_root_may_be_given_as_a_str_or_a_path_and_is_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.chdir(root)
    for place, real in ((root / "a", "a"), (str(root / "b" / "c"), "b/c"), ("~/d", "d"), ("e", "e")):
        with PickleShareDB(place) as db:
            db["key"] = 1
            assert db.root == root / real
        assert (root / real / "key").is_file()


def test_keys_are_a_list(db: PickleShareDB) -> None:
    db["a"] = db["b/c"] = 1
    assert isinstance(db.keys(), list)
    assert sorted(db.keys()) == ["a", "b/c"]
    assert db.keys("b/*") == ["b/c"]


def test_the_cache_is_a_mapping(db: PickleShareDB) -> None:
    assert isinstance(db.cache, collections.abc.Mapping)


def test_the_repr_names_the_place(root: Path) -> None:
    with PickleShareDB(root) as db:
        assert repr(db) == f"PickleShareDB('{root}')"


@pytest.mark.parametrize("kind", [PickleShareDB, PickleShareLink])
def test_every_public_name_says_what_it_gives(kind: type) -> None:
    undocumented = [
        name
        for name, thing in inspect.getmembers(kind)
        if not name.startswith("_") and (callable(thing) or isinstance(thing, property)) and not inspect.getdoc(thing)
    ]
    assert undocumented == []
    assert inspect.getdoc(kind)


def test_the_functions_of_pickleshare_are_there() -> None:
    assert psync.gethashfile("a") == "43"
    for name in ("PickleShareDB", "PickleShareLink", "gethashfile", "WorkQueue", "Task", "Mailbox"):
        assert name in psync.__all__
        assert getattr(psync, name) is not None
