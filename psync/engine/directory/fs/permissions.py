"""Check owners and modes: nobody who is not trusted may write what is read here, because unpickling runs it.

Trusted are root and the user of this process; for a team's folder (``trust_group=True``), the members of its group too.
A directory is safe when each folder on the way to it, and each link, belongs to a trusted user, and nobody else may
write there. In a sticky folder (``/tmp``) others may write, because they can't rename what is not theirs. A group with
nobody in it but the owner counts as the owner: many systems make one for each user, and folders with mode 0775.

Only trusted users can change what was checked, so a check holds. The way is checked once, when a directory is opened;
if nobody else can enter the directory, the files in it need no check. Else each file's owner and mode are checked when
it is read (the kernel reports them anyway), and each folder the first time something is changed in it.
"""

# annotations are evaluated here: `NamedTuple` would compile each one that is a string, at every start
import errno
import functools
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from psync.errors import UnsafeStore

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
PLAIN = stat.S_IFREG
CHECKED = stat.S_IFMT(0o777777) | OTHERS_WRITE
"""Bits of a mode: a file of which these are PLAIN is a regular one that nobody but its owner can write to."""
MAX_LINKS = 40
"""Links that are followed on the way to one directory: as many as the kernel follows."""
_NOT_FOUND = FileNotFoundError, NotADirectoryError


class Access(NamedTuple):
    """The modes of files and folders that are made."""

    file: int = 0o600
    folder: int = 0o700


PRIVATE_UMASK = 0o077
PRIVATE = Access()
TEAM = Access(0o660, 0o2770)


def access_for(umask: int, *, team: bool) -> Access:
    """The modes of what is made: its owner may write, or its `team`, and `umask` says who else may not read.

    Raises ValueError for one that would let others write, or keep the owner out.
    """
    if not isinstance(umask, int) or umask & ~0o077 or umask & OTHERS_WRITE != OTHERS_WRITE:
        shown = f"0o{umask:03o}" if isinstance(umask, int) else repr(umask)
        raise ValueError(
            f"umask must be from 0o022 (all may read) to 0o077 (nobody else may), not {shown}: it says who else may "
            "read, and never lets others write (for a team that writes there is trust_group=True)"
        )
    if umask == PRIVATE_UMASK:
        return TEAM if team else PRIVATE
    access = Access(0o666 & ~umask, 0o777 & ~umask)
    return Access(access.file | TEAM.file, access.folder | TEAM.folder) if team else access


class PermissionProblem:
    """Why a file or folder can't be trusted, and what to do about it."""

    def __init__(self, path: str, reason: str, remedy: str) -> None:
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def error(self) -> UnsafeStore:
        return UnsafeStore(
            f"{self.path} {self.reason}; values that you read there run as you. Remedy: {self.remedy}",
            path=self.path,
            reason=self.reason,
        )


