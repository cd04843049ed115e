"""A process is killed between any two stores into shared memory: what others find is as before, or as afterwards."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psync.engine.contract.log import Mark, State
from psync.engine.directory.log.double_buffer import DoubleBuffer, MappedDoubleBuffer, ReadMappedDoubleBuffer
from psync.engine.directory.log.status_file import MappedStatusFile, StatusFile, at_position, status_of, words_of
from psync.engine.encoding.framing import Unreadable

pytestmark = pytest.mark.crash
POSITION = 0x12340
MARKS = [
    Mark(State.WAITING),
    Mark(State.WAITING, 2),
    Mark(State.CLAIMED, 1, 0xABCDEF0123456789, 1),
    Mark(State.CLAIMED, 1, 0xABCDEF0123456789, 2, 2.5),
    Mark(State.CLAIMED, 3, 0x1122334455667788, 1),
    Mark(State.DELAYED, 1, 1 << 40),
    Mark(State.DONE, 1),
    Mark(State.DONE, 1, 0, 1),
    Mark(State.DEAD, 65535),
]


class Killed(BaseException):
    pass


class Stores:
    """Memory in which only so many stores (of `whole` of them, the last one not) come about before the kill."""

    def __init__(self, memory: Any, left: int, part: int | None = None) -> None:
        self.memory = memory
        self.left = left
        self.part = part

    def __len__(self) -> int:
        return len(self.memory)

    def __getitem__(self, at: Any) -> Any:
        return self.memory[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        if not self.left:
            if self.part is not None:
                self.memory[at.start : at.start + self.part] = value[: self.part]
            raise Killed
        self.left -= 1
        self.memory[at] = value


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def opened(path: Path, kind: Callable[[int], StatusFile] = StatusFile) -> StatusFile:
    return kind(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def put(marks: StatusFile, mark: Mark, position: int = POSITION) -> None:
    word, owner = words_of(mark)
    marks.put(position >> 1, at_position(word, position), owner)


def seen(path: Path, position: int = POSITION) -> Mark:
    marks = opened(path)
    try:
        return status_of(*marks.get(position >> 1), position)
    finally:
        marks.close()


@pytest.mark.parametrize("old", MARKS, ids=str)
def test_a_mark_is_the_old_or_the_new_one(old: Mark, tmp_path: Path) -> None:
    marks = opened(tmp_path / "marks", MappedStatusFile)
    assert isinstance(marks, MappedStatusFile)
    position = 0
    for new in MARKS:
        for left in range(3):
            position += 32
            put(marks, old, position)
            memory = marks._windows[0]
            marks._windows[0] = Stores(memory, left)  # type: ignore[assignment]
            try:
                put(marks, new, position)
                ended = True
            except Killed:
                ended = False
            marks._windows[0] = memory
            assert seen(tmp_path / "marks", position) == (new if ended else old)
        assert ended
    marks.close()


def test_a_mark_that_is_written_first_is_one_or_none(tmp_path: Path) -> None:
    claimed = MARKS[2]
    word, owner = words_of(claimed)
    for left in range(3):
        path = tmp_path / str(left)
        marks = opened(path, MappedStatusFile)
        assert isinstance(marks, MappedStatusFile)
        assert marks.get(POSITION >> 1)[0] == 0
        (number,) = marks._windows
        marks._windows[number] = Stores(marks._windows[number], left)  # type: ignore[assignment]
        try:
            assert marks.put_if_unwritten(POSITION >> 1, at_position(word, POSITION), owner) is None
            ended = True
        except Killed:
            ended = False
        again = opened(path, MappedStatusFile)
        found = again.put_if_unwritten(POSITION >> 1, at_position(word, POSITION), owner)
        assert found == ((at_position(word, POSITION), owner) if ended else None)
        assert seen(path) == claimed
        marks.close()
        again.close()
    assert ended


@pytest.mark.parametrize("mark", MARKS)
def test_each_kind_of_file_shows_what_the_other_wrote(mark: Mark, tmp_path: Path) -> None:
    stored, written = opened(tmp_path / "marks", MappedStatusFile), opened(tmp_path / "marks")
    put(stored, mark, 0)
    put(written, mark, 96)
    assert [status_of(*marks.get(at >> 1), at) for marks in (stored, written) for at in (0, 96)] == [mark] * 4
    with pytest.raises(Unreadable, match="does not fit its checksum"):  # nor is it another record's
        status_of(*stored.get(48), 128)
    stored.close()
    written.close()


def test_what_is_marked_behind_the_end_is_forgotten_though_others_have_mapped_it(tmp_path: Path) -> None:
    stored, other = opened(tmp_path / "marks", MappedStatusFile), opened(tmp_path / "marks")
    for position in (0, 64, 1 << 16):
        put(other, Mark(State.DELAYED, 0, 7), position)
        assert stored.get(position >> 1)[1] == 7
    os.truncate(tmp_path / "marks", 1 << 40)  # damage
    other.cut(32)
    put(stored, Mark(State.DONE, 1), 64)
    assert seen(tmp_path / "marks", 0).state is State.DELAYED
    assert seen(tmp_path / "marks", 64) == Mark(State.DONE, 1)
    assert seen(tmp_path / "marks", 1 << 16) == Mark(State.WAITING)
    assert os.stat(tmp_path / "marks").st_size < 1 << 20
    stored.close()
    other.close()


@pytest.mark.parametrize("part", [None, 0, 1, 8, 9, 31, 39, 40])
def test_numbers_are_the_old_or_the_new_ones(part: int | None, tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(DoubleBuffer.zeros(3))
    fd = os.open(path, os.O_RDWR)
    writer, reader = MappedDoubleBuffer(fd, 3, blank=False), ReadMappedDoubleBuffer(fd, 3, blank=False)
    reading = DoubleBuffer(fd, 3, blank=False)
    for number in range(1, 5):
        old, new = [number - 1] * 3, [number] * 3
        if part is None:
            writer.words = Stores(writer.words, 0)  # type: ignore[assignment]
        else:
            writer._map = Stores(writer._map, 0, part)  # type: ignore[assignment]
        with pytest.raises(Killed):
            writer.write(fd, number, words(number, *new))
        assert reader.since(None) == reading.since(None) == (number - 1, old)
        writer = MappedDoubleBuffer(fd, 3, blank=False)
        writer.write(fd, number, words(number, *new))
        assert reader.since(number - 1) == reading.since(None) == (number, new)
        assert reader.since(number) is writer.since(number) is None
    reading.write(fd, 9, words(9, 9, 9, 9))
    assert writer.since(4) == reader.since(4) == (9, [9, 9, 9])
    reading.close()
    os.close(fd)


@pytest.mark.parametrize("at", range(0, 8 + 80, 8))
def test_damaged_numbers_are_known_for_it(at: int, tmp_path: Path) -> None:
    """In the copy that counts, or in the word that says which that is."""
    path = tmp_path / "numbers"
    path.write_bytes(DoubleBuffer.zeros(3))
    fd = os.open(path, os.O_RDWR)
    writer = MappedDoubleBuffer(fd, 3, blank=False)
    writer.write(fd, 1, words(1, 5, 6, 7))
    writer.write(fd, 2, words(2, 8, 9, 10))
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    if at < 48:
        with pytest.raises(Unreadable):
            writer.since(None)
    else:
        assert writer.since(None) == (2, [8, 9, 10])
    os.close(fd)
