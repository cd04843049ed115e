"""Check owners and modes: nobody who is not trusted may write what is read here, because unpickling runs it.

Trusted are root and the user of this process; for a team's folder (``trust_group=True``), the members of its group too.
A directory is safe when each folder on the way to it, and each link, belongs to a trusted user, and nobody else may
write there. In a sticky folder (``/tmp``) others may write, because they can't rename what is not theirs. A group with
nobody in it but the owner counts as the owner: many systems make one for each user, and folders with mode 0775.

Where nothing unverified is unpickled (a key, or JSON; ``unpickles=False``), what others could plant there can run no
code. Then a directory that is not safe is *exposed*: it is opened with a warning, and only links of others are refused,
because they could lead what is written to elsewhere.

Only trusted users can change what was checked, so a check holds. The way is checked once, when a directory is opened;
if nobody else can enter the directory, the files in it need no check. Else each file's owner and mode are checked when
it is read (the kernel reports them anyway), and each folder the first time something is changed in it.
"""

# annotations are evaluated here: `NamedTuple` would compile each one that is a string, at every start
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
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


Assumed = dict[str, tuple[int, int]]
"""Modes and owners of folders by path, as they would be after a remedy."""


class PermissionProblem:
    """Why a file or folder can't be trusted, and what to do about it.

    `bearable`: the directory may be used where nothing unverified is unpickled. `writable`: the bits of the mode that
    let others write. `within`: it lies in the directory. `advised` tells the remedy when it is asked for.
    """

    def __init__(
        self,
        path: str,
        reason: str,
        remedy: str = "use a directory of your own",
        *,
        bearable: bool = False,
        status: os.stat_result | None = None,
        writable: int = 0,
        within: bool = False,
        advised: "Callable[[PermissionProblem], str] | None" = None,
    ) -> None:
        self.path = path
        self.reason = reason
        self.bearable = bearable
        self.status = status
        self.writable = writable
        self.within = within
        self._remedy = remedy
        self._advised = advised

    @property
    def remedy(self) -> str:
        return self._remedy if self._advised is None else self._advised(self)

    def error(self) -> UnsafeStore:
        return UnsafeStore(
            f"{self.path} {self.reason}; values that you read there run as you. Remedy: {self.remedy}",
            path=self.path,
            reason=self.reason,
        )


Advise = Callable[["Permissions", PermissionProblem], str]