class Permissions:
    """The users that one directory trusts, once it was checked (see `check_root`)."""

    def __init__(self, root: str, *, team: bool = False, own: tuple[str, ...] = (), umask: int = PRIVATE_UMASK) -> None:
        self.root = root
        self.own = own
        """Psync's own folders, below ``.psync``."""
        self.team = team
        self.me = os.geteuid()
        self.access = access_for(umask, team=team)
        self.private = False
        """Nobody else can enter the directory: only trusted users put files there."""
        self._users = {0, self.me}
        self._group: int | None = None
        self._folders = {root}
        """The folders that were checked."""
        self.unnamed = True
        """Files come into being with one name only, so one that has another, too, is not ours alone."""

    # -- the directory -----------------------------------------------------------------------------------

    def check_root(self) -> bool:
        """Raise `UnsafeStore` unless the directory is safe; False if there is none yet, and the way to it is safe."""
        problem = next(self.problems(), None)
        if problem is not None:
            raise problem.error()
        try:
            status = os.stat(self.root)
        except _NOT_FOUND:
            return False
        self.private = not status.st_mode & (stat.S_IXGRP | stat.S_IXOTH)
        return True

    def problems(self) -> Iterator[PermissionProblem]:
        """Every problem of the directory and the way to it."""
        here = os.path.realpath(self.root)
        if self.team:
            yield from self._team(here)
        yield from self._on_the_way(self.root, here)
        own = f"{here.rstrip('/')}/.psync"
        for folder in (own, *(f"{own}/{name}" for name in self.own)):
            try:
                status = os.lstat(folder)
            except _NOT_FOUND:
                continue
            problem = self.folder(folder, status) if stat.S_ISDIR(status.st_mode) else _not_a_folder(folder)
            if problem is not None:
                yield problem

    def _on_the_way(self, path: str, end: str) -> Iterator[PermissionProblem]:
        for each, status in steps(path):
            link = stat.S_ISLNK(status.st_mode)
            problem = self._link(each, status) if link else self.folder(each, status, parent=each != end)
            if problem is not None:
                yield problem

    def _team(self, here: str) -> Iterator[PermissionProblem]:
        try:
            status = os.stat(here)
        except _NOT_FOUND:
            return
        if not status.st_mode & stat.S_ISGID:
            remedy = f"chgrp TEAM '{here}' && chmod 2770 '{here}', or open it without trust_group=True"
            yield PermissionProblem(
                here, "is no team's folder: it has no setgid bit, so files in it don't get its group", remedy
            )
        else:
            self._group = status.st_gid

    def folder(self, path: str, status: os.stat_result, parent: bool = False) -> PermissionProblem | None:
        """The problem of a folder, if any; `parent`: it is only on the way to the directory."""
        mode, sticky = status.st_mode, parent and status.st_mode & stat.S_ISVTX
        if not self._is_trusted(status) and not (parent and _is_unmapped_root(status.st_uid)):
            remedy = "use a directory of your own" + ("" if self.team else "; or, a team's folder, trust_group=True")
            return PermissionProblem(
                path, f"belongs to {user_name(status.st_uid)}, who could put anything there", remedy
            )
        if mode & stat.S_IWOTH and not sticky:
            return PermissionProblem(
                path, f"can be written to by everybody (mode {stat.S_IMODE(mode):04o})", f"chmod o-w '{path}'"
            )
        if mode & stat.S_IWGRP and not sticky and not self._is_own_group(status):
            remedy = f"chmod g-w '{path}'"
            remedy += "" if self.team else "; or, if all of them may act as you, trust_group=True"
            reason = f"can be written to by {group_name(status.st_gid)} (mode {stat.S_IMODE(mode):04o})"
            return PermissionProblem(path, reason, remedy)
        return None

    def _link(self, path: str, status: os.stat_result) -> PermissionProblem | None:
        if self._is_trusted(status) or _is_unmapped_root(status.st_uid):
            return None
        return PermissionProblem(
            path, f"is a link of {user_name(status.st_uid)}, who could let it lead elsewhere", "use another path"
        )

    def _is_trusted(self, status: os.stat_result) -> bool:
        return status.st_uid in self._users or (self._group is not None and status.st_gid == self._group)

    def _is_own_group(self, status: os.stat_result) -> bool:
        """Whether all who are in the group of a file are trusted."""
        if status.st_gid == self._group or (not status.st_gid and not status.st_uid):
            return True
        return is_private_group(status.st_gid, self.me)

    # -- what lies in it ---------------------------------------------------------------------------------

    def check_file(self, path: str, status: os.stat_result) -> None:
        """Raise `UnsafeStore` for what is no regular file, or could be written to by somebody who is not trusted.

        A folder raises IsADirectoryError: it is no value, and no harm.
        """
        check_kind(path, status)
        problem = self._file(path, status)
        if problem is not None and not (
            self.private and os.path.realpath(path).startswith(os.path.realpath(self.root))
        ):
            raise problem.error()

    def _file(self, path: str, status: os.stat_result) -> PermissionProblem | None:
        """The problem of a file, if others can reach it."""
        if not self._is_trusted(status):
            reason = f"belongs to {user_name(status.st_uid)}, who could have put anything there"
            return PermissionProblem(path, reason, "remove it, or, if you know what is in it, chown it")
        mode = status.st_mode
        if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not self._is_own_group(status)):
            who = "everybody" if mode & stat.S_IWOTH else group_name(status.st_gid)
            reason = f"can be written to by {who} (mode {stat.S_IMODE(mode):04o})"
            return PermissionProblem(path, reason, f"chmod go-w '{path}', if you know what is in it")
        return None

    def check_open(self, path: str, status: os.stat_result) -> None:
        """`check_file` for a file that stays open and is written in place: it must have no other link, either."""
        if status.st_mode & CHECKED != PLAIN or status.st_uid != self.me:
            self.check_file(path, status)
        if status.st_nlink > 1 and self.unnamed:
            reason = "has another name elsewhere (a hard link), under which it would change, too"
            remedy = f"cp -p '{path}' '{path}.new' && mv '{path}.new' '{path}', while nobody uses it"
            raise PermissionProblem(path, reason, remedy).error()

    def checked(self, fd: int, path: str, status: os.stat_result | None = None) -> int:
        """`fd`, after `check_open` of its file; it is closed if that raises."""
        try:
            self.check_open(path, status or os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check_folder(self, folder: str) -> None:
        """Raise `UnsafeStore` if somebody who is not trusted could redirect what is written to a folder in the root."""
        if self.private or folder in self._folders:
            return
        path = self.root.rstrip("/")
        for part in folder[len(path) :].strip("/").split("/"):
            path = f"{path}/{part}"
            try:
                status = os.lstat(path)
            except _NOT_FOUND:
                return
            if stat.S_ISLNK(status.st_mode):
                problem = next(self._on_the_way(path, os.path.realpath(path)), None)
            else:
                problem = self.folder(path, status)
            if problem is not None:
                raise problem.error()
        self._folders.add(folder)


def steps(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each folder and link on the way from ``/`` to `path`, the last one too, as far as they exist."""
    rest = [part for part in reversed(os.path.abspath(path).split("/")) if part]
    here, links = "/", 0
    yield here, os.lstat(here)
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = os.path.dirname(here)
            continue
        following = f"{here.rstrip('/')}/{part}"
        try:
            status = os.lstat(following)
        except _NOT_FOUND:
            return
        yield following, status
        if not stat.S_ISLNK(status.st_mode):
            here = following
            continue
        links += 1
        if links > MAX_LINKS:
            return  # opening it will say so
        target = os.readlink(following)
        rest += reversed(target.split("/"))
        if target.startswith("/"):
            here = "/"


def check_kind(path: str, status: os.stat_result) -> None:
    """Raise unless this is a regular file: IsADirectoryError for a folder, else `UnsafeStore`."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise not_a_file(path, status).error()


def not_a_file(path: str, status: os.stat_result) -> PermissionProblem:
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode), "something else")
    return PermissionProblem(path, f"is {kind} where a plain file should be", f"rm '{path}'")


