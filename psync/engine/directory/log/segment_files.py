"""Segment files: the files that hold a log's records and their statuses, found, opened, read and cleared away.

A segment is named by the position of its first record. The statuses of its records are in a file of their own beside
it (see `status_file`). A segment is removed once all its records are final.
"""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import CHANGE, open_made, read_all, write_all
from psync.engine.directory.layout import Layout, number_in
from psync.engine.directory.log.record_format import HEAD_BYTES, fits, head_at, length_at
from psync.engine.directory.log.status_file import MappedStatusFile, StatusFile
from psync.engine.encoding.framing import Unreadable

SEGMENT_BYTES = 1 << 20
"""Bytes after which an appender begins a new segment."""
MAX_OPEN_FILES = 4
"""Files of each kind that stay open."""
FIRST_READ_BYTES = 512
"""Bytes of a record that are read at first; most records are shorter."""
_NOTHING_FOUND = 0, 0, -1, StatusFile(-1)
_NOTHING_AHEAD = 0, b"", StatusFile(-1), 0


class SegmentFiles:
    """The segment files of one log. Not locked: the log does that."""

    def __init__(self, layout: Layout, log: str, fs: AtomicFiles) -> None:
        self._layout = layout
        self._fs = fs
        self._trust = fs.trust
        self._change = CHANGE | fs.direct
        self._log = log
        self._lasting = fs.renamed
        """Makes the name of a file durable, where the level asks for it."""
        self._status_kind = MappedStatusFile if fs.in_place and not fs.sync_file else StatusFile
        self.folder = os.path.dirname(layout.segment(log, 0))
        self._bases: list[int] = []
        self._listed_end = 0
        """Every segment that begins below this is in `_bases`, or was cleared away since."""
        self._files: dict[int, int] = {}
        self._statuses: dict[int, StatusFile] = {}
        self._ahead = _NOTHING_AHEAD
        """Bytes that were read ahead for a claimer: their position, the bytes, their file of statuses, and the position
        at which their segment begins."""
        self._last = _NOTHING_FOUND
        """The segment that `find` found last: its first position, a position up to which it is sure to reach, and its
        two files."""

    # -- opening and finding ---------------------------------------------------------------------------

    def file(self, base: int, *, create: bool = False) -> int:
        """The descriptor of the segment that begins at `base`. Raises OSError."""
        fd = self._files.get(base)
        if fd is None:
            fd = self._open_segment(self._layout.segment(self._log, base), create)
            self._make_room(self._files)
            self._files[base] = fd
            if base not in self._bases:
                bisect.insort(self._bases, base)
        return fd

    def _open_segment(self, path: str, create: bool) -> int:
        fd = open_made(path, self._trust.access, self._change) if create else self._fs.open(path, CHANGE)
        self._trust.checked(fd, path)
        self._lasting(path)
        return fd

    def status_file(self, base: int) -> StatusFile:
        """The statuses of the segment that begins at `base`. Raises OSError."""
        statuses = self._statuses.get(base)
        if statuses is None:
            statuses = self._open_statuses(self._layout.marks(self._log, base), base)
            self._make_room(self._statuses)
            self._statuses[base] = statuses
        return statuses

    def _open_statuses(self, path: str, base: int) -> StatusFile:
        fd = self._trust.checked(open_made(path, self._trust.access, self._change), path)
        self._lasting(path)
        return self._status_kind(fd)

    def find(self, position: int, tail: int) -> tuple[int, StatusFile, int] | None:
        """The segment that holds `position`, its statuses, and the offset in the segment; None if it was cleared away.

        `tail` is the position at which the last segment begins.
        """
        base, stop, fd, statuses = self._last
        if base <= position < stop:
            return fd, statuses, position - base
        if position >= tail:
            fd, statuses = self.file(tail, create=True), self.status_file(tail)
            self._last = tail, tail + SEGMENT_BYTES, fd, statuses  # no segment is shorter
            return fd, statuses, position - tail
        if position >= self._listed_end:
            self._list()
        while at := bisect.bisect_right(self._bases, position):
            base = self._bases[at - 1]
            try:
                fd, statuses = self.file(base), self.status_file(base)
                self._last = base, self.next_base(position, tail, tail), fd, statuses
                return fd, statuses, position - base
            except FileNotFoundError:  # another process has cleared it away since the listing
                self._list()
                if base in self._bases:
                    raise
        return None

    def next_base(self, position: int, tail: int, end: int) -> int:
        """Where the segment that holds `position` ends: a killed append may have left bytes behind that."""
        if position >= tail:
            return end
        at = bisect.bisect_right(self._bases, position)
        return self._bases[at] if at < len(self._bases) else tail

    def _list(self) -> None:
        names = self._fs.listing(self.folder)
        self._bases = sorted(base for name in names if (base := number_in(name)) is not None)
        self._listed_end = self._bases[-1] if self._bases else 0

    def bases(self) -> list[int]:
        """The positions at which the segments begin, listed anew."""
        with contextlib.suppress(FileNotFoundError):
            self._list()
        return list(self._bases)

    # -- records ---------------------------------------------------------------------------------------

    def write(self, data: bytes, position: int, tail: int) -> None:
        """Write records to `position`, which is in the last segment. pwrite."""
        fd = self._files.get(tail) or self.file(tail, create=True)
        written = os.pwrite(fd, data, position - tail)
        if written != len(data):
            write_all(fd, data[written:], position - tail + written)

    def load(self, fd: int, offset: int, position: int) -> bytes:
        """Read and verify the payload of the record at an offset of a segment. Raises `Unreadable`."""
        data = os.pread(fd, FIRST_READ_BYTES, offset)
        if len(data) < HEAD_BYTES:
            raise Unreadable(f"the segment ends before the record at {position}")
        length, checksum, _, _ = head_at(data)
        if length <= FIRST_READ_BYTES - HEAD_BYTES:
            payload = data[HEAD_BYTES : HEAD_BYTES + length]
        else:
            room = self._fs.size(fd) - offset - HEAD_BYTES  # a damaged length must not allocate gigabytes
            payload = read_all(fd, min(length, max(room, 0)), offset + HEAD_BYTES)
        if len(payload) != length or not fits(payload, checksum, position):
            raise Unreadable(f"the record at {position} does not fit its checksum")
        length_at(data, 0, position)
        return payload

    # -- on the disk -----------------------------------------------------------------------------------

    def written_since(self, begin: int, tail: int) -> Iterator[int]:
        """The segments with records from position `begin` on, each open until the next one."""
        if begin < tail:
            self._list()
        for base in [base for base in self._bases if base < tail and self.next_base(base, tail, tail) > begin]:
            yield self.file(base)
        yield self.file(tail, create=True)

    def sync_statuses(self, positions: Sequence[int], tail: int) -> None:
        """Write the statuses of the records at `positions` to the disk. fdatasync for each file. Raises OSError."""
        synced = set()
        for position in positions:
            found = self.find(position, tail)
            if found is not None and found[1] not in synced:
                found[1].sync()
                synced.add(found[1])

    # -- clearing --------------------------------------------------------------------------------------

    def cut(self, end: int, base: int) -> None:
        """Remove the bytes behind `end` in the segment that begins at `base`."""
        os.ftruncate(self.file(base), end - base)

    def replace(self, base: int) -> None:
        """Give the segment that begins at `base` a new file: no record in it exists, and the disk failed with it."""
        for path in (self._layout.segment(self._log, base), self._layout.marks(self._log, base)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.close()

    def clear(self, low: int, tail: int) -> None:
        """Remove the segments that end before `low`: each of their records is final."""
        self._list()
        while len(self._bases) > 1 and self._bases[1] <= low and self._bases[0] < tail:
            base = self._bases.pop(0)
            self._evict(base)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._layout.segment(self._log, base))
        # the statuses last: a segment without them would look as if no claimer had ever passed its records
        for name in self._fs.listing(self.folder):
            status_base = number_in(name.removesuffix(".marks"))
            if status_base is not None and status_base < min(self._bases[0], low):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.folder}/{name}")

    def _make_room(self, files: Mapping[int, object]) -> None:
        """Close the oldest of `files` if they are as many as may be open."""
        if len(files) >= MAX_OPEN_FILES:
            self._evict(next(iter(files)))

    def _evict(self, base: int) -> None:
        self.discard_read_ahead()
        self._last = _NOTHING_FOUND
        if (fd := self._files.pop(base, None)) is not None:
            os.close(fd)
        if (statuses := self._statuses.pop(base, None)) is not None:
            statuses.close()

    def descriptors(self) -> int:
        return len(self._files) + sum([file.descriptors() for file in [*self._statuses.values()]])

    def look(self, base: int | None = None) -> None:
        """Raise `DirectoryGone` if something else has removed the segment that begins at `base`, which is the last one,
        or that which was found last, which has a record that is not final (psync removes none of these). fstat."""
        last, _, _, _ = self._last
        fd = self._files.get(last if base is None else base, -1)
        if fd >= 0 and not os.fstat(fd).st_nlink:
            base = last if base is None else base
            self.close()
            raise self._fs.presence.file_gone(self._layout.segment(self._log, base))

    def discard_read_ahead(self) -> None:
        """Forget the bytes that were read ahead: they are not what the file holds any more."""
        self._ahead = _NOTHING_AHEAD

    def close(self) -> None:
        self.discard_read_ahead()
        self._last = _NOTHING_FOUND
        for base in [*self._files, *self._statuses]:
            self._evict(base)
        self._bases.clear()
        self._listed_end = 0
