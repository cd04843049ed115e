"""A few bytes can ask an unpickler for gigabytes: such a file is damaged, and costs no memory."""

from __future__ import annotations

import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from psync import PickleShareDB
from psync.engine.encoding import pickle_scan
from psync.engine.encoding.framing import Unreadable
from psync.errors import CorruptValue
from tests.store.memory_limit import ROOM, with_memory_limit
from tests.store.test_corruption import quarantined

U64 = struct.Struct("<Q").pack
BOMBS: dict[str, bytes] = {
    "BINBYTES of 3 GB": b"\x80\x03B\xff\xff\xff\xb0.",
    "BINUNICODE of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "BINSTRING of 2 GB": b"\x80\x02T\xff\xff\xff\x7f.",
    "LONG4 of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "LONG4 of a negative size": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "LONG_BINPUT far away": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "LONG_BINPUT at 4 GB": b"\x80\x02Nr\xff\xff\xff\xff.",
    "PUT far away": b"\x80\x02Np2000000000\n.",
    "PUT with a long number": b"\x80\x02Np" + b"9" * 4000 + b"\n.",
    "BINBYTES8 of 4 EB": b"\x80\x04\x8e" + U64(2**62) + b".",
    "BINBYTES8 of 5 GB": b"\x80\x04\x8e" + U64(5 << 30) + b".",
    "BINUNICODE8 of 1 TB": b"\x80\x04\x8d" + U64(2**40) + b".",
    "BYTEARRAY8 of 1 TB": b"\x80\x05\x96" + U64(2**40) + b".",
    "BYTEARRAY8 of 3 GB": b"\x80\x05\x96" + U64(3 << 30) + b"x" * 1000 + b".",
    "FRAME of 1 TB": b"\x80\x04\x95" + U64(2**40) + b"N.",
    "FRAME of 2 ** 64": b"\x80\x04\x95" + U64(2**64 - 1) + b"N.",
    "FRAMEs in FRAMEs": b"\x80\x04" + b"".join(b"\x95" + U64(2**30 + number) for number in range(500)) + b"N.",
    "a FRAME in the middle": b"\x80\x04]\x94" + b"(" + b"N" * 100 + b"\x95" + U64(3 << 30) + b"e.",
    "a bomb behind a good start": pickle.dumps(list(range(100)), protocol=2)[:-1] + b"B\xff\xff\xff\xb0.",
    "a bomb as the last item": b"\x80\x03](K\x01B\xff\xff\xff\xb0e.",
    "a decimal too long to parse": b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
    "memo after memo": b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", 1 << bit) for bit in range(32)) + b".",
}


HARMLESS = {"PUT with a long number", "a decimal too long to parse"}
"""What an unpickler refuses by itself, before it takes memory."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_seen_before_anything_is_unpickled(name: str) -> None:
    if name in HARMLESS:
        with pytest.raises((ValueError, OverflowError)):
            pickle.loads(BOMBS[name])
    else:
        with pytest.raises(Unreadable):
            pickle_scan.check(BOMBS[name])


def outcomes(root: Path) -> dict[str, str]:
    """How each bomb ended, and what the process took at most."""
    found = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with PickleShareDB(root) as db:
        for name in sorted(db.keys("bombs/*")):
            try:
                found[name.removeprefix("bombs/")] = f"read {type(db[name]).__name__}"
            except CorruptValue:
                found[name.removeprefix("bombs/")] = "CorruptValue"
        for name in sorted(db.keys("category/*")):
            try:
                db.hget("category", "item", None)
            except CorruptValue:
                found[name] = "CorruptValue"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < ROOM / 2, f"it took {grown >> 20} MB"
    return found


def test_a_bomb_is_damage_and_takes_no_memory(disk: Any) -> None:
    (disk.root / "bombs").mkdir(mode=0o700)
    for name, bomb in BOMBS.items():
        (disk.root / "bombs" / name).write_bytes(bomb)
    assert with_memory_limit(outcomes, disk.root) == {name: "CorruptValue" for name in BOMBS}
    assert {path.name: path.read_bytes() for path in (disk.root / "bombs").iterdir()} == BOMBS
    assert quarantined(disk.root) == []  # nothing tells them from files of others


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_in_a_bucket_is_damage(disk: Any, name: str) -> None:
    (disk.root / "category").mkdir(mode=0o700)
    for bucket in ("43", "xx"):
        (disk.root / "category" / bucket).write_bytes(BOMBS[name])
    with pytest.warns(RuntimeWarning, match="category/"):
        assert disk().hdict("category") == {}
    assert [path.read_bytes() for path in (disk.root / "category").iterdir()] == [BOMBS[name]] * 2
