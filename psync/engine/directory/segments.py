"""The files that a log's records and marks lie in: finding, reading, scanning and clearing them. Who may do what is
`logs`' matter.

Records are in segments named by the position of their first one; a record is a head of 16 bytes (length, checksum, how
many more were appended with it, and a check of the head itself), the payload, and filling up to 32. The marks of a
segment are in a file of their own beside it, at half the offset of their record, so that no mark lies across the end of
a page, and who appends never waits for the inode that takers write to. Its 16 bytes: state, attempt, checksum, owner,
beat, lease (a half-precision float); one that was never written is zero: WAITING.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import os
import struct
from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

from psync.engine.contract import FINAL, Mark, Record, State
from psync.engine.directory.files import CHANGE, open_made, read_all, write_all
from psync.engine.directory.names import Layout, number_in
from psync.engine.directory.whole import Whole
from psync.engine.seal import Unreadable

MARK = struct.Struct("<BHHQBe")
_HEAD = struct.Struct("<IIII")
_ALL = 0xFFFFFFFF
MOST_ATTEMPTS = 0xFFFF
"""A mark counts no further."""
HEAD = _HEAD.size
ALIGN = 32
"""Records begin at multiples of this, so half of their offsets are multiples of a mark's 16 bytes."""
SEGMENT = 1 << 20
"""Bytes after which a new segment is begun; one that holds only final records is removed."""
_GLANCE = 512
_STRETCH = 1 << 18
_STATES = tuple(State)
_CLAIMED = State.CLAIMED
_RUN = 1 << 16
_AHEAD = 1 << 14
_FRESH = bytes(MARK.size)
_UNTOUCHED = Mark(State.WAITING)
_WRITTEN = 0x80
"""Added to the state: no mark that was written is zero."""
_FINAL = tuple(_WRITTEN | state for state in FINAL)
_FILLING = tuple(bytes(size) for size in range(ALIGN))
_NOT_AHEAD = 0, b"", -1, 0
_NOT_LOOKED_INTO = 0, 0, -1, -1
new_mark = functools.partial(tuple.__new__, Mark)
"""A `Mark` of a tuple, without a look at it."""
new_record = functools.partial(tuple.__new__, Record)


def encode(payload: bytes, position: int, more: int = 0) -> bytes:
    """A record as it lies in the file. Its checksum covers the position: neither bytes of elsewhere nor zeros fit."""
    length = len(payload)
    check = _ALL ^ length ^ (more << 8 & _ALL if more else 0)
    head = _HEAD.pack(length, crc32(payload, position + 1 & _ALL), more, check)
    return head + payload + _FILLING[-(HEAD + length) % ALIGN]


def size_of(length: int) -> int:
    """How many bytes a record with a payload of `length` takes."""
    return HEAD + length + -(HEAD + length) % ALIGN


@functools.lru_cache(1024)
def _number(state: int, attempt: int, owner: int, beat: int, lease: float) -> int:
    """A mark at position 0, as one number. Few different ones are needed again and again, and to find one is quicker
    than to make it."""
    raw = MARK.pack(_WRITTEN | state, min(attempt, MOST_ATTEMPTS), 0, owner, beat, lease)
    return int.from_bytes(raw, "little") | crc_hqx(raw, 0) << 24


def pack_mark(mark: Mark, position: int) -> bytes:
    """A mark as it lies in the file. Bits 5 to 20 of the position are part of its checksum (bits 24 to 39)."""
    return (_number(*mark) ^ (position & 0x1FFFE0) << 19).to_bytes(16, "little")


@functools.lru_cache(1024)
def _meaning(first: bytes, last: bytes) -> tuple[Mark | None, int]:
    """What a mark says, and its checksum at position 0."""
    state, attempt, _, owner, beat, lease = MARK.unpack(raw := first + b"\0\0" + last)
    if not state & _WRITTEN or state & ~_WRITTEN >= len(_STATES):
        return None, 0
    return Mark(_STATES[state & ~_WRITTEN], attempt, owner, beat, lease), crc_hqx(raw, 0)


def unpack_mark(raw: bytes, position: int) -> Mark:
    """Raises `Unreadable`."""
    if not raw or raw == _FRESH:
        return _UNTOUCHED
    if len(raw) == MARK.size:
        mark, check = _meaning(raw[:3], raw[5:])
        if mark is not None and raw[3] | raw[4] << 8 == check ^ position >> 5 & 0xFFFF:
            return mark
    raise Unreadable(f"the mark of the record at {position} does not fit its checksum")


