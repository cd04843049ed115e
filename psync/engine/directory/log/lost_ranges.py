"""Which positions of a log have lost their records, to a power cut or to damage: a name in its folder for each stretch.

So a record that is lost is told from one that was final and has been cleared away, for ever. A name needs no bytes that
could be lost, too; it is on the disk before the positions can be asked for. What had been put there is not known any
more, nor what became of it.
"""

from __future__ import annotations

import os

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import close, open_made
from psync.engine.directory.layout import Layout, hole_in


class LostRanges:
    """The stretches of one log."""

    def __init__(self, layout: Layout, log: str, fs: AtomicFiles) -> None:
        self._layout = layout
        self._log = log
        self._fs = fs

    def add(self, begin: int, end: int) -> None:
        """What was from position `begin` up to `end` is lost. Raises OSError if that can't be kept."""
        path = self._layout.hole(self._log, begin, end)
        close(open_made(path, self._fs.trust.access))
        self._fs.secure(path)

    def has(self, position: int) -> bool:
        """Whether what was at `position` is lost. Lists the log's folder."""
        folder = os.path.dirname(self._layout.hole(self._log, 0, 0))
        stretches = filter(None, map(hole_in, self._fs.listing(folder)))
        return any(begin <= position < end for begin, end in stretches)
