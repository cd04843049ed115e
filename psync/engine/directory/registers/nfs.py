"""NFS register: the same file as a local register, but nothing is mapped into memory or cached.

Each read asks the server for the first page; so does each update, while it holds the lock. The file is never removed or
replaced, so it needs no lookups by name. On NFS half of the page is for slots.

read: READ. update: LOCK, READ, WRITE, LOCKU.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from psync.engine.contract.register import Slots
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.registers.register import PAGE_BYTES, DirectoryRegister, Page
from psync.engine.directory.registers.slots import SLOTS_BYTES, PageSlots
from psync.engine.encoding.framing import Unreadable

T = TypeVar("T")


class NetworkRegister(DirectoryRegister):
    def _make_slots(self) -> Slots:
        return PageSlots(self, PAGE_BYTES - SLOTS_BYTES)

    def read(self) -> bytes | None:
        self._look_if_due()
        if self._map is None and self._opened(create=False) is None:
            return None
        for _ in range(100):
            try:
                return super()._value(self._page())
            except Unreadable:
                continue  # a writer was in the middle of it
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise translate_os_error(error, self._name, self._path) from error
                return self.read()  # the descriptor cache closed it meanwhile
        return self.update(lambda value: value)  # under the lock no writer is at work

    def change_token(self) -> bytes | None:
        """READ. The whole first page: it differs once the payload or a slot has changed."""
        return None if self._map is None and self._opened(create=False) is None else self.with_file(self._page_of)

    def with_file(self, use: Callable[[int], T]) -> T:
        """``use(descriptor)``, with the file open. `use` may write only within `while_open` or `update`."""
        while True:
            if self._map is None:
                self._opened(create=True)
            try:
                return use(self._fd)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise translate_os_error(error, self._name, self._path) from error

    def while_open(self, write: Callable[[], object]) -> None:
        """``write()``, while no thread closes the file, which is open for writing."""
        try:
            self._look_if_due()
            with self._section, self._section.lock:
                if self._map is None or not self._writable:
                    self._open(create=True)
                write()
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error

    def _page(self) -> bytes:
        return self._page_of(self._fd)

    @staticmethod
    def _page_of(fd: int) -> bytes:
        page = os.pread(fd, PAGE_BYTES, 0)
        if len(page) < PAGE_BYTES:
            raise Unreadable("it is shorter than a page")
        return page

    _locked_page = b""
    """The page as it was read under the lock."""

    def _value(self, page: Page) -> bytes | None:
        """While locked."""
        self._locked_page = self._page()
        return super()._value(self._locked_page)

    def _put(self, page: Page, new: bytes) -> None:
        super()._put(self._locked_page, new)

    def _show(self, fd: int) -> Page:
        return b"it is open, and looked at by `_page`"
