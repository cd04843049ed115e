"""``psync doctor DIR``: what works in a directory, what stands in the way, and what to do about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from psync.cli import Failure
from psync.cli.arguments import directory
from psync.errors import UnsafeStore

if TYPE_CHECKING:
    from psync.engine.directory.trials import Finding

FEW = 10
"""So many of a kind are named."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Examine a directory: its file system and mount options, who may change it, whether names, links, locks, "
        "shared memory and wake-ups work there (tried out in a fresh folder, which is removed), free space; what psync "
        "promises there; and what killed processes or damage have left. Each finding is ok, a note, or wrong, with a "
        "remedy."
    )
    parser.epilog = "exit codes: 0 all is well, 1 something stands in the way, 2 wrong use"
    directory(parser, made=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--pair",
        action="store_true",
        help="started on two hosts: try out together whether locks exclude, how soon each sees what the other did, and "
        "how their clocks differ",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds to wait for the other host (60)"
    )
    parser.add_argument(
        "--restore",
        metavar="NAME",
        help="put a value back that was set aside as damaged: the last one of that key, or that file in quarantine",
    )


def run(args: argparse.Namespace) -> int:
    path = Path(args.directory).expanduser()
    if not path.is_dir():
        raise Failure(f"{args.directory} is not a directory")
    if args.restore is not None:
        return _restore(str(path.absolute()), args.restore, args.trust_group)
    found = []
    looked_at = _together(str(path.absolute()), args.timeout) if args.pair else None
    for finding in looked_at or findings(str(path.absolute()), args.trust_group):
        found.append(finding)
        if not args.json:
            state = "WRONG" if finding.state == "wrong" else finding.state
            print(f"{state:7} {finding.what}: {finding.says}")
            if finding.remedy:
                print(f"        remedy: {finding.remedy}")
    wrong = sum(finding.state == "wrong" for finding in found)
    if args.json:
        print(
            json.dumps({"directory": str(path), "well": not wrong, "findings": [f._asdict() for f in found]}, indent=2)
        )
    else:
        print(f"{args.directory}: {_verdict(wrong)}")
    return 1 if wrong else 0


def _restore(root: str, name: str, team: bool) -> int:
    from psync.engine.directory.remains import put_back

    try:
        print(f"{put_back(root, name, team=team)} is there again")
    except (LookupError, ValueError) as error:
        raise Failure(str(error)) from error
    return 0


def _together(root: str, patience: float) -> Iterator[Finding]:
    from psync.engine.directory.pairing import paired

    try:
        yield from paired(root, patience)
    except TimeoutError as error:
        raise Failure(f"{error}: start `psync doctor --pair` on another one at the same time") from error


def findings(root: str, team: bool = False) -> Iterator[Finding]:
    from psync.engine.directory.looking import is_used
    from psync.engine.directory.premises import examine
    from psync.engine.directory.trials import NOTE, Finding

    yield from examine(root, team=team)
    if not is_used(root):
        yield Finding("psync", NOTE, "nobody has used this directory yet")
        return
    try:
        yield from _left_behind(root, team)
    except UnsafeStore:
        pass  # what is wrong with it was said before


def _left_behind(root: str, team: bool) -> Iterator[Finding]:
    from psync.engine.directory.remains import remains
    from psync.engine.directory.trials import NOTE, OK, WRONG, Finding

    left = remains(root, team=team)
    yield Finding("at work", OK, f"{len(left.living)} processes{_named(left.living)}")
    if left.unknown:
        yield Finding("unknown", NOTE, f"{len(left.unknown)} processes of which nothing is known{_named(left.unknown)}")
    if left.stale:
        says = f"{len(left.stale)} processes ended without leaving{_named(left.stale)}"
        yield Finding(
            "stale owners",
            NOTE,
            says,
            "none needed: they count for nothing; PickleShareDB(DIR).sweep() clears them away",
        )
    if left.litter:
        says = f"{len(left.litter)} files of writers that were killed{_named(left.litter)}"
        yield Finding("litter", NOTE, says, "none needed: whoever opens the directory next clears it away")
    for entry in left.quarantined:
        yield Finding(
            "quarantine",
            WRONG,
            f"{entry.name!r} was damaged ({entry.reason}); its {entry.size} bytes are kept at {entry.path}",
            "set it again, or restore it from a backup; then remove that file and the .why beside it. A value that was "
            "repaired there is put back by --restore",
        )


def _named(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - FEW} more" if len(names) > FEW else ""
    return f": {'; '.join(names[:FEW])}{more}"


def _verdict(wrong: int) -> str:
    if not wrong:
        return "all is well"
    return "1 thing stands in the way" if wrong == 1 else f"{wrong} things stand in the way"
