"""Lost ranges: the positions whose records were lost to a power cut or to damage, as a file name for each range.

So a lost record is told from one that was final and was cleared away, for ever. A name needs no bytes that could be
lost, too, and it is on the disk before a process can ask for the positions. It is not known what the records held, nor
how far they had come.
"""

from __future__ import annotations

import os

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import close, open_made
from psync.engine.directory.layout import Layout, hole_in


class LostRanges:
    """The lost ranges of one log."""

    def __init__(self, layout: Layout, log: str, fs: AtomicFiles) -> None:
        self._layout = layout
        self._log = log
        self._fs = fs

    def add(self, begin: int, end: int) -> None:
        """Record that everything from position `begin` up to `end` is lost. Raises OSError."""
        path = self._layout.hole(self._log, begin, end)
        close(open_made(path, self._fs.trust.access))
        self._fs.secure(path)

    def has(self, position: int) -> bool:
        """Whether the record at `position` is lost. Lists the log's folder."""
        folder = os.path.dirname(self._layout.hole(self._log, 0, 0))
        ranges = filter(None, map(hole_in, self._fs.listing(folder)))
        return any(begin <= position < end for begin, end in ranges)
