"""CPython's own tests of the mapping protocol, on a store.

Its cases that use ints as keys are said again here with strings; what a store is not, is listed with the reason.
"""

from __future__ import annotations

import collections
import itertools
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.engine import MemoryEngine

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python was installed without its own tests")

NOT_A_STORE = {
    "test_fromkeys": "a MutableMapping has no fromkeys: a store is a place, not a literal",
    "test_copy": "a MutableMapping has no copy: two handles of one place are the same store",
    "test_repr": "the repr names the place; it does not print what may be gigabytes",
    "test_repr_deep": "as test_repr",
    "test_mutatingiteration": "others change a store at any time, so iterating over one that changes is no error",
}


class _OnStore(mapping_tests.TestHashMappingProtocol):  # type: ignore[name-defined,misc]
    """What CPython asks of a dict, where it makes sense for strings as keys."""

    __test__ = False

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="psync-mapping-"))
        self.numbers = itertools.count()
        self.opened: list[PickleShareDB] = []
        self.addCleanup(self.clean)

    def clean(self) -> None:
        for db in self.opened:
            db.close()
        shutil.rmtree(self.folder)

    def place(self) -> Any:
        raise NotImplementedError

    def type2test(self, *args: Any, **kwargs: Any) -> PickleShareDB:
        self.opened.append(PickleShareDB(self.place()))
        self.opened[-1].update(*args, **kwargs)
        return self.opened[-1]

    def test_values(self) -> None:
        mapping_tests.BasicTestMappingProtocol.test_values(self)
        self.assertEqual(list(self._full_mapping({"1": 2}).values()), [2])

    def test_items(self) -> None:
        mapping_tests.BasicTestMappingProtocol.test_items(self)
        self.assertEqual(list(self._full_mapping({"1": 2}).items()), [("1", 2)])

    def test_clear(self) -> None:
        d = self._full_mapping({"1": 1, "2": 2, "3": 3})
        d.clear()
        self.assertEqual(d, {})
        self.assertRaises(TypeError, d.clear, None)

    def test_update(self) -> None:
        mapping_tests.BasicTestMappingProtocol.test_update(self)
        d = self._empty_mapping()
        d.update({"1": 100})
        d.update({"2": 20})
        d.update({"1": 1, "2": 2, "3": 3})
        self.assertEqual(d, {"1": 1, "2": 2, "3": 3})
        d.update()
        self.assertEqual(d, {"1": 1, "2": 2, "3": 3})
        d = self._empty_mapping()
        d.update(x=100)
        d.update([("x", 1), ("y", 2)], y=3, z=4)
        self.assertEqual(d, {"x": 1, "y": 3, "z": 4})
        d = self._full_mapping({"1": 3, "2": 4})
        d.update(self._full_mapping({"1": 2, "3": 4, "5": 6}).items())
        self.assertEqual(d, {"1": 2, "2": 4, "3": 4, "5": 6})
        d.clear()
        d.update(collections.UserDict({"1": 1, "2": 2}))
        self.assertEqual(d, {"1": 1, "2": 2})

    def test_getitem(self) -> None:
        mapping_tests.TestMappingProtocol.test_getitem(self)

    def test_pop(self) -> None:
        mapping_tests.TestMappingProtocol.test_pop(self)

    def test_setdefault(self) -> None:
        mapping_tests.BasicTestMappingProtocol.test_setdefault(self)
        d = self._empty_mapping()
        self.assertIsNone(d.setdefault("key0"))
        d.setdefault("key0", [])
        self.assertIsNone(d.setdefault("key0"))
        d.setdefault("key", []).append(3)
        self.assertEqual(d["key"], [])  # where a dict keeps the caller's list, a store keeps what it was given

    def test_popitem(self) -> None:
        mapping_tests.BasicTestMappingProtocol.test_popitem(self)
        for size in (1, 2, 64, 256):
            d = self._full_mapping({repr(number): number for number in range(size)})
            popped = dict(d.popitem() for _ in range(size))
            self.assertEqual(popped, {repr(number): number for number in range(size)})
            self.assertFalse(d)

    def test_eq(self) -> None:
        self.assertEqual(self._empty_mapping(), self._empty_mapping())
        self.assertEqual(self._full_mapping({"1": 2}), self._full_mapping({"1": 2}))
        self.assertNotEqual(self._full_mapping({"1": 2}), self._full_mapping({"1": 3}))
        self.assertNotEqual(self._full_mapping({"1": 2}), self._full_mapping({"2": 2}))
        self.assertEqual(self._full_mapping({"1": 2}), {"1": 2})
        self.assertNotEqual(self._full_mapping({"1": 2}), [("1", 2)])


for _name in NOT_A_STORE:
    setattr(_OnStore, _name, None)


class TestInADirectory(_OnStore):
    __test__ = True

    def place(self) -> Path:
        return self.folder / str(next(self.numbers))


class TestInMemory(_OnStore):
    __test__ = True

    def place(self) -> MemoryEngine:
        return MemoryEngine()


def test_every_case_of_cpython_runs_or_is_listed_here() -> None:
    asked = set(unittest.TestLoader().getTestCaseNames(mapping_tests.TestHashMappingProtocol))
    run = set(unittest.TestLoader().getTestCaseNames(TestInADirectory))
    assert asked - run == set(NOT_A_STORE)


def test_a_store_has_none_of_the_methods_whose_cases_are_left_out() -> None:
    assert not hasattr(PickleShareDB, "copy") and not hasattr(PickleShareDB, "fromkeys")
