"""Register: a small value in a file that stays open; it is read in shared memory and changed under its lock.

On disk, ``.psync/...``: a head (the number of the change, the offset and length of the value, and a checksum of all)
and, if both fit into half a page, the value. A larger value is written first, to a part of the file that the last one
does not take. The fact that decides: the one `pwrite` of the head (whole or not at all under SIGKILL).

The page is mapped into memory, so that a read costs no system call. A head that was not seen before is checked against
the value, and read again if the check fails, because a writer is in the middle of its `pwrite`. The map shows what this
host writes; on a network file system `NetworkRegister` reads the page from the server each time.

read: no system call. update: flock, pwrite, flock.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from zlib import crc32

from psync.engine.contract.register import Register, Slots
from psync.engine.contract.values import Update
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import translate_os_error
from psync.engine.directory.fs.fd_cache import DescriptorCache, make_room
from psync.engine.directory.fs.presence import Inode, inode_of
from psync.engine.directory.fs.syscalls import CHANGE, READ, read_all, write_all
from psync.engine.directory.layout import slot_of
from psync.engine.directory.notify.wakeup import FIRST_FLAG, Wakeup
from psync.engine.directory.registers.slots import SLOTS_BYTES, MappedSlots
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import fork_hooks
from psync.engine.system.clock import monotonic
from psync.engine.system.reentry import FileSection, catch_up, postponed, reentrant
from psync.errors import CorruptValue, DirectoryGone

PAGE_BYTES = 4096
MAGIC = b"psync=1\n"
_HEAD = struct.Struct("<8sQIII")
"""Magic, number of the change, where the value begins, how long it is, the checksum."""
_CHECKED_FIELDS = struct.Struct("<QII")
HEAD_BYTES = _HEAD.size
MAX_INLINE_BYTES = PAGE_BYTES - SLOTS_BYTES - HEAD_BYTES
"""Bytes of a value that stands in the first page. The second half of that is for slots."""
_unpack = _HEAD.unpack_from
Page = mmap.mmap | bytes
Head = tuple[bytes, int, int, int, int]
_Seen = tuple["Head | None", "bytes | None"]


def _head_of(number: int, offset: int, value: bytes) -> Head:
    """No value at all: b"", and the offset 0."""
    size = len(value)
    return MAGIC, number, offset, size, crc32(value, crc32(_CHECKED_FIELDS.pack(number, offset, size)))


_BLANK = _HEAD.pack(*_head_of(0, 0, b"")).ljust(PAGE_BYTES, b"\0")


MAX_QUARANTINED_BYTES = 1 << 26
"""Bytes of a damaged register that go to quarantine."""


def _is_sound(data: bytes) -> bool:
    magic, number, offset, size, check = _unpack(data)
    value = data[offset : offset + size] if offset else b""
    fits: bool = crc32(value, crc32(_CHECKED_FIELDS.pack(number, offset, size))) == check
    return magic == MAGIC and len(value) == size and fits


class DirectoryRegister(Register):
    """One register of a directory. Threads may share it; a forked child opens the file anew."""

    def __init__(
        self,
        name: str,
        path: str,
        fs: AtomicFiles,
        *,
        wake: Wakeup,
        descriptors: DescriptorCache,
        repairs: bool = True,
        with_slots: bool = False,
    ) -> None:
        self._repairs = repairs
        self._name = name
        self._path = path
        self._fs = fs
        self._presence = fs.presence
        self._wake = wake
        self._slot = slot_of(name)
        self._flag = FIRST_FLAG + self._slot
        self._descriptors = descriptors
        self._section = FileSection(path)
        self._fd = -1
        self._map: Page | None = None
        self._resting: Page | None = None
        """The map, while the next use is to show that there is one: see `was_used`."""
        self._inode: Inode | None = None
        """Which file it opened last."""
        self._writable = True
        self._seen: _Seen = None, None
        """The last head, and its value. One tuple, so that threads see both or neither."""
        self._numbers: memoryview | None = None
        """The slots, in memory."""
        self.slots = self._make_slots() if with_slots else None

    # -- reading -----------------------------------------------------------------------------------------

    def read(self) -> bytes | None:
        page = self._map
        if page is not None and monotonic() <= self._presence.due:
            seen, value = self._seen
            try:
                if _unpack(page) == seen:
                    return value
            except ValueError:
                pass  # the descriptor cache closed it meanwhile
        return self._read()

    def _read(self) -> bytes | None:
        if monotonic() > self._presence.due:
            self._look()
        page = self._map or self._opened(create=False)
        if page is None:
            return None
        for _ in range(100):
            try:
                return self._value(page)
            except Unreadable:
                continue  # a writer was in the middle of it
            except ValueError:
                return self._read()  # the descriptor cache closed it meanwhile
            except OSError as error:
                if error.errno == errno.EBADF:
                    return self._read()
                raise translate_os_error(error, self._name, self._path) from error
        return self.update(lambda value: value)  # under the lock no writer is at work

    def _value(self, page: Page) -> bytes | None:
        """The value that the head in `page` announces. Raises `Unreadable` if its checksum does not fit."""
        head = _unpack(page)
        seen, value = self._seen
        if head == seen:
            return value
        magic, number, offset, size, check = head
        if magic != MAGIC:
            raise Unreadable("it does not begin as a register does")
        found: bytes | None = None
        if offset == HEAD_BYTES:
            found = page[HEAD_BYTES : HEAD_BYTES + size]
        elif offset:
            if offset + size > self._fs.size(self._fd):  # or a damaged size would ask for gigabytes
                raise Unreadable("the value ends too early")
            found = read_all(self._fd, size, offset)
        if crc32(found or b"", crc32(_CHECKED_FIELDS.pack(number, offset, size))) != check:
            raise Unreadable("the checksum does not fit the value")
        self._seen = head, found
        return found

    def _damaged(self, error: Unreadable) -> CorruptValue:
        """The error for a damaged register, which goes to quarantine and begins anew, as if it had never been set."""
        refuge = None
        with contextlib.suppress(OSError):
            refuge = self._reset(str(error))
        place = f"its bytes are kept at {refuge}, and it begins anew" if refuge else f"it is still at {self._path}"
        return CorruptValue(
            f"the register {self._name!r} is damaged ({error}); {place}",
            key=self._name,
            path=self._path,
            quarantine=refuge,
            reason=str(error),
        )

    def _reset(self, reason: str) -> str | None:
        """Quarantine the bytes and blank the file in place (others have it open) unless another process was faster."""
        if not self._repairs:
            return None
        fd = self._fs.trust.checked(os.open(self._path, CHANGE), self._path)
        try:
            flock(fd, LOCK_EX)
            size = os.fstat(fd).st_size
            data = read_all(fd, min(size, MAX_QUARANTINED_BYTES))
            if size >= PAGE_BYTES and _is_sound(data):
                return None
            refuge = self._fs.keep(self._name, data, reason)
            if refuge is not None:
                write_all(fd, _BLANK, 0)
            return refuge
        finally:
            os.close(fd)

    # -- changing ----------------------------------------------------------------------------------------

    def update(self, function: Update) -> bytes | None:
        callers = False
        """True while the caller's function runs: its OSError is passed on as it is."""
        section = self._section
        if section.is_mine():  # `with section`, written out: this is a hot path
            raise reentrant(section.what)
        try:
            if monotonic() > self._presence.due:
                self._look()
            with section.lock:
                page = self._map if self._map is not None and self._writable else self._open(create=True)
                assert page is not None
                try:
                    try:
                        flock(self._fd, LOCK_EX | LOCK_NB)
                    except BlockingIOError:
                        section.wait_for(self._fd, LOCK_EX)
                    old = self._value(page)
                    callers = True
                    new = function(old)
                    callers = False
                    if new is None or new is old:
                        return old
                    self._put(page, new)
                finally:
                    try:  # inline: a signal's handler could run on the way into a function
                        flock(self._fd, LOCK_UN)
                    except OSError:
                        self._close()  # which unlocks it too
                    except BaseException:  # a handler ran in an audit hook, before the system call
                        flock(self._fd, LOCK_UN)
                        raise
        except OSError as error:
            if callers:
                raise
            raise translate_os_error(error, self._name, self._path) from error
        except Unreadable as error:
            raise self._damaged(error) from error
        finally:
            if postponed:
                catch_up()
        flags = self._wake.mapped
        if flags is None or flags[self._flag]:  # `notify_slot` written out
            self._wake.notify_slot(self._slot)
        return new

    def _put(self, page: Page, new: bytes) -> None:
        """While locked."""
        _, number, offset, size, _ = _unpack(page)
        if len(new) <= MAX_INLINE_BYTES:
            at = HEAD_BYTES
        else:
            behind = -(-(offset + size) // PAGE_BYTES) * PAGE_BYTES
            at = PAGE_BYTES if offset < PAGE_BYTES or offset >= PAGE_BYTES + len(new) else behind
            write_all(self._fd, new, at)
            if self._fs.sync_file:
                os.fdatasync(self._fd)
        head = _head_of(number + 1, at, new)
        data = _HEAD.pack(*head) + new if at == HEAD_BYTES else _HEAD.pack(*head)
        if not self._fs.sync_file:
            written = os.pwrite(self._fd, data, 0)
            if written != len(data):
                write_all(self._fd, data[written:], written)
            self._seen = head, new
            return
        before = page[: HEAD_BYTES + MAX_INLINE_BYTES]
        write_all(self._fd, data, 0)
        try:
            os.fdatasync(self._fd)
        except BaseException:
            # write the old head again: the kernel has given up the page that it could not sync
            write_all(self._fd, before, 0)
            raise

    # -- the file ----------------------------------------------------------------------------------------

    def _look_if_due(self) -> None:
        if monotonic() > self._presence.due:
            self._look()

    def _look(self) -> None:
        """Raise `DirectoryGone` unless the file is where it was opened. The next verb begins anew."""
        try:
            self._presence.look_at(self._path, self._inode)
        except DirectoryGone:
            if self.close_if_idle():
                self._inode = None
            raise

    def _opened(self, *, create: bool) -> Page | None:
        section = self._section
        if section.is_mine():  # `with section`, written out: this is a hot path
            raise reentrant(section.what)
        try:
            with section.lock:
                return self._map or self._open(create=create)
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error
        finally:
            if postponed:
                catch_up()

    def _open(self, *, create: bool) -> Page | None:
        """Open the file, unless it is, and return its first page.

        With `create` the file is created if it is missing, and has to be writable; without, None if it is missing, and
        permission to read is enough.
        """
        if self._resting is not None and (self._writable or not create):
            self._map, self._resting = self._resting, None
            return self._map
        if self._fd >= 0:
            self._close()
        if create:
            self._presence.check()
        known, self._inode = self._inode, None
        with fork_hooks.put_off:
            while True:
                try:
                    fd = self._fs.open(self._path, CHANGE)
                except FileNotFoundError:
                    if known is not None:
                        raise self._presence.file_gone(self._path) from None
                    if not create:
                        return None
                    self._fs.make(self._path, _BLANK)
                    continue
                except OSError as error:
                    if make_room(error):
                        continue
                    if create:
                        raise
                    try:
                        fd = self._fs.open(self._path, READ)
                    except FileNotFoundError:
                        return None
                    self._writable = False
                self._fs.trust.checked(fd, self._path)
                try:
                    inode = inode_of(os.fstat(fd))
                    if known not in (None, inode):
                        raise self._presence.file_gone(self._path)
                    self._map = self._show(fd)
                except BaseException as error:
                    os.close(fd)
                    if isinstance(error, OSError) and make_room(error):
                        continue
                    if isinstance(error, ValueError):
                        raise self._damaged(Unreadable("it is shorter than a page")) from error
                    raise
                self._fd, self._inode = fd, inode
                self._descriptors.opened(self)
                return self._map

    def _show(self, fd: int) -> Page:
        return mmap.mmap(
            fd, PAGE_BYTES, access=mmap.ACCESS_WRITE if self._writable and self.slots else mmap.ACCESS_READ
        )

    # -- the slots ---------------------------------------------------------------------------------------

    def _make_slots(self) -> Slots:
        return MappedSlots(self)

    def numbers(self) -> memoryview:
        """The slots, two numbers each, in memory. They may be changed only within `update`, or by `store_word`."""
        while (numbers := self._numbers) is None:
            page = self._map or self._opened(create=True)
            if isinstance(page, mmap.mmap):
                numbers = self._numbers = memoryview(page)[PAGE_BYTES - SLOTS_BYTES :].cast("Q")
        return numbers

    def store_word(self, at: int, number: int) -> None:
        """Store one number without a system call. Loads that this thread makes afterwards are made after the store."""
        section = self._section
        if section.is_mine():  # `with section`, written out: this is a hot path
            raise reentrant(section.what)
        try:
            if monotonic() > self._presence.due:
                self._look()
            with section.lock:  # its release is the memory fence
                if self._map is None or not self._writable:
                    self._open(create=True)
                (self._numbers or self.numbers())[at] = number
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error
        finally:
            if postponed:
                catch_up()

    def allocate(self) -> None:
        """While locked: allocate the page on the disk; a store that finds no room would kill the process by SIGBUS."""
        try:
            os.posix_fallocate(self._fd, 0, PAGE_BYTES)
        except OSError as error:
            raise translate_os_error(error, self._name, self._path) from error

    def descriptors(self) -> int:
        return 0 if self._fd < 0 else 1 + isinstance(self._map or self._resting, mmap.mmap)

    def was_used(self) -> bool:
        """The map is put away, at no cost to the verbs: one that needs it brings it back."""
        if self._map is None:
            return False
        if self._section.try_enter():
            self._map, self._resting = None, self._map
            self._section.leave()
        return True

    def close_if_idle(self) -> bool:
        if not self._section.try_enter():
            return False
        try:
            self._close()
        finally:
            self._section.leave()
        return True

    def _close(self) -> None:
        self._numbers = None
        page = self._map or self._resting
        self._map = self._resting = None
        if isinstance(page, mmap.mmap):
            with contextlib.suppress(BufferError):  # another thread reads or writes slots: it closes when that is done
                page.close()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # before it is closed, so that nobody closes another file of this number
            os.close(fd)
        self._writable = True

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is going down
            self._close()

    def after_fork(self) -> None:
        """In a child: the descriptor shares its lock with the parent, so it is given up (closing unlocks nothing)."""
        self._section = FileSection(self._path)
        self._close()
        if self.slots is not None:
            self.slots.after_fork()
