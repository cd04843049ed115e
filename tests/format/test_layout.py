"""The names on disk, row by row: layout builds each and reads it back; and what the page says lies there lies there."""

from __future__ import annotations

import json
import pickle
import struct
import tarfile
from binascii import crc_hqx
from pathlib import Path
from zlib import crc32

import pytest

from psync.engine.directory import layout
from psync.engine.directory.layout import (
    FORMAT_VERSION,
    Layout,
    decided_path,
    held_by,
    hole_in,
    is_leftover,
    is_successor,
    may_be_bucket,
    name_at_end,
    number_in,
    prepared_path,
    replaced_name,
    slot_of,
)
from tests.format.make_golden import GOLDEN, VALUES
from tests.support import files

HERE = Layout("/store")
LOG = ".psync/queue/q"

ROWS = {
    "a value": (HERE.path("a/b"), "/store/a/b"),
    "psync's own": (HERE.own, "/store/.psync"),
    "format": (HERE.format, "/store/.psync/format"),
    "temporary": (HERE.tmp, "/store/.psync/tmp"),
    "owner": (HERE.owner(255), "/store/.psync/owners/00000000000000ff"),
    "guard": (HERE.guard("a/b"), "/store/.psync/guards/a%2Fb"),
    "mutex": (HERE.lock("a%b ä"), "/store/.psync/locks/a%25b %C3%A4"),
    "flags": (HERE.armed, "/store/.psync/wake/armed"),
    "slot": (HERE.slot(10), "/store/.psync/wake/00a"),
    "waiter slot": (HERE.slot(66559), "/store/.psync/wake/103ff"),
    "pending": (HERE.pending, "/store/.psync/pending"),
    "quarantine": (HERE.refuge("a/b", 17), "/store/.psync/quarantine/17-a%2Fb"),
    "segment": (HERE.segment(LOG, 1 << 20), f"/store/{LOG}/log/0000000000100000"),
    "statuses": (HERE.marks(LOG, 0), f"/store/{LOG}/log/0000000000000000.marks"),
    "lost": (HERE.hole(LOG, 32, 64), f"/store/{LOG}/log/0000000000000020-0000000000000040.lost"),
    "tail": (HERE.log(LOG, "tail"), f"/store/{LOG}/log/tail"),
    "prepared": (prepared_path("/store/a/b"), "/store/a/.psync-new-b"),
    "decided": (decided_path("/store/a/b"), "/store/a/.psync-now-b"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_name_is_built_as_the_table_says(row: str) -> None:
    built, wanted = ROWS[row]
    assert built == wanted


def test_a_root_that_ends_with_a_slash_has_the_same_paths() -> None:
    assert Layout("/").path("a") == "/a" and Layout("/").own == "/.psync"


@pytest.mark.parametrize(
    ("name", "number"),
    [("00000000000000ff", 255), ("f" * 16, (1 << 64) - 1), ("0" * 15, None), ("00000000000000FF", None), ("tail", None),
     ("0000000000000000.marks", None), ("..%2f" + "0" * 11, None)],
)  # fmt: skip
def test_a_number_is_read_back_and_nothing_else_is_one(name: str, number: int | None) -> None:
    assert number_in(name) == number


@pytest.mark.parametrize(
    ("name", "stretch"),
    [(f"{32:016x}-{64:016x}.lost", (32, 64)), (f"{32:016x}-{64:016x}", None), (f"{32:016x}.lost", None),
     ("-.lost", None)],
)  # fmt: skip
def test_a_lost_range_is_read_back_and_nothing_else_is_one(name: str, stretch: tuple[int, int] | None) -> None:
    assert hole_in(name) == stretch


@pytest.mark.parametrize("name", ["b", "n" * 244, "n" * 245, "ä" * 127, "x" * 255, "\udcff" * 100])
def test_a_successor_is_read_back_whatever_the_name(name: str) -> None:
    path = f"/store/a/{name}"
    for successor in (prepared_path(path), decided_path(path)):
        segment = successor.rpartition("/")[2]
        assert is_successor(segment) and len(segment.encode("utf-8", "surrogateescape")) <= 255
        assert replaced_name(successor, lambda _: b"value" + name_at_end(path)) == name
    assert held_by(decided_path(path), lambda _: name_at_end(path)) == name
    assert held_by(prepared_path(path), lambda _: name_at_end(path)) is None
    assert held_by(path, lambda _: b"") == name and not is_successor(name)


def test_what_an_nfs_client_leaves_holds_nothing() -> None:
    assert is_leftover(".nfs00000000abcdef01") and held_by("/store/.nfs0123", lambda _: b"") is None
    assert not is_leftover(".nfs") and not is_leftover("a.nfs01")


def test_names_of_two_characters_may_be_buckets() -> None:
    assert [may_be_bucket(path) for path in ("/store/c/0f", "/store/c/xx", "/store/c/abc", "/store/a")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_slot_is_a_checksum_of_the_name() -> None:
    assert slot_of("category/0f") == crc32(b"category/0f") % 1024
    assert 0 <= slot_of("\udcff") < 1024


def test_long_names_are_cut_and_told_apart() -> None:
    names = {HERE.guard("x" * 300), HERE.guard("x" * 301), HERE.guard("x" * 299 + "y")}
    assert len(names) == 3 and all(len(name.rpartition("/")[2]) <= 200 for name in names)


# -- what lies there, read by the page alone --------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of this version."""
    place = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / f"version-{FORMAT_VERSION}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / "taken"


def double_buffer(data: bytes, count: int) -> list[int]:
    (number,) = struct.unpack_from("<Q", data)
    copy = data[8 + number % 2 * 8 * (count + 2) :][: 8 * (count + 2)]
    first, *values, check = struct.unpack(f"<{count + 2}Q", copy)
    assert (first, check) == (number, crc32(copy[:-8])) and len(data) == 8 + 16 * (count + 2)
    return values


def framed(data: bytes) -> bytes:
    begin, crc, middle, length, end = struct.unpack_from("<3sI3sQc", data)
    payload = data[19 : 19 + length]
    assert (begin, middle, end) == (b"\x80\x05J", b"0\x8a\x08", b"0") and crc == crc32(payload)
    return payload


def test_the_page_tells_of_each_kind_of_file_in_the_store(golden: Path) -> None:
    page = layout.__doc__ or ""
    named = {path.relative_to(golden).parts[1] for path in golden.rglob(".psync/*")}
    own = {"format", "tmp", "owners", "guards", "locks", "wake"}
    assert own <= named and all(f"``{name}" in page for name in own | {"pending", "quarantine", "pair", "seal"})
    parts = {path.name for path in golden.rglob("log/*")} - {"tail", "front", "sync", "returned", "delayed"}
    assert all(number_in(part.removesuffix(".marks")) is not None for part in parts)
    assert all(f"``{part}``" in page for part in ("tail", "front", "sync", "returned", "delayed"))


@files
def test_every_file_but_those_of_logs_registers_and_processes_is_a_pickle(golden: Path) -> None:
    for path in golden.rglob("*"):
        if path.is_file() and not {"log", "owners"} & {*path.parts}:
            data = path.read_bytes()
            if not data.startswith(b"psync=1\n"):
                pickle.loads(data)


def test_values(golden: Path) -> None:
    for name, value in VALUES.items():
        assert pickle.loads(framed((golden / name).read_bytes())) == value
    assert framed((golden / ".psync/format").read_bytes()) == b"\x80\x05B\x0f\x00\x00\x00psync format 1\n."


def test_buckets(golden: Path) -> None:
    for path in (golden / "category").iterdir():
        data = path.read_bytes()
        assert data[:4] == b"\x80\x05}K" and data[5:6] == b"0" and data[-1:] == b"."
        assert data[-7:-6] == b"J" and data[-2:-1] == b"0"
        assert struct.unpack("<I", data[-6:-2])[0] == crc32(data[:-7])


def test_a_register(golden: Path) -> None:
    for name, begin in (("event/ready", 28), ("thing/large", 4096)):
        data = (golden / ".psync" / name).read_bytes()
        magic, number, offset, size, crc = struct.unpack_from("<8sQIII", data)
        value = data[offset : offset + size]
        assert (magic, number, offset) == (b"psync=1\n", 1, begin) and len(data) >= 4096
        assert crc == crc32(struct.pack("<QII", number, offset, size) + value)


def test_a_mutex_the_flags_and_a_process(golden: Path) -> None:
    own = golden / ".psync"
    (mutex,) = (own / "locks").glob("*lock%2Flock")
    head, word, holder, end = struct.unpack("=4sQQc", mutex.read_bytes())
    assert (head, word, end) == (b"\x80\x05C\x10", 5 * 65537, b".") and holder
    (owner,) = (own / "owners").iterdir()
    assert number_in(owner.name) == holder
    text, _, last = owner.read_bytes()[:-1].rpartition(b"\n")
    assert last == b"%d %08x" % (len(text), crc32(text)) and json.loads(text)["host"] == "golden"
    armed = (own / "wake/armed").read_bytes()
    assert armed[:7] == b"\x80\x05B" + struct.pack("<I", 66560) and len(armed) == 7 + 66560 + 1


def test_a_log(golden: Path) -> None:
    log = golden / ".psync/queue/jobs/log"
    tail = double_buffer((log / "tail").read_bytes(), 9)
    front = double_buffer((log / "front").read_bytes(), 9)
    end, base, appended = tail[:3]
    assert (base, appended, tail[3], tail[5]) == (0, 8, 1, 0) and tail[8] == 0x60D60D
    assert front[7] == 1  # one is delayed
    segment, statuses = (log / f"{0:016x}").read_bytes(), (log / f"{0:016x}.marks").read_bytes()
    found, position = [], 0
    while position < end:
        length, crc, more, check = struct.unpack_from("<IIII", segment, position)
        payload = segment[position + 16 : position + 16 + length]
        assert crc == crc32(payload, position + 1) and check == 0xFFFFFFFF ^ length ^ more << 8
        found.append(status(statuses[position // 2 :][:16], position)[0])
        position += (16 + length + 31) // 32 * 32
    assert (position, len(found)) == (end, appended)
    assert found == [2, 2, 3, 1, 0, 0, 0, 4]
    late = (log / "delayed").read_bytes()[:8]
    assert crc_hqx(late[:6], 0xA5A5) == int.from_bytes(late[6:], "little")
    assert len(double_buffer((golden / ".psync/queue/durable/log/sync").read_bytes(), 3)) == 3


def status(raw: bytes, position: int) -> tuple[int, int, int]:
    """State, attempt and owner."""
    first, attempt, check, beat, lease, owner = struct.unpack("<BHHBeQ", raw)
    if not first:
        return 0, 0, 0
    if first & 0x7F not in (1, 4):
        owner = 0
    zeroed = struct.pack("<BHHBeQ", first, attempt, 0, beat, lease, owner)
    assert check ^ (position >> 5 & 0xFFFF) == crc_hqx(zeroed, 0)
    return first & 0x7F, attempt, owner
