"""Which strings are keys, and which bucket holds a key: two tables."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import os
import pathlib
import subprocess
import sys
import uuid
import zlib
from collections.abc import Hashable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psync.errors import InvalidKey
from psync.store.key_hash import gethashfile, portable_hash
from psync.store.keys import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, check, segment_fault
from tests.support import scaled

# -- names -----------------------------------------------------------------------------------------

GOOD = [
    "a",
    "a/b/c",
    "aku ankka",
    " ",
    "ends with a space ",
    "back\\slash",
    "..\\..\\x",
    "C:",
    "~",
    "line\nbreak",
    "\x01\x7f",
    "ä/日本語/🦆",
    "\udc80",
    "a/\udcff.bin",
    ".hidden",
    "...",
    "..a",
    "a..",
    "a/.psync",
    ".psyncs",
    ".nfs",
    ".nfsx12",
    "a.nfs12",
    "*",
    "[!]?",
    "xx",
    "CON",
    "-rf",
    "a" * MAX_SEGMENT_BYTES,
    "ä" * (MAX_SEGMENT_BYTES // 2),
    "/".join(["a" * 149] * 20),
]

BAD = [
    ("", "empty"),
    ("/x", "begins with a slash"),
    ("/", "begins with a slash"),
    ("x/", "ends with a slash"),
    ("a//b", "empty segment"),
    (".", "segment '.'"),
    ("..", "segment '..'"),
    ("../x", "segment '..'"),
    ("a/../b", "segment '..'"),
    ("a/./b", "segment '.'"),
    ("a/..", "segment '..'"),
    ("\0", "NUL"),
    ("a/b\0c", "NUL"),
    ("a" * (MAX_SEGMENT_BYTES + 1), "256 bytes"),
    ("ä" * 128, "256 bytes"),
    ("/".join(["a" * 150] * 20), "3019 bytes"),
    ("\ud800", "lone surrogate"),
    ("a/\udfff", "lone surrogate"),
    ("\udcc3\udca4", "escaped bytes"),
    (".psync", "psync's own"),
    (".psync/queue/x", "psync's own"),
    (".nfs00000000a1b2c3d400000012", "NFS"),
    ("a/.nfsABC/b", "NFS"),
]


@pytest.mark.parametrize("key", GOOD, ids=repr)
def test_what_can_be_a_name_is_a_key(key: str) -> None:
    assert check(key) == key


@pytest.mark.parametrize(("key", "why"), BAD, ids=lambda text: repr(text)[:30])
def test_what_can_not_be_a_name_is_refused_with_the_reason(key: str, why: str) -> None:
    with pytest.raises(InvalidKey, match=why) as caught:
        check(key)
    assert caught.value.key == key
    assert isinstance(caught.value, KeyError) and isinstance(caught.value, ValueError)
    assert "a key is one or more names" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", [None, 1, b"a", ("a",), ["a"], {}, pathlib.Path("a"), object], ids=repr)
def test_a_key_is_a_str(key: Any) -> None:
    with pytest.raises(InvalidKey, match=f"must be a str, not {type(key).__name__}"):
        check(key)


def test_a_bad_key_is_refused_every_time() -> None:
    for _ in range(3):
        with pytest.raises(InvalidKey):
            check("a/../b")


def test_a_subclass_of_str_is_a_key_by_its_characters() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    assert type(check(Colour.RED)) is str
    assert check(Colour.RED) == "red"


def test_a_key_that_can_not_even_be_shown_is_refused() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(InvalidKey, match="Rude"):
        check(Rude())


ODD = st.lists(
    st.sampled_from(["/", ".", "..", "\0", ".psync", "\udcc3", "\udca4", "\ud800", "ä"]) | st.text(max_size=5),
    max_size=9,
)


@given(ODD.map("".join))
def test_a_key_is_one_file_below_the_root_and_no_two_keys_are_the_same_one(key: str) -> None:
    try:
        check(key)
    except InvalidKey:
        return
    path = os.path.normpath(f"/root/{key}")
    assert path == f"/root/{key}"  # not above the root, not the root, nothing that normalizes away
    assert os.fsdecode(os.fsencode(key)) == key
    assert all(len(os.fsencode(part)) <= MAX_SEGMENT_BYTES for part in key.split("/"))
    assert len(os.fsencode(key)) <= MAX_KEY_BYTES
    assert key.split("/", 1)[0] != ".psync"


@given(st.text(alphabet="aä.\0/ \udcc3\udca4\ud800", max_size=6))
def test_a_segment_is_a_key_or_has_a_fault(segment: str) -> None:
    assert segment_fault(f"{segment}/") is None or "/" in segment or segment_fault(segment) is not None
    if "/" not in segment and segment_fault(segment) is None:
        assert check(segment) == segment


# -- buckets ---------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Level(enum.IntEnum):
    HIGH = 300


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Pair:
    left: int


class Sub(Pair):
    pass


FROZEN: list[tuple[Any, str]] = [
    ("", "00"),
    ("a", "43"),
    ("hello", "86"),
    ("ä/日本語", "53"),
    ("\udc80", "fb"),
    (b"", "00"),
    (b"hello", "86"),
    (0, "00"),
    (1, "01"),
    (255, "ff"),
    (256, "00"),
    (-1, "fe"),
    (-2, "fe"),
    (-3, "fd"),
    (2**61 - 1, "00"),
    (10**30, "82"),
    (0.5, "00"),
    (0.1, "40"),
    (-2.75, "fe"),
    (1e300, "3c"),
    (float("inf"), "2f"),
    (float("nan"), "00"),
    (1 + 2j, "87"),
    (fractions.Fraction(1, 3), "55"),
    (decimal.Decimal("0.1"), "cc"),
    (None, "23"),
    ((), "29"),
    ((1, "a"), "44"),
    ((1, (2, None)), "23"),
    (frozenset(), "29"),
    (frozenset({1, "a", b"a"}), "a0"),
    (datetime.datetime(2026, 11, 24, 1, 2, 3, 4), "18"),
    (datetime.date(2026, 11, 24), "a4"),
    (datetime.timedelta(days=1, microseconds=5), "30"),
    (uuid.UUID(int=12345), "00"),
    (pathlib.PurePosixPath("a/b"), "1c"),
    (Colour.RED, "e2"),
    (Colour.GREEN, "45"),
    (Access.READ | Access.WRITE, "3c"),
    (Pair(1), "7a"),
    (int, "84"),
    (..., "42"),
]
"""Written down once: a store of yesterday is read tomorrow."""


@pytest.mark.parametrize(
    ("key", "bucket"), FROZEN, ids=[f"{number}-{bucket}" for number, (_, bucket) in enumerate(FROZEN)]
)
def test_the_bucket_of_a_key_never_changes(key: Any, bucket: str) -> None:
    assert gethashfile(key) == bucket


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_every_process_finds_the_same_bucket(seed: str) -> None:
    program = (
        "import json; from tests.store.test_keys import FROZEN; from psync.store.key_hash import gethashfile\n"
        "print(json.dumps([gethashfile(key) for key, _ in FROZEN]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert json.loads(told.stdout) == [bucket for _, bucket in FROZEN]


HOUR = datetime.timezone(datetime.timedelta(hours=1))
MOMENT = datetime.datetime(2026, 11, 24, 1, tzinfo=datetime.UTC)

EQUAL = [
    (1, 1.0, True, fractions.Fraction(1), decimal.Decimal("1.00"), 1 + 0j),
    (0, 0.0, -0.0, False, decimal.Decimal("-0"), 0j, -0j),
    (300, Level.HIGH, 300.0),
    (0.5, fractions.Fraction(1, 2), decimal.Decimal("0.5"), 0.5 + 0j),
    (2**80, float(2**80), decimal.Decimal(2**80)),
    (float("inf"), decimal.Decimal("inf"), complex("inf")),
    ((1, 0.0), (True, -0.0), Point(1, 0)),
    ((1, (2.0, frozenset({3}))), (1.0, (2, frozenset({3.0})))),
    (frozenset({1, 2, 3}), frozenset({3.0, 2, True})),
    (b"bytes", memoryview(b"bytes")),
    (MOMENT, datetime.datetime(2026, 11, 24, 2, tzinfo=HOUR)),
    (datetime.datetime.min.replace(tzinfo=HOUR), datetime.datetime.min.replace(tzinfo=HOUR, fold=1)),
    (pathlib.PurePosixPath("a//b"), pathlib.Path("a/b")),
    (pathlib.PureWindowsPath("A\\B"), pathlib.PureWindowsPath("a/b")),
    (uuid.UUID(int=5), uuid.UUID(bytes=b"\0" * 15 + b"\5")),
    (Access.READ | Access.WRITE, Access(3)),
    (range(0), range(1, 1)),
]


@pytest.mark.parametrize("keys", EQUAL, ids=lambda keys: repr(keys[0])[:30])
def test_equal_keys_have_the_same_bucket(keys: tuple[Hashable, ...]) -> None:
    assert all(key == keys[0] for key in keys)
    assert len({gethashfile(key) for key in keys}) == 1


def test_an_instance_of_a_subclass_is_sought_where_its_base_class_is() -> None:
    class Base:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Base)

        def __hash__(self) -> int:
            return 1

    class Derived(Base):
        pass

    assert Base() == Derived()
    assert gethashfile(Base()) == gethashfile(Derived())


ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=9), st.fractions(),
    st.decimals(allow_nan=False, places=3), st.complex_numbers(), st.dates(), st.uuids(),
    st.datetimes(timezones=st.none() | st.timezones()),
)  # fmt: skip
KEYS = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4), max_leaves=9
)


@settings(max_examples=scaled(50))
@given(KEYS)
def test_every_key_has_a_bucket_of_two_hex_digits(key: Hashable) -> None:
    assert gethashfile(key) in {f"{number:02x}" for number in range(256)}


@given(st.tuples(ATOMS, ATOMS))
def test_keys_that_turn_out_equal_share_their_bucket(keys: tuple[Hashable, Hashable]) -> None:
    if keys[0] == keys[1]:
        assert gethashfile(keys[0]) == gethashfile(keys[1])


NUMBERS = st.one_of(
    st.integers(), st.integers(-(2**200), 2**200), st.floats(allow_nan=False), st.fractions(), st.booleans(),
    st.decimals(allow_nan=False, places=20), st.complex_numbers(allow_nan=False),
)  # fmt: skip


@given(NUMBERS)
def test_a_number_is_where_pickleshare_put_it(key: Hashable) -> None:
    assert gethashfile(key) == ("%02x" % abs(hash(key) % 256))[-2:]  # noqa: UP031 (as it stands there)


@pytest.mark.skipif(sys.hash_info.modulus != 2**61 - 1, reason="hash() has another word size here")
@given(NUMBERS)
def test_the_hash_for_other_word_sizes_is_that_of_64_bits(key: Any) -> None:
    assert portable_hash(key) == hash(key)


@given(st.text(), st.binary())
def test_a_str_and_its_bytes_go_by_their_checksum(text: str, data: bytes) -> None:
    assert gethashfile(text) == f"{zlib.crc32(text.encode()) & 255:02x}"
    assert gethashfile(data) == f"{zlib.crc32(data) & 255:02x}"


@pytest.mark.parametrize("key", [[], {}, set(), bytearray(), (1, []), ("a", ({},))], ids=repr)
def test_what_no_dict_takes_has_no_bucket(key: Any) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        gethashfile(key)


def test_many_keys_of_a_kind_spread_over_the_buckets() -> None:
    for keys in (
        [f"run {number}" for number in range(5000)],
        [(number, f"{number % 7}") for number in range(5000)],
        [frozenset({number, -number}) for number in range(5000)],
        [uuid.UUID(int=number) for number in range(5000)],
        [datetime.date(2000, 1, 1) + datetime.timedelta(days=number) for number in range(5000)],
    ):
        assert len(set(map(gethashfile, keys))) > 200
