"""Walk a directory and tell the shape of each entry by its name, or by how its file begins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from urllib.parse import unquote

from psync.engine.contract.report import Facts, Process, Shape
from psync.engine.contract.values import Alive
from psync.engine.directory.cells.local import examine
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.nfs_replace import read_end
from psync.engine.directory.fs.syscalls import LARGE_BYTES, READ, is_no_pickle, read_all
from psync.engine.directory.layout import FORMAT, OWN, OWN_FOLDERS, Layout, held_by, is_successor, number_in
from psync.engine.directory.liveness.registry import OwnerRegistry
from psync.engine.directory.registers.register import MAGIC
from psync.engine.encoding.framing import BUCKET_HEAD, CELL_HEAD, Unreadable, bears_frame, is_bucket
from psync.engine.system.process_identity import usage


def walk(layout: Layout, fs: AtomicFiles, folder: str) -> Iterator[tuple[Shape, str]]:
    """See `Engine.walk`. One folder at a time, and its entries as the kernel lists them."""
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        below = f"{folder}/" if folder else ""
        inside = f"{below}/".startswith(f"{OWN}/")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), fs.scan(layout.path(folder)) as found:
            for entry in found:
                name = entry.name
                if folder == OWN and name == FORMAT:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if folder == OWN and name in OWN_FOLDERS:
                        continue
                    if inside and name == "log" and os.path.exists(f"{layout.path(below)}log/tail"):
                        yield Shape.LOG, folder
                    else:
                        waiting.append(below + name)
                elif (
                    entry.is_file(follow_symlinks=False)
                    and (held := held_by(layout.path(below + name), read_end)) is not None
                ):
                    if held != name and os.path.lexists(layout.path(below + held)):
                        continue  # that entry is listed by itself
                    looked_at = inside or (below and len(held) == 2)
                    yield (_shape_of(layout.path(below + name)) if looked_at else Shape.CELL), below + held


def is_foreign(path: str) -> bool:
    """Whether psync did not write the file: it holds neither frame, bucket nor whole pickle. What bears a frame is read
    no further than its head. Raises OSError."""
    fd = os.open(path, READ)
    try:
        status = os.fstat(fd)
        if bears_frame(os.pread(fd, CELL_HEAD, 0)):
            return False
        examine(read_all(fd, LARGE_BYTES if is_no_pickle(fd, status.st_size) else status.st_size), ())
    except Unreadable as error:
        return error.foreign
    finally:
        os.close(fd)
    return False


def successors(layout: Layout, fs: AtomicFiles) -> Iterator[str]:
    """The paths of all successors (see `nfs_replace`): files that will replace others, or whose writers were killed."""
    waiting = [layout.root]
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), fs.scan(folder) as found:
            for entry in found:
                path = f"{folder.rstrip('/')}/{entry.name}"
                if entry.name[0] == "." and is_successor(entry.name):
                    yield path
                elif entry.is_dir(follow_symlinks=False) and not (folder == layout.own and entry.name in OWN_FOLDERS):
                    waiting.append(path)


def _shape_of(path: str) -> Shape:
    """The shape that the beginning of a file tells; a file without one is a cell, or damaged."""
    try:
        fd = os.open(path, READ)
    except OSError:
        return Shape.CELL
    try:
        head = os.read(fd, max(len(MAGIC), BUCKET_HEAD))
    finally:
        os.close(fd)
    return Shape.REGISTER if head.startswith(MAGIC) else Shape.BUCKET if is_bucket(head) else Shape.CELL


def facts(layout: Layout, name: str) -> Facts | None:
    """stat."""
    try:
        status = os.stat(layout.path(name))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Facts(status.st_size, status.st_mtime)


def mutexes(layout: Layout, fs: AtomicFiles) -> list[str]:
    """The names of all mutexes that were ever used; a long name is cut, and ends with its checksum."""
    with contextlib.suppress(FileNotFoundError):
        return [unquote(file, errors="surrogateescape") for file in fs.listing(layout.locks)]
    return []


def processes(layout: Layout, fs: AtomicFiles, owners: OwnerRegistry) -> list[Process]:
    """All processes that registered here and did not leave in order."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for owner in sorted(filter(None, map(number_in, fs.listing(layout.owners)))):
            identity, alive = owners.identity(owner), owners.alive(owner)
            used = usage(identity) if identity is not None and alive is not Alive.NO else None
            found.append(Process(owner, identity, alive, used))
    return found
