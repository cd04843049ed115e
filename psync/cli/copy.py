"""``psync copy SRC DST``: copy a whole store to another place of any kind, so that work goes on there."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from psync.cli import arguments
from psync.cli.errors import Failure
from psync.engine import Key
from psync.engine.admin import is_address, looking_engine, shown
from psync.engine.serialization import agree
from psync.engine.signed.keys import NO_KEY, read_file
from psync.engine.system import clock
from psync.store import PickleShareDB

if TYPE_CHECKING:
    from psync.work.admin.copy_store import Copied

PROGRESS_INTERVAL_S = 0.1
"""Seconds between two updates of the line that shows progress."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Copy a whole store, from a directory to a server, or back, or to another place of the same kind: values, "
        "hashed categories, mailboxes, queues with their tasks (waiting, delayed, done with results, dead with their "
        "history; a claimed task waits again in the copy), counters, events and all other primitives. Then compare "
        "everything. No process may use either store meanwhile. A copy that was killed goes on when the command is run "
        "again. SRC is not changed. Held locks, processes and quarantined bytes are left out."
    )
    parser.epilog = (
        "exit codes: 0 both are the same (now, or since an earlier run), 1 they differ, or something can't be read "
        "(stderr names each), or DST holds something else, 2 wrong use, 130 interrupted"
    )
    parser.add_argument("source", type=arguments.place, metavar="SRC", help=f"the directory to copy, {arguments.PLACE}")
    parser.add_argument(
        "directory", type=arguments.place, metavar="DST", help="an empty place of either kind, made if it is not there"
    )
    arguments.trust(parser)
    for option, end in (("--from-key", "SRC"), ("--to-key", "DST")):
        parser.add_argument(
            option,
            metavar="FILE",
            help=f"the file with the key of {end} (default: the one that PSYNC_KEY_FILE names); none: it has no key",
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from psync.work.admin.copy_store import copy_store

    arguments.must_exist(args.source)
    from_key, to_key = key_in(args.from_key, args.source), key_in(args.to_key, args.directory)
    source = PickleShareDB(looking_engine(args.source, key=from_key, trust_group=args.trust_group), key=from_key)
    agree(source.engine, None, None)
    as_it_is = source.engine.format.serializer if source.engine.format is not None else None
    destination = PickleShareDB(args.directory, key=to_key, trust_group=args.trust_group, serializer=as_it_is)
    with source, destination:
        shows = sys.stderr.isatty()
        try:
            copied = copy_store(source, destination, progress=progress() if shows else None)
        except ValueError as error:
            raise Failure(str(error)) from error
        finally:
            if shows:
                sys.stderr.write("\r\x1b[K")
    tell(copied, args)
    return 1 if copied.differences else 0


def key_in(file: str | None, place: str) -> Key | None:
    """Read the keys in a file; None if no file is named, so that PSYNC_KEY_FILE may name one."""
    if file is None:
        return None
    return NO_KEY if file == "none" else read_file(file, None if is_address(place) else place)


def progress() -> Callable[[Copied], None]:
    """Keeps a line on the terminal up to date."""
    last = 0.0

    def show(copied: Copied) -> None:
        nonlocal last
        now = clock.monotonic()
        if now - last > PROGRESS_INTERVAL_S:
            last = now
            seen = f"{copied.values} values, {copied.tasks} tasks, {copied.written} written, {copied.compared} compared"
            sys.stderr.write(f"\rpsync copy: {seen}\x1b[K")
            sys.stderr.flush()

    return show


def tell(copied: Copied, args: argparse.Namespace) -> None:
    for name, why in copied.differences:
        print(f"psync copy: {name}: {why}", file=sys.stderr)
    if args.json:
        facts = copied._asdict() | {"differences": [each._asdict() for each in copied.differences]}
        print(json.dumps({"source": shown(args.source), "destination": arguments.where(args), **facts}, indent=2))
    elif copied.was_complete:
        print(f"{arguments.where(args)} is a whole copy already, and may have been used since: nothing was done")
    else:
        state = f"{len(copied.differences)} differences" if copied.differences else "all is the same in both"
        print(
            f"{copied.values} values, {copied.categories} categories and mailboxes, {copied.primitives} primitives, "
            f"{copied.queues} queues; {copied.written} of them written, {copied.tasks} tasks moved; {state}"
        )
