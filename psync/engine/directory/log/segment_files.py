"""The files that a log's records and marks lie in: finding, opening and clearing them, and reading one record.

Segments are named by the position of their first record; the marks of one are in a file of their own beside it (see
`mark_file`). A segment that holds nothing but final records is removed.
"""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import CHANGE, open_made, read_all, write_all
from psync.engine.directory.layout import Layout, number_in
from psync.engine.directory.log.record_format import HEAD, fits, head_at, length_at
from psync.engine.directory.log.status_file import MappedMarkFile, MarkFile
from psync.engine.encoding.framing import Unreadable

SEGMENT = 1 << 20
"""Bytes after which a new segment is begun."""
_KEPT = 4
"""Files of each kind that stay open."""
_GLANCE = 512
"""Bytes of a record that are read at once; of most, that is all."""
_NOT_LOOKED_INTO = 0, 0, -1, MarkFile(-1)
NOTHING_AHEAD = 0, b"", MarkFile(-1), 0


class SegmentFiles:
    """The segment files of one log. Not locked: the log does that."""

    def __init__(self, layout: Layout, log: str, fs: AtomicFiles) -> None:
        self._layout = layout
        self._fs = fs
        self._trust = fs.trust
        self._change = CHANGE | fs.direct
        self._log = log
        self._lasting = fs.renamed
        """Told of each file that is used, if names are to last."""
        self._kind = MappedMarkFile if fs.in_place and not fs.sync_file else MarkFile
        self._folder = os.path.dirname(layout.segment(log, 0))
        self._bases: list[int] = []
        self._complete = 0
        """Every segment that begins below this is in `_bases` (or was cleared away since)."""
        self._files: dict[int, int] = {}
        self._marks: dict[int, MarkFile] = {}
        self._ahead = NOTHING_AHEAD
        """What begins at a position, as far as it was read for those who take one after the other; its file of marks,
        and the position that its segment begins at."""
        self._last = _NOT_LOOKED_INTO
        """What was last looked into: its segment's beginning, up to where that is sure to reach, and its files."""

    # -- opening and finding ---------------------------------------------------------------------------

    def _file(self, base: int, *, create: bool = False) -> int:
        fd = self._files.get(base)
        if fd is None:
            path = self._layout.segment(self._log, base)
            fd = open_made(path, self._trust.access, self._change) if create else self._fs.open(path, CHANGE)
            self._trust.checked(fd, path)
            self._lasting(path)
            self._make_room(self._files)
            self._files[base] = fd
            if base not in self._bases:
                bisect.insort(self._bases, base)
        return fd

    def _mark_file(self, base: int) -> MarkFile:
        marks = self._marks.get(base)
        if marks is None:
            path = self._layout.marks(self._log, base)
            fd = self._trust.checked(open_made(path, self._trust.access, self._change), path)
            self._lasting(path)
            self._make_room(self._marks)
            marks = self._marks[base] = self._kind(fd)
        return marks

    def _find(self, position: int, tail: int) -> tuple[int, MarkFile, int] | None:
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
        names = self._fs.listing(self._folder)
        self._bases = sorted(base for name in names if (base := number_in(name)) is not None)
        self._complete = self._bases[-1] if self._bases else 0

    def bases(self) -> list[int]:
        """Where the segments begin that there are."""
        with contextlib.suppress(FileNotFoundError):
            self._list()
        return list(self._bases)

    # -- records ---------------------------------------------------------------------------------------

    def write(self, data: bytes, position: int, tail: int) -> None:
        """pwrite: what is to lie at `position`, in the last segment."""
        fd = self._files.get(tail) or self._file(tail, create=True)
        written = os.pwrite(fd, data, position - tail)
        if written != len(data):
            write_all(fd, data[written:], position - tail + written)

    def _load(self, fd: int, offset: int, position: int) -> bytes:
        """The payload of the record at an offset of a segment. Raises `Unreadable`."""
        data = os.pread(fd, _GLANCE, offset)
        if len(data) < HEAD:
            raise Unreadable(f"the segment ends before the record at {position}")
        length, checksum, _, _ = head_at(data)
        if length <= _GLANCE - HEAD:
            payload = data[HEAD : HEAD + length]
        else:
            room = self._fs.size(fd) - offset - HEAD  # a damaged length must not ask for gigabytes
            payload = read_all(fd, min(length, max(room, 0)), offset + HEAD)
        if len(payload) != length or not fits(payload, checksum, position):
            raise Unreadable(f"the record at {position} does not fit its checksum")
        length_at(data, 0, position)
        return payload

    # -- on the disk -----------------------------------------------------------------------------------

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
                found[1].sync()
                synced.add(found[1])

    # -- clearing --------------------------------------------------------------------------------------

    def cut(self, end: int, base: int) -> None:
        """What lies behind `end` in the segment that begins at `base` is gone."""
        os.ftruncate(self._file(base), end - base)

    def begin_anew(self, base: int) -> None:
        """Nothing in the segment that begins at `base` counts, nor will be asked for again: it gets another file."""
        for path in (self._layout.segment(self._log, base), self._layout.marks(self._log, base)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.close()

    def clear(self, low: int, tail: int) -> None:
        """Remove the segments that end before `low`: each of their records is final."""
        self._list()
        while len(self._bases) > 1 and self._bases[1] <= low and self._bases[0] < tail:
            base = self._bases.pop(0)
            self._forget(base)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._layout.segment(self._log, base))
        # the marks last: a segment without marks would look as if nobody had ever taken its records
        for name in self._fs.listing(self._folder):
            base_of_marks = number_in(name.removesuffix(".marks"))
            if base_of_marks is not None and base_of_marks < min(self._bases[0], low):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._folder}/{name}")

    def _make_room(self, files: Mapping[int, object]) -> None:
        """One more is about to be among `files`."""
        if len(files) >= _KEPT:
            self._forget(next(iter(files)))

    def _forget(self, base: int) -> None:
        self._ahead, self._last = NOTHING_AHEAD, _NOT_LOOKED_INTO
        if (fd := self._files.pop(base, None)) is not None:
            os.close(fd)
        if (marks := self._marks.pop(base, None)) is not None:
            marks.close()

    def close(self) -> None:
        self._ahead, self._last = NOTHING_AHEAD, _NOT_LOOKED_INTO
        for base in [*self._files, *self._marks]:
            self._forget(base)
        self._bases.clear()
        self._complete = 0
