"""Remedies: say what this user can do about a directory that can't be trusted.

Each remedy is tried on paper first: `Permissions` judges the directory as it would be then, for the user that would
open it. So none is proposed that the next look refuses.
"""

from __future__ import annotations

import os
import stat

from psync.engine.directory.fs.permissions import Assumed, PermissionProblem, Permissions, group_name, user_name

SEAL, SERIALIZER = ".psync/seal", ".psync/serializer"


def remedies_of(permissions: Permissions, problem: PermissionProblem) -> str:
    if problem.within and problem.status is not None:
        return for_entry(problem.path, problem.status, problem.writable)
    return for_directory(permissions)


def for_directory(permissions: Permissions) -> str:
    """The remedies for a directory that has problems, each of which suffices."""
    return "; or ".join(
        way
        for way in (
            _without_links(permissions),
            _change_modes(permissions),
            _trust_the_group(permissions),
            _without_the_group(permissions),
            _make_a_team_folder(permissions),
            *_as_others(permissions),
            _unpickle_nothing(permissions),
            _other_place(permissions),
        )
        if way
    )


def for_entry(path: str, status: os.stat_result, writable: int) -> str:
    """The remedies for a file or folder within a directory that is safe. `writable`: the bits of its mode that let
    others write; 0 if its owner is the problem."""
    if writable:
        command = _chmod(path, writable)
        if status.st_uid == os.geteuid() or not os.geteuid():
            return f"{command}, if you know what is in it"
        return f"have {user_name(status.st_uid)} run {command}"
    aside = f"put it aside: mv '{path}' '{path}.foreign'"
    return aside if os.geteuid() else f"chown -R {os.geteuid()} '{path}', if you know what is in it; or {aside}"


def _chmod(path: str, writable: int) -> str:
    who = ("g" if writable & stat.S_IWGRP else "") + ("o" if writable & stat.S_IWOTH else "")
    return f"chmod {who}-w '{path}'"


def _change_modes(permissions: Permissions) -> str:
    """chmod by this user, or by the owner where only folders on the way are wrong."""
    commands: dict[str, list[str]] = {}
    assumed: Assumed = {}
    for problem in permissions.problems():
        if problem.status is None or not problem.writable:
            return ""
        owner = problem.status.st_uid
        mine = not permissions.me or owner == permissions.me
        if mine:
            command, mode = _chmod(problem.path, problem.writable), problem.status.st_mode & ~problem.writable
        elif _is_on_the_way(permissions, problem):  # there others may write, but not rename what is not theirs
            command, mode = f"chmod +t '{problem.path}'", problem.status.st_mode | stat.S_ISVTX
        else:
            return ""
        commands.setdefault("" if mine else user_name(owner), []).append(command)
        assumed[problem.path] = mode, owner
    if not _is_good(permissions, assumed=assumed):
        return ""
    ways = [" && ".join(each) if not who else f"have {who} run {' && '.join(each)}" for who, each in commands.items()]
    return " and ".join(ways)


def _without_links(permissions: Permissions) -> str:
    here = os.path.realpath(permissions.root)
    if here == permissions.root or any(Permissions(here, team=permissions.team, own=permissions.own).problems()):
        return ""
    return f"open '{here}', to which it leads"


def _is_on_the_way(permissions: Permissions, problem: PermissionProblem) -> bool:
    here = os.path.realpath(permissions.root)
    return here.startswith(problem.path.rstrip("/") + "/")


def _root_status(permissions: Permissions) -> os.stat_result | None:
    try:
        return os.stat(permissions.root)
    except OSError:
        return None


def _own_groups() -> set[int]:
    return {os.getegid(), *os.getgroups()}


def _trust_the_group(permissions: Permissions) -> str:
    status = _root_status(permissions)
    if permissions.team or status is None or not status.st_mode & stat.S_ISGID or status.st_gid not in _own_groups():
        return ""
    if not _is_good(permissions, team=True):
        return ""
    return f"open it with trust_group=True (--trust-group), if all in {group_name(status.st_gid)} may act as you"


def _without_the_group(permissions: Permissions) -> str:
    return "open it without trust_group=True" if permissions.team and _is_good(permissions, team=False) else ""


