"""Files that appear whole: under a new name, or in another's place; and how durable they are then."""

from __future__ import annotations

import contextlib
import os

from psync.engine.directory.files import READ, Temporary, close, link_unnamed, read_all, sync_folder
from psync.engine.directory.names import Layout
from psync.engine.directory.probe import Abilities
from psync.engine.seal import Parts


class Whole:
    """How this directory makes files: `sync_file` before they become visible, `sync_name` (the folder) after."""

    def __init__(self, layout: Layout, can: Abilities, *, sync_file: bool, sync_name: bool) -> None:
        self._tmp = layout.tmp
        self._root = layout.root
        self.trust = layout.trust
        self._unnamed = can.unnamed
        self.sync_file = sync_file
        self.sync_name = sync_name
        self._lasting: set[str] = set()
        """Folders whose own names are known to be on the disk."""

    def make(self, path: str, data: bytes | Parts) -> bool:
        """`path` comes into being with `data` in it, unless there is one: True for the one who made it."""
        trust = self.trust
        if not trust.closed:
            trust.check_folder(path[: path.rindex("/")])
        if self._unnamed:
            made = link_unnamed(path, data, sync=self.sync_file, access=trust.access)
        else:
            made = Temporary(self._tmp, data, sync=self.sync_file, access=trust.access).link(path)
        if made:
            try:
                self.renamed(path)
            except BaseException:
                os.unlink(path)  # a name that may not last was not made
                raise
        return made

    def replace(self, path: str, data: bytes | Parts, *, durable: bool = False) -> Temporary:
        """`path` is a new file with `data`, still locked: let go of it or keep it. Hold the lock of the old one."""
        new = Temporary(self._tmp, data, sync=durable or self.sync_file, access=self.trust.access)
        try:
            if self.sync_name:
                self._put_lastingly(new, path)
            else:
                os.rename(new.path, path)
        except BaseException:
            new.discard()
            raise
        return new

    def _put_lastingly(self, new: Temporary, path: str) -> None:
        old = os.open(path, READ)
        try:
            os.rename(new.path, path)
            try:
                self.renamed(path)
            except BaseException:
                self.bring_back(path, old)
                raise
        finally:
            close(old)

    def bring_back(self, path: str, old: int) -> None:
        """`path` holds what is in the file that is open as `old`: what was done to it failed in the end."""
        with contextlib.suppress(OSError):  # the disk does not even take what it had before
            size = os.fstat(old).st_size
            Temporary(self._tmp, read_all(old, size), sync=False, access=self.trust.access).replace(path)

    def say_why(self, refuge: str, name: str, reason: str) -> None:
        """Beside what is in quarantine: what it was, and why it is there."""
        text = f"{name}\n{' '.join(reason.split())}\n"
        self.make(f"{refuge}.why", text.encode("utf-8", "backslashreplace"))

    def renamed(self, path: str) -> None:
        """`path` has another file than before, or none: make that durable if that was asked for."""
        if self.sync_name:
            self.secure(path)

    def secure(self, path: str) -> None:
        """Whatever `path` is now, it is after a power cut."""
        folder = os.path.dirname(path)
        sync_folder(folder)
        while folder not in self._lasting and len(folder) > len(self._root):
            above = os.path.dirname(folder)
            sync_folder(above)
            self._lasting.add(folder)
            folder = above
