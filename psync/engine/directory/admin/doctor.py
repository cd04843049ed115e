"""Diagnose a directory: its file system and mount, its capabilities, and the leftovers of killed processes and of
damage."""

from __future__ import annotations

from collections.abc import Iterator

from psync.engine.contract.report import NOTE, OK, WRONG, Finding, some_of
from psync.engine.directory.admin.contents import examine_contents
from psync.engine.directory.admin.environment import Mount, examine, mount_of
from psync.engine.directory.admin.leftovers import leftovers_of
from psync.engine.directory.admin.promise import with_promise
from psync.engine.directory.fs.refusals import REFUSED, refusal_of
from psync.engine.directory.layout import is_used
from psync.errors import FormatMismatch, StoreFailed, UnsafeStore


def diagnose(root: str, *, team: bool = False, unpickles: bool = True) -> Iterator[Finding]:
    """Diagnose the directory at an absolute path; `team`: its group is trusted; `unpickles`: see `Permissions`."""
    try:
        mount = mount_of(root)
    except PermissionError as error:
        yield from with_promise(iter([_out_of_reach(root, error)]), network=False)
        return
    yield from with_promise(_findings(root, mount, team, unpickles), network=mount.network)


def _out_of_reach(root: str, error: OSError) -> Finding:
    refusal = refusal_of(root)
    if refusal is None:
        return Finding("reading", WRONG, f"{root}: {error.strerror}", "check owner and mode of it and its parents")
    return Finding("reading", WRONG, str(refusal), refusal.remedy())


def _findings(root: str, mount: Mount, team: bool, unpickles: bool) -> Iterator[Finding]:
    yield from examine(root, mount, team=team, unpickles=unpickles)
    yield from examine_contents(root)
    if not is_used(root):
        yield Finding("psync", NOTE, "nobody has used this directory yet")
        return
    try:
        yield from _left_behind(root, team, unpickles)
    except (UnsafeStore, PermissionError):
        pass  # `examine` or `examine_contents` has reported it already
    except StoreFailed as error:
        if error.errno not in REFUSED:
            yield Finding("reading", WRONG, str(error))
    except FormatMismatch as error:
        says = f"format {error.found}; this psync works with {error.supported}"
        yield Finding("format", WRONG, says, "upgrade psync")


def _left_behind(root: str, team: bool, unpickles: bool) -> Iterator[Finding]:
    left = leftovers_of(root, team=team, unpickles=unpickles)
    yield Finding("at work", OK, f"{len(left.living)} processes{some_of(left.living)}")
    if left.unknown:
        says = f"{len(left.unknown)} processes of which nothing is known{some_of(left.unknown)}"
        yield Finding("unknown", NOTE, says)
    if left.stale:
        says = f"{len(left.stale)} processes ended without leaving{some_of(left.stale)}"
        yield Finding(
            "stale owners",
            NOTE,
            says,
            "none needed: they count for nothing; PickleShareDB(DIR).sweep() clears them away",
        )
    if left.litter:
        says = f"{len(left.litter)} files of writers that were killed{some_of(left.litter)}"
        yield Finding("litter", NOTE, says, "none needed: the next opening of the directory removes it")
    for entry in left.quarantined:
        yield Finding(
            "quarantine",
            WRONG,
            f"{entry.name!r} was damaged ({entry.reason}); its {entry.size} bytes are kept at {entry.path}",
            "set it again, or restore it from a backup; then remove that file and the .why beside it. A value that was "
            "repaired there is put back by --restore",
        )
