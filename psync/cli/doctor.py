"""``psync doctor DIR``: examine a directory or a server, and report problems with remedies."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from psync.cli import arguments
from psync.cli.errors import Failure, WrongUse
from psync.engine.admin import diagnosed, is_address, paired, put_back
from psync.engine.contract.report import Finding, verdict


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Examine a directory: its file system and mount options, who may change it, whether names, links, locks, "
        "shared memory and wake-ups work there (tried in a fresh folder, which is removed), its free space, what psync "
        "promises there, and what killed processes or damage left. Or examine a server: its version, how fast it "
        "answers, who may write to it, what it keeps on its disk, what it evicts when its memory is full, and what "
        "that means for the promises. Each finding is ok, a note, or wrong, with a remedy."
    )
    parser.epilog = "exit codes: 0 no problem was found, 1 there is a problem, 2 wrong use"
    arguments.directory(parser, made=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--pair",
        action="store_true",
        help="run on two hosts at the same time: test whether locks exclude, how soon each host sees a change of the "
        "other, and how their clocks differ",
    )
    parser.add_argument(
        "--timeout", type=arguments.seconds, default=60.0, metavar="S", help="seconds to wait for the other host (60)"
    )
    parser.add_argument(
        "--restore",
        metavar="NAME",
        help="put a quarantined value back: NAME is its key (the last one of that key), or its file in quarantine",
    )


def run(args: argparse.Namespace) -> int:
    arguments.must_exist(args.directory)
    if args.pair or args.restore is not None:
        return _of_a_directory(args)
    return _report(args, diagnosed(args.directory, trust_group=args.trust_group))


def _of_a_directory(args: argparse.Namespace) -> int:
    if is_address(args.directory):
        option = "--pair" if args.pair else "--restore"
        raise WrongUse(f"{option} is for a directory: {arguments.where(args)} is on a server")
    return _restore(args) if args.restore is not None else _report(args, _together(args))


def _report(args: argparse.Namespace, findings: Iterator[Finding]) -> int:
    found = []
    for finding in findings:
        found.append(finding)
        if not args.json:
            state = "WRONG" if finding.state == "wrong" else finding.state
            print(f"{state:7} {finding.what}: {finding.says}")
            if finding.remedy:
                print(f"        remedy: {finding.remedy}")
    well = not any(finding.state == "wrong" for finding in found)
    where = arguments.where(args)
    if args.json:
        where = where if "://" in where else str(Path(where).expanduser())
        each = [finding._asdict() for finding in found]
        print(json.dumps({"directory": where, "well": well, "verdict": verdict(found), "findings": each}, indent=2))
    else:
        print(f"{where}: {verdict(found)}")
    return 0 if well else 1


def _restore(args: argparse.Namespace) -> int:
    try:
        print(f"{put_back(args.directory, args.restore, trust_group=args.trust_group)} is there again")
    except (LookupError, ValueError) as error:
        raise Failure(str(error)) from error
    return 0


def _together(args: argparse.Namespace) -> Iterator[Finding]:
    try:
        yield from paired(args.directory, args.timeout)
    except TimeoutError as error:
        raise Failure(f"{error}: start `psync doctor --pair` on another one at the same time") from error
