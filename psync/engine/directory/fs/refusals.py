"""Name the file or folder by which the kernel refuses a path to this user, with its owner and mode."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from psync.engine.directory.fs.permissions import group_name, steps, user_name

REFUSED = {errno.EACCES, errno.EPERM}


class Refusal(NamedTuple):
    """The file or folder that refuses."""

    path: str
    status: os.stat_result

    def __str__(self) -> str:
        status = self.status
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
        owner = f"{user_name(status.st_uid)}, {group_name(status.st_gid)}"
        mode = stat.S_IMODE(status.st_mode)
        return f"the {kind} {self.path} belongs to {owner}, has mode {mode:04o}, and refuses {user_name(os.geteuid())}"

    def remedy(self) -> str:
        """What this user, or its owner, can do about it."""
        if self.status.st_uid == os.geteuid():
            return f"chmod u+rwX '{self.path}'; or, if something else protects it, use another directory"
        owner = user_name(self.status.st_uid).removeprefix("user ")
        return (
            f"do it as its owner (sudo -u {owner} ...). That others may read, its owner opens the store with "
            "umask=0o022 (or sets PSYNC_UMASK=022), and, for what is there already, runs chmod -R go+rX on the "
            "directory, once"
        )


def refusal_of(path: str) -> Refusal | None:
    """Find what keeps this user from `path`: a folder on the way, the file, or the folder that it would be in. None if
    it has gone, or nothing seems to refuse."""
    last: Refusal | None = None
    above: Refusal | None = None
    try:
        for each, status in steps(path):
            if stat.S_ISDIR(status.st_mode) and not _may(each, os.X_OK):
                return Refusal(each, status)
            above, last = last, Refusal(each, status)
    except OSError:
        return last
    if last is not None and stat.S_ISLNK(last.status.st_mode):
        return None
    for one in (last, above):
        if one is not None and not _may(one.path, os.R_OK | os.W_OK):
            return one
    return last


def _may(path: str, how: int) -> bool:
    return os.access(path, how, effective_ids=True)
