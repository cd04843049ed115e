"""Files that appear whole: under a new name, or in another's place; and how durable they are then."""

from __future__ import annotations

import os

from psync.engine.directory.files import Temporary, link_unnamed, sync_folder
from psync.engine.directory.names import Layout
from psync.engine.directory.probe import Abilities
from psync.engine.seal import Parts


class Whole:
    """How this directory makes files: `sync_file` before they become visible, `sync_name` (the folder) after."""

    def __init__(self, layout: Layout, can: Abilities, *, sync_file: bool, sync_name: bool) -> None:
        self._tmp = layout.tmp
        self._unnamed = can.unnamed
        self.sync_file = sync_file
        self.sync_name = sync_name

    def make(self, path: str, data: bytes | Parts) -> bool:
        """`path` comes into being with `data` in it, unless there is one: True for the one who made it."""
        if self._unnamed:
            made = link_unnamed(path, data, sync=self.sync_file)
        else:
            made = Temporary(self._tmp, data, sync=self.sync_file).link(path)
        if made:
            self.renamed(path)
        return made

    def replace(self, path: str, data: bytes | Parts, *, durable: bool = False) -> Temporary:
        """`path` is a new file with `data`, still locked: let go of it or keep it. Hold the lock of the old one."""
        new = Temporary(self._tmp, data, sync=durable or self.sync_file)
        try:
            os.rename(new.path, path)
        except BaseException:
            new.discard()
            raise
        try:
            self.renamed(path)
        except BaseException:
            new.discard()
            raise
        return new

    def renamed(self, path: str) -> None:
        """`path` has another file than before, or none: make that durable if that was asked for."""
        if self.sync_name:
            sync_folder(os.path.dirname(path))
