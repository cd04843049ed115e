"""Capabilities: probe the file system of a directory once, when it is opened."""

# annotations are evaluated here: `NamedTuple` would compile each one that is a string, at every start
import errno
import os
import sys
from typing import NamedTuple

from psync.engine.directory.fs.permissions import PRIVATE
from psync.engine.directory.fs.syscalls import link_unnamed, make_folder, remove_quietly
from psync.engine.directory.layout import Layout

NFS_TYPES = {"nfs", "nfs4"}
"""How the kernel names versions 3 and 4."""
CLUSTER_TYPES = {"lustre", "gpfs", "beegfs", "ceph", "glusterfs", "ocfs2", "gfs2"}
NETWORK_TYPES = (
    NFS_TYPES
    | CLUSTER_TYPES
    | {*("cifs", "smb3", "smbfs", "9p", "afs", "virtiofs", "vboxsf", "prl_fs", "vmhgfs", "orangefs")}
)
"""Types that several hosts may have mounted at once (`fuse.*` counts as one of them)."""
IN_PLACE_TYPES = {"tmpfs", "ext2", "ext3", "ext4"}
"""Types that overwrite allocated blocks in place, so that a store into mapped memory always finds room. (xfs and btrfs
copy a block that was cloned; the file system below an overlay is unknown.)"""

_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}


class Capabilities(NamedTuple):
    """The result of the probe; strategies are chosen from this and from nothing else."""

    kind: str
    """The type of the file system, as the kernel names it; "" if it does not say."""
    network: bool
    """Other hosts may change files here without this host's kernel knowing."""
    unnamed: bool
    """O_TMPFILE works, and what it makes can be linked to a name."""
    fine_times: bool
    """Two changes in a row always have two time stamps, once somebody looked in between (Linux 6.13 and later)."""
    writable: bool
    refused: int = 0
    """The error (errno) with which this user may change nothing here; 0 if he may, or there is just no room."""
    direct: int = 0
    """The flag to open files with, of which other hosts must not see anything old: O_DIRECT on NFS, else 0.

    Between two NFS clients with default options, of 200 changes made in place `pread` of a file kept open missed 200,
    `open` and `pread` 199 (a file that any process of the host has open is not asked for again; on v3 its time
    stamp may not have changed): with O_DIRECT, or while `flock` is held, none, for the price of one READ."""

    @property
    def ordered(self) -> bool:
        """Whether every read that begins after a write to an open file sees it, everywhere, without a lock: because a
        server makes all changes one after the other, or this kernel does (a file system that is said to be shared, and
        is none of those that are), or they are stores into memory on a processor that keeps their order."""
        if self.network:
            return bool(self.direct) or not is_network(self.kind)
        return self.in_place and os.uname().machine == "x86_64"

    @property
    def in_place(self) -> bool:
        """Numbers in files may be changed by stores into memory, which processes of this host share."""
        return self.kind in IN_PLACE_TYPES and not self.network and sys.byteorder == "little"


def is_network(kind: str) -> bool:
    return kind in NETWORK_TYPES or kind.startswith("fuse")


def probe_capabilities(layout: Layout, *, network: bool | None = None) -> Capabilities:
    """Probe the root of `layout`. `network`: whether other hosts work there; None: judge by the type of file system."""
    kind = file_system_type(layout.root)
    if network is None:
        network = is_network(kind)
    direct = os.O_DIRECT if network and kind in NFS_TYPES else 0
    trial = f"{layout.tmp}/{os.urandom(8).hex()}"
    try:
        make_folder(layout.tmp, layout.trust.access)
        if network:
            return Capabilities(
                kind, network, unnamed=False, fine_times=False, writable=_can_make(trial), direct=direct
            )
        return Capabilities(kind, network, _can_link_unnamed(trial), _has_fine_times(layout.tmp), True)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        # good enough to read from; an unknown capability counts as missing
        refused = error.errno if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else 0
        return Capabilities(
            kind, network, unnamed=not network, fine_times=False, writable=False, refused=refused, direct=direct
        )


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


def _can_make(trial: str) -> bool:
    os.close(os.open(trial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    remove_quietly(trial)
    return True


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
    """Whether a few changes within one tick of the clock, each followed by a stat, all get different time stamps."""
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