class Permissions:
    """The users that one directory trusts, once it was checked (see `check_root`).

    `advise` tells the remedy of a problem. `me`, `assumed` and `assumed_group` ask what if: another user opened it, and
    folders had these modes and owners, and the root that group.
    """

    def __init__(
        self,
        root: str,
        *,
        team: bool = False,
        own: tuple[str, ...] = (),
        umask: int = PRIVATE_UMASK,
        unpickles: bool = True,
        me: int | None = None,
        assumed: Assumed | None = None,
        assumed_group: int | None = None,
        advise: Advise | None = None,
    ) -> None:
        self.root = root
        self.own = own
        """Psync's own folders, below ``.psync``."""
        self.team = team
        self.me = os.geteuid() if me is None else me
        self.access = access_for(umask, team=team)
        self.private = False
        """Nobody else can enter the directory: only trusted users put files there."""
        self.unpickles = unpickles
        """Whether bytes that nothing else verifies may be unpickled."""
        self.exposed = False
        """Others could put files into the directory, or replace it, and it is used all the same."""
        self._users = {0, self.me}
        self._group: int | None = None
        self._assumed = assumed or {}
        self._assumed_group = assumed_group
        self._advise = advise
        self._folders = {root}
        """The folders that were checked."""
        self.unnamed = True
        """Files come into being with one name only, so one that has another, too, is not ours alone."""

    # -- the directory -----------------------------------------------------------------------------------

    def check_root(self) -> bool:
        """Raise `UnsafeStore` unless the directory is safe; False if there is none yet, and the way to it is safe."""
        for problem in self.problems():
            if self.unpickles or not problem.bearable:
                raise problem.error()
            if not self.exposed:
                self.exposed = True
                _warn(problem)
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
            if stat.S_ISDIR(status.st_mode):
                problem = self.folder(folder, status, within=True)
            else:
                problem = _not_a_folder(folder)
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
        mode, _ = self._assumed.get(here, (status.st_mode, 0))
        if mode & stat.S_ISGID:
            self._group = status.st_gid if self._assumed_group is None else self._assumed_group
            return
        reason = "is no team's folder: it has no setgid bit, so files in it don't get its group"
        yield PermissionProblem(here, reason, advised=self._advice())

    def folder(
        self, path: str, status: os.stat_result, *, parent: bool = False, within: bool = False
    ) -> PermissionProblem | None:
        """The problem of a folder, if any; `parent`: it is only on the way to the directory; `within`: it is in it."""
        mode, uid = self._assumed.get(path, (status.st_mode, status.st_uid))
        sticky = parent and mode & stat.S_ISVTX
        is_root = not parent and not within
        gid = self._assumed_group if is_root and self._assumed_group is not None else status.st_gid
        trusted = self._is_trusted(uid, gid)
        if not trusted and not (parent and _is_unmapped_root(uid)):
            reason = f"belongs to {user_name(uid)}, who could put anything there"
            return self._problem(path, status, reason, 0, within)
        writable = 0
        if not sticky:
            writable = mode & stat.S_IWOTH
            if mode & stat.S_IWGRP and not self._is_own_group(uid, gid):
                writable |= stat.S_IWGRP
        if not writable:
            return None
        who = "everybody" if writable & stat.S_IWOTH else group_name(gid)
        return self._problem(
            path, status, f"can be written to by {who} (mode {stat.S_IMODE(mode):04o})", writable, within
        )

    def _advice(self) -> Callable[[PermissionProblem], str] | None:
        return None if self._advise is None else functools.partial(self._advise, self)

    def _problem(
        self, path: str, status: os.stat_result, reason: str, writable: int, within: bool
    ) -> PermissionProblem:
        return PermissionProblem(
            path,
            reason,
            bearable=True,
            status=status,
            writable=writable,
            within=within,
            advised=self._advice(),
        )

    def _link(self, path: str, status: os.stat_result) -> PermissionProblem | None:
        if self._is_trusted(status.st_uid, status.st_gid) or _is_unmapped_root(status.st_uid):
            return None
        reason = f"is a link of {user_name(status.st_uid)}, who could let it lead elsewhere"
        return PermissionProblem(path, reason, advised=self._advice())

    def _is_trusted(self, uid: int, gid: int) -> bool:
        return uid in self._users or (self._group is not None and gid == self._group)

    def _is_own_group(self, uid: int, gid: int) -> bool:
        """Whether all who are in the group of a file are trusted."""
        return gid == self._group or not (gid or uid) or is_private_group(gid, self.me)

    # -- what lies in it ---------------------------------------------------------------------------------

    def check_file(self, path: str, status: os.stat_result) -> None:
        """Raise `UnsafeStore` for what is no regular file, or could be written to by somebody who is not trusted.

        A folder raises IsADirectoryError: it is no value, and no harm.
        """
        check_kind(path, status)
        problem = self._file(path, status)
        if problem is not None and not (
            self.exposed or (self.private and os.path.realpath(path).startswith(os.path.realpath(self.root)))
        ):
            raise problem.error()

    def _file(self, path: str, status: os.stat_result) -> PermissionProblem | None:
        """The problem of a file, if others can reach it."""
        if not self._is_trusted(status.st_uid, status.st_gid):
            reason = f"belongs to {user_name(status.st_uid)}, who could have put anything there"
            return self._problem(path, status, reason, 0, True)
        writable = status.st_mode & stat.S_IWOTH
        if status.st_mode & stat.S_IWGRP and not self._is_own_group(status.st_uid, status.st_gid):
            writable |= stat.S_IWGRP
        if not writable:
            return None
        who = "everybody" if writable & stat.S_IWOTH else group_name(status.st_gid)
        reason = f"can be written to by {who} (mode {stat.S_IMODE(status.st_mode):04o})"
        return self._problem(path, status, reason, writable, True)

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
                problem = None if self.exposed else self.folder(path, status, within=True)
            if problem is not None:
                raise problem.error()
        self._folders.add(folder)


def _warn(problem: PermissionProblem) -> None:
    import warnings

    warnings.warn(
        f"{problem.path} {problem.reason}. What others put there can run no code, because the store is sealed or JSON; "
        "but they can remove, replace and block all that is in it",
        RuntimeWarning,
        stacklevel=7,
    )


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
        with open("/proc/self/uid_map", "rb") as file:
            everybody = file.read().split() == [b"0", b"0", b"4294967295"]
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
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
