"""The bytes of each format: what is written is read, and each flipped bit and each cut is found, or does no harm."""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psync.engine.contract.log import Mark, State
from psync.engine.directory.buckets.transaction import read_intent
from psync.engine.directory.engine import DirectoryEngine
from psync.engine.directory.locks.mutex import TOKEN_STEP, verified
from psync.engine.directory.log.double_buffer import DoubleBuffer, MappedDoubleBuffer
from psync.engine.directory.log.position_file import PositionFile
from psync.engine.directory.log.record_format import ALIGN_BYTES, HEAD_BYTES, encode, fits, length_at, size_of
from psync.engine.directory.log.status_file import at_position, status_of, words_of
from psync.engine.encoding import pickle_scan
from psync.engine.encoding.framing import (
    CELL_HEAD,
    End,
    Unreadable,
    as_pickle,
    extension,
    follow,
    frame,
    frame_parts,
    frame_text,
    header_of,
    is_bucket,
    start,
    unframe,
    unframe_text,
    whole_bucket,
)
from psync.errors import CorruptValue
from tests.store.test_corruption import quarantined
from tests.support import files

PAYLOAD = pickle.dumps({"run": [1, 2, 3], "name": "seven"}, protocol=5)
SHORT = pickle.dumps(7, protocol=5)