def _not_a_folder(path: str) -> PermissionProblem:
    return PermissionProblem(
        path, "is not a folder (or a link to one), and psync keeps its own files there", f"rm '{path}'"
    )


# -- people --------------------------------------------------------------------------------------------


@functools.cache
def is_private_group(gid: int, uid: int) -> bool:
    """True if a user's primary group has nobody else in it."""
    try:
        import grp
        import pwd

        user = pwd.getpwuid(uid)
        members = grp.getgrgid(gid).gr_mem
    except (KeyError, ImportError):  # a process that gave up its rights may not get at the library
        return False
    if user.pw_gid != gid or set(members) - {user.pw_name}:
        return False
    return all(other.pw_uid == uid for other in pwd.getpwall() if other.pw_gid == gid)


@functools.cache
def _is_unmapped_root(uid: int) -> bool:
    """Whether `uid` is how a user namespace (a container without root) shows those users of the host who are not in it:
    the host's root, for folders on the way, as a rule."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            everybody = file.read().split() == ["0", "0", "4294967295"]
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            return not everybody and uid == int(file.read())
    except (OSError, ValueError):
        return False


def user_name(uid: int) -> str:
    try:
        import pwd

        return f"user {pwd.getpwuid(uid).pw_name}"
    except (KeyError, ImportError):
        return f"user {uid}"


def group_name(gid: int) -> str:
    try:
        import grp

        return f"group {grp.getgrgid(gid).gr_name}"
    except (KeyError, ImportError):
        return f"group {gid}"
