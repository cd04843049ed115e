"""A directory is looked at once, when it is opened: what can its file system do?"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from psync.engine.directory.files import link_unnamed, make_folder, remove_quietly
from psync.engine.directory.names import Layout
from psync.engine.directory.trust import PRIVATE

NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "9p",
    "afs",
    "glusterfs",
    "ocfs2",
    "gfs2",
}
"""Types that several hosts may have mounted at once (`fuse.*` counts as one of them)."""


_NO_ROOM = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}


class Abilities(NamedTuple):
    """What was found; strategies are chosen from this and from nothing else."""

    kind: str
    """The type of the file system, as the kernel names it; "" if it does not say."""
    network: bool
    """Other hosts may change files here without this kernel knowing."""
    unnamed: bool
    """O_TMPFILE works, and what it makes can be linked to a name."""
    fine_times: bool
    """Two changes in a row always have two time stamps, once somebody looked in between (Linux 6.13 and later)."""
    writable: bool


def look(layout: Layout) -> Abilities:
    kind = file_system_type(layout.root)
    network = kind in NETWORK or kind.startswith("fuse")
    trial = f"{layout.tmp}/{os.urandom(8).hex()}"
    try:
        make_folder(layout.tmp, layout.trust.access)
        return Abilities(kind, network, _can_link_unnamed(trial), not network and _has_fine_times(layout.tmp), True)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # good enough to read from, and what is not known yet is taken for the worse
        return Abilities(kind, network, unnamed=not network, fine_times=False, writable=False)


def file_system_type(path: str) -> str:
    """The type of the file system `path` is on ("ext4", "tmpfs", "nfs4", ...), from the kernel's table of mounts."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                if fields.split(" ", 3)[2] == wanted:
                    return rest.split(" ", 1)[0]
    except OSError:
        return ""  # no /proc
    return ""


def _can_link_unnamed(trial: str) -> bool:
    try:
        return link_unnamed(trial, b"", sync=False)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.EPERM, errno.EXDEV):
            return False
        raise
    finally:
        remove_quietly(trial)


def _has_fine_times(folder: str) -> bool:
    """Change and look a few times within one tick of the clock: are all time stamps different?"""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, PRIVATE.file)
    except OSError:
        return False
    try:
        stamps = set()
        for _ in range(6):
            os.pwrite(fd, b"x", 0)
            stamps.add(os.fstat(fd).st_ctime_ns)
        return len(stamps) == 6
    finally:
        os.close(fd)