def _make_a_team_folder(permissions: Permissions) -> str:
    """A folder of the user's, or of its owner's, that becomes a team's."""
    status = _root_status(permissions)
    here = os.path.realpath(permissions.root)
    if status is None or (status.st_mode & stat.S_ISGID and not status.st_mode & stat.S_IWOTH):
        return ""
    mine = status.st_uid == permissions.me
    if not permissions.team and (mine or not permissions.me):
        return ""  # chmod is enough
    groups = sorted(_own_groups() - {0}, key=lambda gid: gid != status.st_gid)
    if not groups or not (mine or status.st_uid == 0 or groups[0] == status.st_gid):
        return ""  # its owner may not be in a group of this user's
    folder = stat.S_IFDIR | 0o2770
    if not _is_good(permissions, team=True, assumed={here: (folder, status.st_uid)}, group=groups[0]):
        return ""
    command = f"chgrp {groups[0]} '{here}' && chmod 2770 '{here}'"
    who = "" if mine else f"have {user_name(status.st_uid)} run "
    return f"for a team: {who}{command}, and open it with trust_group=True"


def _as_others(permissions: Permissions) -> list[str]:
    """Be the user to whom it belongs."""
    owners = dict.fromkeys(
        problem.status.st_uid for problem in permissions.problems() if problem.status is not None
    )  # fmt: skip
    ways: list[str] = []
    root = _root_status(permissions)
    for uid in owners:
        if (
            uid in (0, permissions.me)
            or root is None
            or root.st_uid != uid
            or not _is_good(permissions, me=uid, team=False)
        ):
            continue
        who = user_name(uid).removeprefix("user ")
        sudo = f"sudo -u {who if not who.isdigit() else '#' + who}"
        alone = ", without trust_group=True" if permissions.team else ""
        ways.append(f"do it as {user_name(uid)}{alone} ({sudo} ...)")
        if os.path.isdir(f"{permissions.root}/.psync") and not os.path.exists(f"{permissions.root}/{SEAL}"):
            ways.append(f"copy it: {sudo} psync dump '{permissions.root}' | psync load a/directory/of/your/own")
    return ways


def _unpickle_nothing(permissions: Permissions) -> str:
    """A key, or JSON: as the store was begun, or any for a new one."""
    if permissions.team or not all(problem.bearable for problem in permissions.problems()):
        return ""
    root = permissions.root
    if os.path.exists(f"{root}/{SEAL}"):
        return "open it with its key (key=, PSYNC_KEY_FILE)"
    if os.path.exists(f"{root}/{SERIALIZER}"):
        return 'open it with serializer="json" (PSYNC_SERIALIZER=json)'
    if not _may_begin(root):
        return ""
    return (
        'begin it with key= (PSYNC_KEY_FILE) or serializer="json" (PSYNC_SERIALIZER=json), so that nothing that others '
        "put there can run as you"
    )


def _may_begin(root: str) -> bool:
    """Whether this user can begin a store there."""
    if not os.path.lexists(root):
        above = os.path.dirname(root)
        return _may_begin(above) if not os.path.lexists(above) else _may_write(above)
    try:
        return not os.listdir(root) and _may_write(root)
    except OSError:
        return False


def _may_write(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def _other_place(permissions: Permissions) -> str:
    here = os.path.realpath(permissions.root)
    status = _root_status(permissions)
    if status is not None and status.st_mode & stat.S_ISVTX and status.st_mode & stat.S_IWOTH:
        inside = f"{here}/{user_name(permissions.me).removeprefix('user ')}"
        if not os.path.exists(inside) and not any(Permissions(inside).problems()):
            return f"use a folder of your own in it: mkdir -m 700 '{inside}'"
    return "use a directory of your own"


def _is_good(
    permissions: Permissions,
    *,
    team: bool | None = None,
    me: int | None = None,
    assumed: Assumed | None = None,
    group: int | None = None,
) -> bool:
    """Whether the directory would be safe then."""
    then = Permissions(
        permissions.root,
        own=permissions.own,
        team=permissions.team if team is None else team,
        me=permissions.me if me is None else me,
        assumed=assumed,
        assumed_group=group,
    )
    try:
        return not any(then.problems())
    except OSError:
        return False
