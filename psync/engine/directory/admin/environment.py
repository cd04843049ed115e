"""Examine a directory's environment: file system and mount, permissions, capability trials, space and limits."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from collections.abc import Iterator
from typing import NamedTuple

from psync.engine.contract.report import ELSEWHERE, NOTE, OK, WRONG, Finding
from psync.engine.directory.admin.trials import run_trials
from psync.engine.directory.fs.capabilities import is_network
from psync.engine.directory.fs.errors import advise
from psync.engine.directory.fs.permissions import PermissionProblem, Permissions
from psync.engine.directory.layout import OWN_FOLDERS

MIN_FREE_BYTES = 64 << 20
"""Bytes that should be free, at least."""
MIN_DESCRIPTORS = 512
"""Files that psync may have open at once."""


class Mount(NamedTuple):
    kind: str
    source: str
    where: str
    options: tuple[str, ...]

    @property
    def network(self) -> bool:
        return is_network(self.kind)


def examine(root: str, mount: Mount, *, team: bool = False, unpickles: bool = True) -> Iterator[Finding]:
    """All findings on the directory `root`; its group is trusted if it is a `team`'s.

    Raises OSError if it can't be read.
    """
    yield _file_system(root, mount)
    options = [*network_options(mount)]
    yield from options
    if mount.network and not any(finding.says == LOCKS_STAY for finding in options):
        yield Finding(
            ELSEWHERE,
            NOTE,
            f"{mount.kind}: other hosts or mounts may use it, and one alone can't tell whether locks reach the others",
            "run `psync doctor --pair` on two of them at the same time",
        )
    yield _space(root, mount)
    yield from _people(root, team, unpickles)
    yield from run_trials(root)
    yield _inotify_limits()
    yield _descriptors()


# -- the parts -----------------------------------------------------------------------------------------


def mount_of(root: str) -> Mount:
    """The entry for the file system of `root` in the kernel's table of mounts."""
    device, here = os.stat(root).st_dev, os.path.realpath(root)
    wanted, best = f"{os.major(device)}:{os.minor(device)}", Mount("", "", "", ())
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields, (kind, source, options) = left.split(), right.split()[:3]
            where = fields[4].replace(r"\040", " ")
            inside = f"{here}/".startswith(where.rstrip("/") + "/")
            if fields[2] == wanted and inside and len(where) >= len(best.where):
                merged = dict.fromkeys([*fields[5].split(","), *options.split(",")])
                best = Mount(kind, source, where, tuple(merged))
    return best


def _file_system(root: str, mount: Mount) -> Finding:
    if not mount.kind:
        return Finding("file system", NOTE, "the kernel does not tell its type")
    says = f"{mount.kind}, {mount.source} mounted at {mount.where} ({','.join(mount.options)})"
    if "ro" in mount.options:
        return Finding("file system", WRONG, says, "mount it for writing, or choose another directory")
    return Finding("file system", OK, says)


LOCKS_STAY = "locks keep nobody out on other hosts"
_OPTIONS = {
    "nolock": (WRONG, LOCKS_STAY, "mount it without that"),
    "local_lock=all": (WRONG, LOCKS_STAY, "mount it without that, or with local_lock=none"),
    "local_lock=flock": (WRONG, LOCKS_STAY, "mount it with local_lock=none"),
    "nobrl": (WRONG, LOCKS_STAY, "mount it without that"),
    "localflock": (WRONG, LOCKS_STAY, "mount it with flock"),
    "localflocks": (WRONG, LOCKS_STAY, "mount it without that"),
    "soft": (WRONG, "a slow server counts as an error", "mount it with `hard`"),
    "softerr": (WRONG, "a slow server counts as an error", "mount it with `hard`"),
    "vers=4.0": (NOTE, "who waits for a lock is told of it after a second or more", "mount it with vers=4.2"),
    "vers=3": (NOTE, "what a host without power held is free when it is back", "mount it with vers=4.2"),
    "noac": (NOTE, "not needed here, and dear: each look asks the server anyway", "mount it without that"),
    "lookupcache=none": (NOTE, "not needed here, and dear", "mount it without that"),
}
"""Mount options of NFS, of CIFS (nobrl), and of cluster file systems (localflock): effect on psync, and remedy."""


def network_options(mount: Mount) -> Iterator[Finding]:
    if not mount.network:
        return
    for option, (state, says, remedy) in _OPTIONS.items():
        if option in mount.options:
            yield Finding(f"mount option {option}", state, says, remedy)


def _space(root: str, mount: Mount) -> Finding:
    space = os.statvfs(root)
    free = space.f_bavail * space.f_frsize
    says = f"{free / 1e9:.1f} GB free, {space.f_favail} inodes free" if space.f_files else f"{free / 1e9:.1f} GB free"
    full = free < MIN_FREE_BYTES or (space.f_files > 0 and space.f_favail < 10_000)
    return Finding("space", WRONG if full else OK, says, "free some, on this file system" if full else "")


def _people(root: str, team: bool, unpickles: bool) -> Iterator[Finding]:
    """Check who may change the directory, or replace it."""
    here = os.path.realpath(root)
    if here != root:
        yield Finding("links", NOTE, f"{root} is {here}")
    status = os.stat(here)
    problems: list[PermissionProblem] = []
    try:
        problems.extend(Permissions(root, team=team, own=OWN_FOLDERS, advise=advise).problems())
    except PermissionError:
        return  # the parts that can be looked at are reported with what can't be read
    for problem in problems:
        what = "directory" if problem.path == here or problem.path.startswith(f"{here}/") else "parents"
        if problem.bearable and not unpickles:
            says = f"{problem.path} {problem.reason}; nothing that is read there can run, but others can remove it"
            yield Finding(what, NOTE, says)
            continue
        says = f"{problem.path} {problem.reason}; values that you read there run as you"
        yield Finding(what, WRONG, says, problem.remedy)
    if not any(f"{problem.path}/".startswith(f"{here}/") for problem in problems):
        mode = stat.S_IMODE(status.st_mode)
        yield Finding("directory", OK, f"{here} belongs to user {status.st_uid}, mode {mode:04o}")
    if all(f"{problem.path}/".startswith(f"{here}/") for problem in problems):
        yield Finding("parents", OK, "nobody else can put another directory in its place")


def _inotify_limits() -> Finding:
    limits = {}
    for name in ("max_user_instances", "max_user_watches"):
        try:
            with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
                limits[name] = int(file.read())
        except (OSError, ValueError):
            return Finding("inotify", NOTE, "the kernel does not tell its limits")
    says = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    return Finding("inotify", OK if limits["max_user_instances"] >= 64 else NOTE, says)


def _descriptors() -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = 0 <= soft < MIN_DESCRIPTORS
    return Finding("descriptors", WRONG if few else OK, f"{soft} for each process", "raise `ulimit -n`" if few else "")
