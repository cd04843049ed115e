"""Two handles in two processes against a dict: whichever of them is asked, the answer is the dict's."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from psync import PickleShareDB
from psync.store.glob import matching
from tests.store.rival import Rival
from tests.store.test_glob import Tree
from tests.support import fresh_in, scaled

KEYS = st.sampled_from(["a", "b c", "d/x", "d/y", "d/e/z", "ä", ".dot", "back\\slash", "new\nline"])
ROOTS = st.sampled_from(["h", "d/h"])
ITEM_KEYS = st.sampled_from(["k", "kk", "ä", 0, 1, -1, 1.5, None, True, (1, "a"), b"k", frozenset({1}), *range(2, 9)])
SIZES = st.sampled_from([0, 1, 100, 4000, 4050, 4077, 4090, 4096, 4200, 70_000])
PATTERNS = st.sampled_from(
    ["*", "**", "**/*", "d/*", "d/**", "*/x", "d/?", "[!a]*", "**/z", "a", "d/e/z", ".*", "none/*"]
)
MISSING = object()


@st.composite
def values(draw: st.DrawFn) -> Any:
    """Of the sizes where the store changes its ways: nothing, small, about a page, and many."""
    size, kind = draw(SIZES), draw(st.integers(0, 5))
    tag = draw(st.integers(0, 255))
    if kind == 0:
        return bytes((tag,)) * size
    if kind == 1:
        return chr(tag + 32) * size
    if kind == 2:
        return list(range(tag, tag + size // 10))
    if kind == 3:
        return {"tag": tag, "data": b"." * size, "parts": [None, True, {tag}]}
    return draw(st.sampled_from([None, False, 0, "", (), [], {}, tag, -tag, float(tag)]))


def with_tag(tag: int, old: Any) -> Any:
    """A function that both processes can import."""
    return [tag, old if not isinstance(old, list) else old[:1]]


def same(found: Any, expected: Any) -> bool:
    return type(found) is type(expected) and bool(found == expected)


class TwoProcesses(RuleBasedStateMachine):
    """`values` is what plain keys must hold; `fast` and `slow`, categories since and before their last `hcompress`."""

    rival: Rival
    parent: Any

    @initialize()
    def start(self) -> None:
        self.root = fresh_in(self.parent)
        self.here = PickleShareDB(self.root)
        self.rival.open(self.root)
        self.values: dict[str, Any] = {}
        self.fast: dict[str, dict[Any, Any]] = {"h": {}, "d/h": {}}
        self.slow: dict[str, dict[Any, Any]] = {"h": {}, "d/h": {}}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            try:
                self.everything()
            finally:
                self.here.close()
                shutil.rmtree(self.root, ignore_errors=True)

    def ask(self, there: bool, verb: str, *args: Any, **kwargs: Any) -> Any:
        if there:
            return self.rival.call(verb, *args, **kwargs)
        return getattr(self.here, verb)(*args, **kwargs)

    def refuses(self, there: bool, verb: str, *args: Any, **kwargs: Any) -> None:
        with pytest.raises(KeyError):
            self.ask(there, verb, *args, **kwargs)

    def all_of(self, root: str) -> dict[Any, Any]:
        return self.slow[root] | self.fast[root]

    def hashed(self, key: str) -> bool:
        return key.rpartition("/")[0] in self.fast

    # -- plain keys --------------------------------------------------------------------------------

    @rule(there=st.booleans(), key=KEYS, value=values())
    def set(self, there: bool, key: str, value: Any) -> None:
        """The other one has read the old value just now, and reads the new one at once."""
        assert same(self.ask(not there, "get", key), self.values.get(key))
        self.ask(there, "__setitem__", key, value)
        self.values[key] = value
        assert same(self.ask(not there, "get", key), value)

    @rule(there=st.booleans(), missing=KEYS)
    def get(self, there: bool, missing: str) -> None:
        for key, value in self.values.items():
            assert self.ask(there, "__contains__", key) is True
            for found in (self.ask(there, "__getitem__", key), self.ask(there, "waitget", key, 0)):
                assert same(found, value)
        if missing not in self.values:
            assert self.ask(there, "__contains__", missing) is False
            assert self.ask(there, "get", missing, "default") == "default"
            self.refuses(there, "__getitem__", missing)

    @rule(there=st.booleans(), key=KEYS, value=values(), default=st.booleans())
    def add_or_default(self, there: bool, key: str, value: Any, default: bool) -> None:
        if default:
            assert same(self.ask(there, "setdefault", key, value), self.values.setdefault(key, value))
        else:
            assert self.ask(there, "add", key, value) is (key not in self.values)
            self.values.setdefault(key, value)

    @rule(there=st.booleans(), key=KEYS, tag=st.integers(0, 99), default=st.booleans())
    def modify(self, there: bool, key: str, tag: int, default: bool) -> None:
        function = functools.partial(with_tag, tag)
        if key not in self.values and not default:
            self.refuses(there, "modify", key, function)
            return
        expected = with_tag(tag, self.values.get(key, "none"))
        assert same(self.ask(there, "modify", key, function, *(["none"] if default else [])), expected)
        self.values[key] = expected

    @rule(there=st.booleans(), key=KEYS, default=st.booleans())
    def pop(self, there: bool, key: str, default: bool) -> None:
        if key not in self.values and not default:
            self.refuses(there, "pop", key)
        else:
            args = ["default"] if default else []
            assert same(self.ask(there, "pop", key, *args), self.values.pop(key, "default"))

    @rule(there=st.booleans(), key=KEYS)
    def delete(self, there: bool, key: str) -> None:
        if key in self.values:
            del self.values[key]
            self.ask(there, "__delitem__", key)
        else:
            self.refuses(there, "__delitem__", key)

    @rule(there=st.booleans(), items=st.dictionaries(KEYS, values(), max_size=3))
    def update(self, there: bool, items: dict[str, Any]) -> None:
        self.ask(there, "update", items)
        self.values.update(items)

    @rule(there=st.booleans())
    @precondition(lambda self: not any(map(self.all_of, self.fast)))
    def popitem(self, there: bool) -> None:
        if self.ask(there, "keys"):
            key, value = self.ask(there, "popitem")
            if self.hashed(key):
                assert value == {}  # a bucket whose items are gone
            else:
                assert same(value, self.values.pop(key))
        else:
            assert not self.values
            self.refuses(there, "popitem")

    @rule(there=st.booleans(), sure=st.integers(0, 4))
    def clear(self, there: bool, sure: int) -> None:
        if sure == 0:
            self.ask(there, "clear")
            self.values.clear()
            for root in self.fast:
                self.fast[root], self.slow[root] = {}, {}

    # -- names -------------------------------------------------------------------------------------

    @rule(there=st.booleans(), pattern=PATTERNS)
    def glob(self, there: bool, pattern: str) -> None:
        found = self.ask(there, "keys", pattern)
        assert len(set(found)) == len(found)
        plain = sorted(key for key in found if not self.hashed(key))
        assert plain == sorted(matching(Tree(*self.values).entries, pattern))

    @rule(there=st.booleans())
    def names(self, there: bool) -> None:
        found = self.ask(there, "keys")
        assert sorted(key for key in found if not self.hashed(key)) == sorted(self.values)
        assert self.ask(there, "__len__") == len(found)
        held = {key.rpartition("/")[0] for key in found if self.hashed(key)}
        assert {root for root in self.fast if self.all_of(root)} <= held

    @rule(there=st.booleans(), key=st.none() | KEYS)
    def uncache(self, there: bool, key: str | None) -> None:
        self.ask(there, "uncache", *([] if key is None else [key]))

    # -- categories --------------------------------------------------------------------------------

    @rule(there=st.booleans(), root=ROOTS, key=ITEM_KEYS, value=values())
    def hset(self, there: bool, root: str, key: Any, value: Any) -> None:
        assert same(self.ask(not there, "hget", root, key, None), self.fast[root].get(key))
        self.ask(there, "hset", root, key, value)
        self.fast[root][key] = value
        assert same(self.ask(not there, "hget", root, key), value)

    @rule(there=st.booleans(), root=ROOTS, items=st.dictionaries(ITEM_KEYS, values(), max_size=4))
    def hupdate(self, there: bool, root: str, items: dict[Any, Any]) -> None:
        self.ask(there, "hupdate", root, items)
        self.fast[root].update(items)

    @rule(there=st.booleans(), root=ROOTS, other=ITEM_KEYS)
    def hget(self, there: bool, root: str, other: Any) -> None:
        for fast, held in ((True, self.fast[root]), (False, self.all_of(root))):
            for key in (other, *self.all_of(root)):
                if key in held:
                    assert same(self.ask(there, "hget", root, key, fast_only=fast), held[key])
                else:
                    assert self.ask(there, "hget", root, key, "default", fast) == "default"
                    self.refuses(there, "hget", root, key, fast_only=fast)

    @rule(there=st.booleans(), root=ROOTS, key=ITEM_KEYS, value=values())
    def hadd(self, there: bool, root: str, key: Any, value: Any) -> None:
        assert self.ask(there, "hadd", root, key, value) is (key not in self.all_of(root))
        if key not in self.all_of(root):
            self.fast[root][key] = value

    @rule(there=st.booleans(), root=ROOTS, key=ITEM_KEYS, pop=st.booleans())
    def hpop_or_hdel(self, there: bool, root: str, key: Any, pop: bool) -> None:
        held = self.all_of(root)
        if key not in held:
            self.refuses(there, "hpop" if pop else "hdel", root, key)
            assert self.ask(there, "hpop", root, key, "default") == "default"
            return
        found = self.ask(there, "hpop" if pop else "hdel", root, key)
        assert same(found, held[key]) if pop else found is None
        self.fast[root].pop(key, None)
        self.slow[root].pop(key, None)
        assert self.ask(not there, "hget", root, key, "default", fast_only=False) == "default"

    @rule(there=st.booleans(), root=ROOTS)
    def hcompress(self, there: bool, root: str) -> None:
        self.ask(there, "hcompress", root)
        self.slow[root], self.fast[root] = self.all_of(root), {}

    @rule(there=st.booleans(), root=ROOTS)
    def hdict(self, there: bool, root: str) -> None:
        found, expected = self.ask(there, "hdict", root), self.all_of(root)
        assert found == expected
        assert all(same(found[key], expected[key]) for key in expected)

    # -- all of it ---------------------------------------------------------------------------------

    def everything(self) -> None:
        """Both, and a handle that has seen nothing yet, agree with the dict."""
        with PickleShareDB(self.root) as fresh:
            for root in self.fast:
                for found in (self.ask(False, "hdict", root), self.ask(True, "hdict", root), fresh.hdict(root)):
                    assert found == self.all_of(root)
            for key, value in self.values.items():
                for found in (self.ask(False, "get", key), self.ask(True, "get", key), fresh[key]):
                    assert same(found, value)
            for keys in (self.ask(False, "keys"), self.ask(True, "keys"), fresh.keys()):
                assert sorted(key for key in keys if not self.hashed(key)) == sorted(self.values)
        assert not list(self.here.engine.list(".psync/quarantine", hidden=True))


@pytest.fixture
def rival() -> Iterator[Rival]:
    with Rival() as process:
        yield process


def test_two_processes_agree_with_a_dict_after_any_calls(rival: Rival, root: Path) -> None:
    machine = type("Machine", (TwoProcesses,), {"rival": rival, "parent": root})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=scaled(150),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