def flips(data: bytes, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """`data` with each bit of a part of it flipped: where, and what it is then."""
    for at in range(begin, len(data) if end is None else end):
        for bit in range(8):
            yield at, data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


# -- frames --------------------------------------------------------------------------------------------


def read_file(data: bytes) -> bytes:
    """As a value is read: framed, or a plain pickle of somebody else's. Raises `Unreadable`."""
    payload = unframe(data)
    if payload is None:
        pickle_scan.check(data)
        return data
    return payload


@pytest.mark.parametrize("payload", [PAYLOAD, SHORT, as_pickle(b"text")])
def test_a_frame(payload: bytes) -> None:
    data = frame(payload)
    assert b"".join(frame_parts(payload)) == data and len(data) == CELL_HEAD + len(payload)
    assert unframe(data) == unframe(data + b"left behind") == payload
    assert pickle.loads(data) == pickle.loads(payload)
    head = header_of(data)
    assert head is not None and head.fits(payload) and not head.fits(payload + b"x")
    for _, flipped in flips(data):
        with pytest.raises(Unreadable):
            read_file(flipped)
    for size in range(len(data)):
        with pytest.raises(Unreadable):
            read_file(data[:size])


def test_a_text_frame() -> None:
    for text in (b"", b"{}", b"two\nlines\n"):
        data = frame_text(text)
        assert unframe_text(data) == text
        for _, flipped in flips(data):
            with pytest.raises(Unreadable):
                unframe_text(flipped)
        for size in range(len(data)):
            with pytest.raises(Unreadable):
                unframe_text(data[:size])


OPS = [b"\x8c\x01aK\x01s", b"\x8c\x01bK\x02s", b"\x8c\x01cK\x03s"]


def bucket() -> bytes:
    data, end = whole_bucket(OPS[0], 1)
    for ops in OPS[1:]:
        tail, end = extension(ops, end)
        data = data[:-1] + tail
    assert len(data) == end.end
    return data


def items(data: bytes) -> tuple[bytes, End]:
    if not is_bucket(data):
        return read_file(data), start(data)
    return follow(data, start(data), 6)


def test_a_bucket() -> None:
    data = bucket()
    assert pickle.loads(data) == {"a": 1, "b": 2, "c": 3}
    assert all(ops in items(data)[0] for ops in OPS)
    for _, flipped in flips(data):
        with pytest.raises(Unreadable):
            items(flipped)
    for size in range(len(data)):
        with pytest.raises(Unreadable):
            items(data[:size])


# -- logs ------------------------------------------------------------------------------------------------


def is_record(data: bytes, position: int, payload: bytes) -> bool:
    """Whether `data` is read as the record with that payload."""
    try:
        length = length_at(data, 0, position)
    except Unreadable:
        return False
    checksum = int.from_bytes(data[4:8], "little")
    found = data[HEAD_BYTES : HEAD_BYTES + length]
    return fits(found, checksum, position) and found == payload


@pytest.mark.parametrize("payload", [b"", b"x", PAYLOAD, bytes(64)])
def test_a_record(payload: bytes) -> None:
    for position, more in ((0, 0), (1 << 40, 3)):
        data = encode(payload, position, more)
        assert len(data) == size_of(len(payload)) and not len(data) % ALIGN_BYTES
        assert is_record(data, position, payload) and not is_record(data, position + ALIGN_BYTES, payload)
        end = HEAD_BYTES + len(payload)
        for at, flipped in flips(data):
            # the highest byte of how many follow is in no check: it only counts after a power cut, where a record that
            # seems to have followers which are not there is one that was not appended whole
            assert is_record(flipped, position, payload) == (at == 11 or at >= end)


MARKS = [
    Mark(State.WAITING, 3),
    Mark(State.CLAIMED, 1, 0x1234567890ABCDEF, 7, 30.0),
    Mark(State.DELAYED, 2, 0x60D60D << 40 | 99, 4, 60000.0),
    Mark(State.DONE, 0xFFFF),
    Mark(State.DEAD, 1),
]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("position", [0, 32, 0x1FFFE0, 1 << 33])
def test_the_status_of_a_record(mark: Mark, position: int) -> None:
    word, owner = words_of(mark)
    word = at_position(word, position)
    assert status_of(word, owner, position) == mark
    assert status_of(0, owner, position) == Mark(State.WAITING)
    for bit in range(64):
        with pytest.raises(Unreadable):
            status_of(word ^ 1 << bit, owner, position)
        if mark.owner:
            with pytest.raises(Unreadable):
                status_of(word, owner ^ 1 << bit, position)
        else:
            assert status_of(word, owner ^ 1 << bit, position) == mark
    for other in range(5, 21):
        with pytest.raises(Unreadable):
            status_of(word, owner, position ^ 1 << other)


@pytest.mark.parametrize("number", [2, 3])
def test_a_double_buffer(number: int, tmp_path: Path) -> None:
    """A flip in the copy that does not count does no harm. Of the number itself each is found, but for the one that
    makes of an odd one the even one before it: that is the state before the last change."""
    path = tmp_path / "tail"
    path.write_bytes(DoubleBuffer.zeros(3))
    states = [[change, change * 7, 1 << 60] for change in range(4)]
    fd = os.open(path, os.O_RDWR)
    copies = MappedDoubleBuffer(fd, 3, blank=False)
    for change in range(1, number + 1):
        copies.write(fd, change, struct.pack("<4Q", change, *states[change]))
    copies.close()
    data = path.read_bytes()
    counts = range(8 + (number & 1) * 40, 48 + (number & 1) * 40)
    for at, flipped in [(len(data), data), *flips(data)]:
        path.write_bytes(flipped)
        reader = DoubleBuffer(fd, 3, blank=False)
        try:
            if at < 8 and int.from_bytes(flipped[:8], "little") == number - 1:
                assert reader.since(None) == (number - 1, states[number - 1])
            elif at < 8 or at in counts:
                with pytest.raises(Unreadable):
                    reader.since(None)
            else:
                assert reader.since(None) == (number, states[number])
        finally:
            reader.close()
    for size in range(counts.stop):
        path.write_bytes(data[:size])
        reader = DoubleBuffer(fd, 3, blank=False)
        with pytest.raises(Unreadable):
            reader.since(None)
        reader.close()
    os.close(fd)


@files
def test_positions(root: Path) -> None:
    engine = DirectoryEngine(root)
    name = ".psync/queue/q"
    engine.log(name).append([b"x", b"y"], Mark(State.DELAYED, 0, 1, 0, 1.0))
    path = root / name / "log/delayed"
    data = path.read_bytes()
    assert [int.from_bytes(data[at : at + 6], "little") for at in (0, 8)] == [0, 32]
    engine.close()

    class Files:
        direct = 0
        trust = engine.layout.trust

    def read() -> list[int]:
        file = PositionFile(str(path), Files())  # type: ignore[arg-type]
        try:
            assert file.first(2)[1] == file.get(1)
            return file.first(2)
        finally:
            file.close()

    assert read() == [0, 32]
    broken = [flipped for _, flipped in flips(data)] + [data[:size] for size in range(len(data))]
    for each in broken:
        path.write_bytes(each)
        with pytest.raises(Unreadable):
            read()


# -- registers, mutexes, notes ---------------------------------------------------------------------------


def opened_with(root: Path, look: Callable[[DirectoryEngine], object]) -> object:
    engine = DirectoryEngine(root)
    try:
        return look(engine)
    finally:
        engine.close()


@files
@pytest.mark.parametrize("value", [b"", b"a small state", b"z" * 2021])
def test_a_register(root: Path, value: bytes) -> None:
    """Behind a value that stands in the page, and in the slots, nothing is part of it."""
    name = ".psync/thing/x"
    opened_with(root, lambda engine: engine.register(name).update(lambda old: value))
    path = root / name
    data = path.read_bytes()
    inline = len(value) <= 2020
    parts = [*range(28 + len(value))] if inline else [*range(28), 4096, 4096 + len(value) - 1]
    for at in parts:
        path.write_bytes(data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :])
        with pytest.raises(CorruptValue):
            opened_with(root, lambda engine: engine.register(name).read())
        assert opened_with(root, lambda engine: engine.register(name).read()) is None
    assert len(quarantined(root)) == len(parts)
    for at in (28 + len(value) if inline else 28, 2047, 2048, 4095):
        path.write_bytes(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
        assert opened_with(root, lambda engine: engine.register(name).read()) == value


def test_the_token_of_a_mutex() -> None:
    for token in (1, 2, 1000, 1 << 40):
        assert verified(token * TOKEN_STEP) == token
        for bit in range(64):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                assert verified(token * TOKEN_STEP ^ 1 << bit) > 1 << 40
            assert len(told) == 1


def test_a_note_of_an_append_to_several_buckets(tmp_path: Path) -> None:
    note = {"category/0f": [123, 4567, 74], "category/ff": [7, 0, 255]}
    path = tmp_path / "note"
    path.write_bytes(data := frame_text(json.dumps(note).encode()))
    assert read_intent(str(path)) == note
    for each in [flipped for _, flipped in flips(data)] + [data[:size] for size in range(len(data))]:
        path.write_bytes(each)
        with pytest.raises((Unreadable, ValueError)):
            read_intent(str(path))
    for wrong in ({"../x": [1, 2, 3]}, {"a": [1, 2]}, {"a": [1, 2, 256]}, {"a": [True, 2, 3]}, [1]):
        path.write_bytes(frame_text(json.dumps(wrong).encode()))
        assert read_intent(str(path)) is None