def _length(data: bytes, at: int, position: int) -> int:
    """The length of the record whose head is at an offset of `data`. Raises `Unreadable`."""
    length, _, more, check = _HEAD.unpack_from(data, at)
    if check != _ALL ^ length ^ more << 8 & _ALL:
        raise Unreadable(f"the head of the record at {position} does not fit its check")
    return int(length)


class Segments:
    """The segment files of one log. Not locked: the log does that."""

    def __init__(self, layout: Layout, log: str, whole: Whole) -> None:
        self._layout = layout
        self._whole = whole
        self._trust = whole.trust
        self._change = CHANGE | whole.direct
        self._log = log
        self._lasting = whole.renamed
        """Told of each file that is used, if names are to last."""
        self._folder = os.path.dirname(layout.segment(log, 0))
        self._bases: list[int] = []
        self._complete = 0
        """Every segment that begins below this is in `_bases` (or was cleared away since)."""
        self._files: dict[int, int] = {}
        self._marks: dict[int, int] = {}
        self._ahead = _NOT_AHEAD
        """What begins at a position, as far as it was read for those who take one after the other; its file of marks,
        and the position that its segment begins at."""
        self._last = _NOT_LOOKED_INTO
        """What was last looked into: its segment's beginning, up to where that is sure to reach, and its files."""

    def _file(self, base: int, *, create: bool = False) -> int:
        fd = self._files.get(base)
        if fd is None:
            path = self._layout.segment(self._log, base)
            fd = open_made(path, self._trust.access, self._change) if create else self._whole.open(path, CHANGE)
            self._trust.kept(fd, path)
            self._lasting(path)
            if len(self._files) >= 4:
                self._forget(next(iter(self._files)))
            self._files[base] = fd
            if base not in self._bases:
                bisect.insort(self._bases, base)
        return fd

    def _mark_file(self, base: int) -> int:
        fd = self._marks.get(base)
        if fd is None:
            path = self._layout.marks(self._log, base)
            fd = self._trust.kept(open_made(path, self._trust.access, self._change), path)
            self._lasting(path)
            if len(self._marks) >= 4:
                self._forget(next(iter(self._marks)))
            self._marks[base] = fd
        return fd

    def _find(self, position: int, tail: int) -> tuple[int, int, int] | None:
        """(segment, marks, offset in the segment) of what lies at `position`; None if it was cleared away."""
        base, stop, fd, marks = self._last
        if base <= position < stop:
            return fd, marks, position - base
        if position >= tail:
            fd, marks = self._file(tail, create=True), self._mark_file(tail)
            self._last = tail, tail + SEGMENT, fd, marks  # no segment is shorter
            return fd, marks, position - tail
        if position >= self._complete:
            self._list()
        while at := bisect.bisect_right(self._bases, position):
            base = self._bases[at - 1]
            try:
                fd, marks = self._file(base), self._mark_file(base)
                self._last = base, self._next_base(position, tail, tail), fd, marks
                return fd, marks, position - base
            except FileNotFoundError:
                self._list()
                if base in self._bases:
                    raise
        return None

    def _next_base(self, position: int, tail: int, end: int) -> int:
        """Where the segment that `position` lies in ends: what a killed append left behind that is nothing."""
        if position >= tail:
            return end
        at = bisect.bisect_right(self._bases, position)
        return self._bases[at] if at < len(self._bases) else tail

    def _list(self) -> None:
        names = self._whole.listing(self._folder)
        self._bases = sorted(base for name in names if (base := number_in(name)) is not None)
        self._complete = self._bases[-1] if self._bases else 0

    def write(self, data: bytes, position: int, tail: int) -> None:
        fd = self._files.get(tail) or self._file(tail, create=True)
        written = os.pwrite(fd, data, position - tail)
        if written != len(data):
            write_all(fd, data[written:], position - tail + written)

    def written_since(self, begin: int, tail: int) -> Iterator[int]:
        """The files that hold what was written from position `begin` on, each open until the next."""
        if begin < tail:
            self._list()
        for base in [base for base in self._bases if base < tail and self._next_base(base, tail, tail) > begin]:
            yield self._file(base)
        yield self._file(tail, create=True)

    def sync_marks(self, positions: Sequence[int], tail: int) -> None:
        """The marks of the records at `positions` are on the disk."""
        synced = set()
        for position in positions:
            found = self._find(position, tail)
            if found is not None and found[1] not in synced:
                os.fdatasync(found[1])
                synced.add(found[1])

    def cut(self, end: int, base: int) -> None:
        """What lies behind `end` in the segment that begins at `base` is gone."""
        os.ftruncate(self._file(base), end - base)

    def begin_anew(self, base: int) -> None:
        """Nothing in the segment that begins at `base` counts, nor will be asked for again: it gets another file."""
        for path in (self._layout.segment(self._log, base), self._layout.marks(self._log, base)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.close()

    # -- after the host was started anew ---------------------------------------------------------------

    def bases(self) -> list[int]:
        """Where the segments begin that there are."""
        with contextlib.suppress(FileNotFoundError):
            self._list()
        return list(self._bases)

    def follow(self, position: int) -> tuple[int, int]:
        """Where the records end that lie in a row from `position` on, as far as they were appended whole, all or none;
        and how many there are."""
        end, count, seen = position, 0, 0
        while at := bisect.bisect_right(self._bases, position):
            base = self._bases[at - 1]
            fd = self._file(base)
            try:
                length = len(self._load(fd, position - base, position))
            except Unreadable:
                break
            more = _HEAD.unpack(os.pread(fd, HEAD, position - base))[2]
            position += size_of(length)
            seen += 1
            if not more:
                end, count = position, seen
        return end, count

    def drop_behind(self, end: int) -> int:
        """Nothing lies behind `end`, and nothing is marked there; where the last segment begins now."""
        kept = [base for base in self._bases if base <= end]
        for name in self._whole.listing(self._folder):
            base = number_in(name.removesuffix(".marks"))
            if base is not None and base > end:
                os.unlink(f"{self._folder}/{name}")
        self.close()
        base = kept[-1] if kept else end
        if kept:
            self.cut(end, base)
        self.cut_marks(end, base)
        return base

    def fill(self, payload: bytes, position: int, base: int) -> None:
        """One record of zeros, which take no room."""
        fd = self._file(base, create=True)
        os.pwrite(fd, encode(payload, position)[:HEAD], position - base)
        os.ftruncate(fd, position - base + size_of(len(payload)))

    # -- what is damaged -------------------------------------------------------------------------------

    def examine(self, position: int, end: int, tail: int, passed: int) -> tuple[int, Unreadable | None]:
        """Where the record at `position` ends, and what is wrong with it or with its mark, if anything.

        One that is itself damaged ends where the next one begins that is not, one that was cleared away with its
        segment.
        """
        found = self._find(position, tail)
        if found is None:
            later = [base for base in self._bases if base > position]
            return (min(later) if later else end), None
        fd, marks, offset = found
        stop = self._next_base(position, tail, end)
        try:
            size = size_of(len(self._load(fd, offset, position)))
            raw = os.pread(marks, 16, offset >> 1)
            if position < passed and not any(raw):
                raise Unreadable("it was marked once, and is not any more")
            unpack_mark(raw, position)
            return position + size, None
        except Unreadable as error:
            following = position + ALIGN
            while following < stop and not self._is_sound(
                fd, offset + following - position, following, stop - following
            ):
                following += ALIGN
            return min(following, stop), error

    def retire(self, position: int, end: int, tail: int) -> bytes:
        """What is damaged from `position` to `end` becomes one record that fits and is DEAD; returns what was there."""
        found = self._find(position, tail)
        assert found is not None
        fd, _, offset = found
        size = end - position
        data = read_all(fd, size, offset)
        self.write_mark(position, tail, Mark(State.DEAD))
        if len(data) < size:
            os.pwrite(fd, b"\0", offset + size - 1)
        payload = data.ljust(size, b"\0")[HEAD:]
        os.pwrite(fd, encode(payload, position)[:HEAD], offset)
        self._ahead = _NOT_AHEAD
        return data

    # -- marks -------------------------------------------------------------------------------------------

    def set_marks(self, positions: list[int], end: int, tail: int, mark: Mark) -> None:
        """Before there are any records at `positions`, which lie in the last segment, up to `end`: what marks them."""
        first = positions[0]
        marks = bytearray((end - first) >> 1)
        for position in positions:
            at = (position - first) >> 1
            marks[at : at + MARK.size] = pack_mark(mark, position)
        write_all(self._mark_file(tail), bytes(marks), (first - tail) >> 1)

    def cut_marks(self, end: int, tail: int) -> None:
        """Nothing is marked behind the end of the log."""
        os.ftruncate(self._mark_file(tail), (end - tail) >> 1)

    def exchange_mark(
        self, position: int, tail: int, held: Mark, new: Mark, before: Callable[[], object] | None
    ) -> bool:
        """pread, pwrite: the mark goes from `held` to `new`, after `before`; False if it is not `held`."""
        found = self._find(position, tail)
        if found is None:
            return False
        _, marks, offset = found
        offset >>= 1
        raw = os.pread(marks, 16, offset)
        if raw != pack_mark(held, position) and unpack_mark(raw, position) != held:
            return False
        if before is not None:
            before()
        os.pwrite(marks, pack_mark(new, position), offset)
        return True

    def write_mark(self, position: int, tail: int, mark: Mark) -> None:
        """pwrite: the mark of the record at `position`, whatever it was."""
        base, stop, _, marks = self._last
        if base <= position < stop:
            offset = position - base
        else:
            found = self._find(position, tail)
            if found is None:
                raise Unreadable(f"the record at {position} was cleared away before it was final")
            _, marks, offset = found
        os.pwrite(marks, pack_mark(mark, position), offset >> 1)

    def claim(
        self, position: int, end: int, tail: int, owner: int, beat: int, lease: float
    ) -> tuple[Record | None, int, Mark | None]:
        """pread, pwrite: the record, if it was WAITING and is CLAIMED now; its size (0 if it is gone); its mark if it
        is something else. One pread more if the record was not read ahead: a record never changes."""
        begin, data, marks, base = self._ahead
        at = position - begin
        if at < 0 or at + HEAD > len(data):
            found = self._find(position, tail)
            if found is None:
                return None, 0, None
            fd, marks, at = found
            base = position - at
            # nothing from behind the end: what a killed append left there looks right, and will be something else
            data = os.pread(fd, min(self._next_base(position, tail, end) - position, _AHEAD), at)
            self._ahead = position, data, marks, base
            at = 0
        start = at + HEAD
        length, crc, _, _ = _HEAD.unpack_from(data, at) if start <= len(data) else (0, -1, 0, 0)
        payload = data[start : start + length]
        if len(payload) != length or crc32(payload, position + 1 & _ALL) != crc:
            self._ahead = _NOT_AHEAD
            found = self._find(position, tail)
            if found is None:
                return None, 0, None
            fd, marks, at = found
            payload = self._load(fd, at, position)  # it is not read so far, or has come since, or is damaged
            length = len(payload)
        size = (HEAD + length + ALIGN - 1) & -ALIGN
        offset = (position - base) >> 1
        raw = os.pread(marks, 16, offset)
        attempt = 1
        if raw and raw != _FRESH:
            mark = unpack_mark(raw, position)
            if mark.state:
                return None, size, mark
            attempt = min(attempt + mark.attempt, MOST_ATTEMPTS)
        number = _number(_CLAIMED, attempt, owner, beat, lease) ^ (position & 0x1FFFE0) << 19  # `pack_mark` written out
        os.pwrite(marks, number.to_bytes(16, "little"), offset)
        return new_record((position, new_mark((_CLAIMED, attempt, owner, beat, lease)), payload)), size, None

    def claim_run(
        self, position: int, end: int, tail: int, limit: int, owner: int, beat: int, lease: float, taken: list[Record]
    ) -> int:
        """pread, pread, pwrite: up to `limit` records in a row, which nobody was ever at, are CLAIMED and in `taken`.

        Returns how many bytes they take; fewer, perhaps none, where one was marked before, is large, or is damaged.
        """
        found = self._find(position, tail)
        if found is None:
            return 0
        fd, marks, offset = found
        data = os.pread(fd, min(self._next_base(position, tail, end) - position, _RUN), offset)
        old = os.pread(marks, len(data) >> 1, offset >> 1)
        mark = Mark(_CLAIMED, 1, owner, beat, lease)
        written = bytearray()
        at = 0
        while limit and at + HEAD <= len(data):
            length, crc, _, _ = _HEAD.unpack_from(data, at)
            size = size_of(length)
            payload = data[at + HEAD : at + HEAD + length]
            if len(payload) != length or any(old[at >> 1 : (at >> 1) + 16]):
                break
            if crc32(payload, position + at + 1 & _ALL) != crc:
                break
            taken.append(new_record((position + at, mark, payload)))  # before it is so: what fails is undone
            written += pack_mark(mark, position + at)
            if size > ALIGN:
                written += bytes((size >> 1) - 16)
            at += size
            limit -= 1
        if at:
            write_all(marks, bytes(written), offset >> 1)
        return at

    def mark(self, position: int, tail: int) -> Mark | None:
        """pread: the mark of the record at `position`; None if it was cleared away."""
        found = self._find(position, tail)
        return None if found is None else unpack_mark(os.pread(found[1], 16, found[2] >> 1), position)

    def read(self, position: int, tail: int) -> Record | None:
        """The record at `position`, its payload verified; None if it was cleared away. Raises `Unreadable`."""
        found = self._find(position, tail)
        if found is None:
            return None
        fd, marks, offset = found
        mark = unpack_mark(os.pread(marks, 16, offset >> 1), position)
        return Record(position, mark, self._load(fd, offset, position))

    def scan(self, begin: int, end: int, tail: int, passed: int = 0) -> Iterator[tuple[int, State, int]]:
        """(position, state, size) of each record from `begin` up to `end`. Payloads are not read.

        Raises `Unreadable`; also if one before `passed` was never marked.
        """
        position = begin
        stretch = 4096
        while position < end:
            found = self._find(position, tail)
            if found is None:
                return
            fd, marks, offset = found
            stop = min(end, self._next_base(position, tail, end))
            data = os.pread(fd, min(stretch, stop - position), offset)
            states = os.pread(marks, len(data) // 2, offset >> 1)
            stretch = min(2 * stretch, _STRETCH)
            at = 0
            while at + HEAD <= len(data):
                raw = states[at >> 1 : (at >> 1) + MARK.size]
                if position < passed and not any(raw):
                    raise Unreadable(f"the record at {position} was marked once, and is not any more")
                state = unpack_mark(raw, position).state
                size = size_of(_length(data, at, position))
                yield position, state, size
                at += size
                position += size
            if not at:
                return

    def final_up_to(self, begin: int, end: int, tail: int, passed: int = 0) -> int:
        """Up to where from `begin` on, at most `end`, all records are final. Raises `Unreadable`; also if one before
        `passed` was never marked."""
        position = begin
        stretch = 4096
        while position < end and (found := self._find(position, tail)) is not None:
            fd, marks, offset = found
            data = os.pread(fd, min(stretch, min(end, self._next_base(position, tail, end)) - position), offset)
            states = os.pread(marks, len(data) >> 1, offset >> 1)
            stretch = min(2 * stretch, _STRETCH)
            at = 0
            last = min(len(data) - HEAD, 2 * len(states) - 1)
            while at <= last and states[at >> 1] in _FINAL:
                unpack_mark(states[at >> 1 : (at >> 1) + MARK.size], position + at)
                at += (HEAD + _length(data, at, position + at) + ALIGN - 1) & -ALIGN
            position += at
            if not at or (at <= len(data) - HEAD):
                if position < passed and not any(states[at >> 1 : (at >> 1) + MARK.size]):
                    raise Unreadable(f"the record at {position} was marked once, and is not any more")
                break
        return position

    def clear(self, low: int, tail: int) -> None:
        """Remove the segments that end before `low`: each of their records is final."""
        self._list()
        while len(self._bases) > 1 and self._bases[1] <= low and self._bases[0] < tail:
            base = self._bases.pop(0)
            self._forget(base)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._layout.segment(self._log, base))
        # the marks last: a segment without marks would look as if nobody had ever taken its records
        for name in self._whole.listing(self._folder):
            base_of_marks = number_in(name.removesuffix(".marks"))
            if base_of_marks is not None and base_of_marks < min(self._bases[0], low):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._folder}/{name}")

    def _forget(self, base: int) -> None:
        self._ahead, self._last = _NOT_AHEAD, _NOT_LOOKED_INTO
        for files in (self._files, self._marks):
            fd = files.pop(base, None)
            if fd is not None:
                os.close(fd)

    def close(self) -> None:
        self._ahead, self._last = _NOT_AHEAD, _NOT_LOOKED_INTO
        for files in (self._files, self._marks):
            while files:
                os.close(files.popitem()[1])
        self._bases.clear()
        self._complete = 0

    def _load(self, fd: int, offset: int, position: int) -> bytes:
        """The payload of the record at an offset of a segment. Raises `Unreadable`."""
        data = os.pread(fd, _GLANCE, offset)
        if len(data) < HEAD:
            raise Unreadable(f"the segment ends before the record at {position}")
        length, crc, _, _ = _HEAD.unpack_from(data)
        if length <= _GLANCE - HEAD:
            payload = data[HEAD : HEAD + length]
        else:
            room = self._whole.size(fd) - offset - HEAD  # a damaged length must not ask for gigabytes
            payload = read_all(fd, min(length, max(room, 0)), offset + HEAD)
        if len(payload) != length or crc32(payload, position + 1 & _ALL) != crc:
            raise Unreadable(f"the record at {position} does not fit its checksum")
        _length(data, 0, position)
        return payload

    def _is_sound(self, fd: int, offset: int, position: int, room: int) -> bool:
        """Whether a record begins there that fits its checksum, in so many bytes."""
        head = os.pread(fd, HEAD, offset)
        try:
            if len(head) < HEAD or size_of(_length(head, 0, position)) > room:
                return False
            self._load(fd, offset, position)
        except Unreadable:
            return False
        return True
