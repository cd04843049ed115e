"""Read and change cells by name: paths are built, errors worded, and waiters of the name woken here.

`Cells` (local) and `NetworkCells` (NFS) do the same to paths.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from psync.engine.contract.values import FOREIGN_REASON, Cell, Update, Version
from psync.engine.directory.cells.local import Cells
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.errors import BucketMet, not_a_value, translate_os_error
from psync.engine.directory.fs.fd_cache import make_room
from psync.engine.directory.fs.syscalls import remove_empty, remove_folders
from psync.engine.directory.layout import OWN, Layout, held_by
from psync.engine.directory.notify.wakeup import FIRST_FLAG, FIRST_WAITER_SLOT, Wakeup
from psync.engine.encoding.framing import Unreadable
from psync.engine.system import clock
from psync.engine.system.clock import monotonic
from psync.engine.system.reentry import catch_up, postponed
from psync.errors import CorruptValue, InvalidKey, StoreFailed

A = TypeVar("A")
T = TypeVar("T")
_OWN = f"{OWN}/"
"""All that is below it is psync's own, even what does not look so."""


class CellVerbs:
    """The verbs of `Engine` on cells, at one level of durability."""

    def __init__(self, layout: Layout, fs: AtomicFiles, cells: Cells, wake: Wakeup) -> None:
        self._layout = layout
        self._fs = fs
        self._presence = fs.presence
        self._cells = cells
        self._wake = wake
        self._spares: Callable[[], bool] = bool

    def spare_damaged(self, when: Callable[[], bool]) -> None:
        self._spares = when

    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        path = self._layout.prefix + name
        try:
            cell = self._cells.read(path, known)
            if cell is None and monotonic() > self._presence.due:
                self._presence.look()
            return cell
        except OSError as error:
            if make_room(error):
                return self.read(name, known)
            raise translate_os_error(error, name, path) from error
        except Unreadable as error:
            raise self.damaged(name, error) from error
        finally:
            if postponed:
                catch_up()

    def write(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> None:
        path = self._layout.prefix + name
        try:
            if monotonic() > self._presence.due:
                self._presence.look()
            self._cells.write(path, payload, spare_bucket)
        except OSError as error:
            if not make_room(error) and not remove_empty(path):
                raise translate_os_error(error, name, path) from error
            self.write(name, payload, spare_bucket=spare_bucket)
        except Unreadable as error:
            self._make_room(name, str(error))
            self.write(name, payload, spare_bucket=spare_bucket)
        except BucketMet as met:
            raise self._met(name, met) from None
        else:
            flags = self._wake.mapped
            if flags is None or flags.find(b"\x01", FIRST_FLAG, FIRST_WAITER_SLOT) >= 0:  # `notify` written out
                self._wake.notify(name)
        finally:
            if postponed:
                catch_up()

    def create(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> bool:
        path = self._layout.prefix + name
        try:
            if monotonic() > self._presence.due:
                self._presence.look()
            made = self._cells.create(path, payload, spare_bucket)
        except OSError as error:
            if not remove_empty(path):
                raise translate_os_error(error, name, path) from error
            return self.create(name, payload, spare_bucket=spare_bucket)
        except BucketMet as met:
            raise self._met(name, met) from None
        if made:
            self._wake.notify(name)
        return made

    def delete(self, name: str, *, spare_foreign: bool = False) -> bool:
        deleted = self._change(name, lambda path: self._cells.delete(path, spare_foreign))
        if deleted and "/" in name:
            self._remove_folders(name)
        return deleted

    def _remove_folders(self, name: str) -> None:
        """With the last name of a folder the folder goes. (Not psync's own: their files come and go all the time.)"""
        if not name.startswith(_OWN):
            remove_folders(self._layout.prefix + name, self._layout.root)

    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        guarded = _guarded(before or _nothing)
        try:
            popped = self._change(name, lambda path: self._cells.pop(path, guarded))
        except _CallersError as passed:
            raise passed.error from passed.error.__cause__
        if popped is not None and "/" in name:
            self._remove_folders(name)
        return popped

    def move(self, name: str, new: str) -> bool:
        try:
            moved = self._change(name, lambda path: self._cells.move(path, self._layout.path(new)))
        except StoreFailed as error:
            if error.errno != errno.EEXIST:
                raise
            if not os.path.isdir(self._layout.path(new)):
                return False
            if not remove_empty(self._layout.path(new)):
                raise not_a_value(new, self._layout.path(new)) from error
            return self.move(name, new)
        if moved:
            self._wake.notify(new)
            if "/" in name:
                self._remove_folders(name)
        return moved

    def update(self, name: str, function: Update, *, spare_bucket: Callable[[], bool] | None = None) -> bytes | None:
        guarded = _guarded(function)
        try:
            return self._change(name, lambda path: self._cells.update(path, guarded, spare_bucket))
        except _CallersError as passed:
            raise passed.error from passed.error.__cause__
        except BucketMet as met:
            raise self._met(name, met) from None

    def _met(self, name: str, met: BucketMet) -> InvalidKey:
        from psync.engine.contract.bucket import bucket_in_the_way

        return bucket_in_the_way(name, met.path[len(self._layout.prefix) :])

    def _change(self, name: str, verb: Callable[[str], T]) -> T:
        """Call `verb` with the path, translate its errors, and wake those who wait for the name."""
        path = self._layout.prefix + name
        try:
            if monotonic() > self._presence.due:
                self._presence.look()
            result = verb(path)
        except OSError as error:
            if not isinstance(error, IsADirectoryError) or not remove_empty(path):
                raise translate_os_error(error, name, path) from error
            return self._change(name, verb)
        except Unreadable as error:
            raise self.damaged(name, error) from error
        finally:
            if postponed:
                catch_up()
        self._wake.notify(name)
        return result

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        names: list[str] = []
        folders: list[str] = []
        twice = False
        path = self._layout.prefix + folder if folder else self._layout.root
        try:
            with self._fs.scan(path) as found:
                for entry in found:
                    if entry.is_file(follow_symlinks=False):
                        name = entry.name
                        if name[0] == ".":
                            from psync.engine.directory.fs.nfs_replace import read_end

                            held = held_by(f"{path}/{name}", read_end)
                            if held is None:
                                continue
                            twice = twice or held != name  # the name may be there, too
                            name = held
                        names.append(name)
                    elif entry.is_dir(follow_symlinks=False) and (folder or entry.name != OWN):
                        folders.append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            self._presence.look()
            return [], []
        except OSError as error:
            raise translate_os_error(error, folder, path) from error
        return list(dict.fromkeys(names)) if twice else names, folders

    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        waiting = [folder, OWN] if hidden and not folder else [folder]
        while waiting:
            folder = waiting.pop()
            names, folders = self.entries(folder)
            if folder:
                for name in names:
                    yield f"{folder}/{name}"
                waiting.extend([f"{folder}/{name}" for name in folders])
            else:
                yield from names
                waiting.extend(folders)

    # -- what is damaged -------------------------------------------------------------------------------

    def damaged(self, name: str, error: Unreadable) -> CorruptValue:
        reason, path = str(error), self._layout.path(name)
        if error.foreign and not name.startswith(_OWN):
            return CorruptValue(
                f"{path} holds no value: {FOREIGN_REASON} ({reason}). It stays where it is. When {name!r} is set, its "
                f"bytes are kept in quarantine; when {name!r} is deleted, they are gone",
                key=name,
                path=path,
                reason=reason,
                foreign=True,
            )
        refuge = None if self._spares() else self.set_aside(name, reason)
        kept = f"its bytes are kept at {refuge}" if refuge else f"it is still at {path}"
        return CorruptValue(
            f"the value of {name!r} is damaged ({reason}); {kept}. "
            "Set the key again, or restore the file from a backup",
            key=name,
            path=path,
            quarantine=refuge,
            reason=reason,
        )

    def set_aside(self, name: str, reason: str, seen: Version | None = None, *, foreign: bool = False) -> str | None:
        if self._fs.reading:
            return None  # damaged bytes stay where they are
        try:
            return self._moved(name, reason, seen, foreign or name.startswith(_OWN))
        except OSError:
            return None  # quarantine can't take it: it stays where it is

    def _make_room(self, name: str, reason: str) -> None:
        """Keep a foreign file's bytes in quarantine, because its name is set."""
        path = self._layout.path(name)
        try:
            self._moved(name, f"{FOREIGN_REASON} ({reason}), and its name was set", None, True)
        except OSError as error:
            raise translate_os_error(error, name, path) from error

    def _moved(self, name: str, reason: str, seen: Version | None, foreign: bool) -> str | None:
        refuge = self._layout.refuge(name, clock.wall_ns())
        if not self._cells.set_aside(self._layout.path(name), refuge, seen, foreign):
            return None
        self._fs.say_why(refuge, name, reason)
        self._wake.notify(name)
        if "/" in name:
            self._remove_folders(name)
        return refuge

    def keep(self, name: str, data: bytes, reason: str) -> str | None:
        return self._fs.keep(name, data, reason)


class _CallersError(BaseException):
    """Carries an error of the caller's function past all who would take it for one of the file system."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _guarded(function: Callable[[A], T]) -> Callable[[A], T]:
    def guarded(argument: A) -> T:
        try:
            return function(argument)
        except (OSError, Unreadable) as error:
            raise _CallersError(error) from error

    return guarded


def _nothing(cell: Cell) -> None:
    """`before` of a `pop` without one."""
