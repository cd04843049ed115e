"""``psync del DIR KEY...``: remove keys."""

from __future__ import annotations

import argparse
import sys

from psync.cli import arguments
from psync.store.keys import check


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Remove keys. Missing keys are named on stderr, and the exit code is then 1. If several processes remove a key "
        "at the same time, one gets 0."
    )
    arguments.anywhere(parser)
    arguments.directory(parser, made=False)
    parser.add_argument("keys", nargs="+", metavar="KEY")
    parser.add_argument("-f", "--force", action="store_true", help="ignore missing keys")


def run(args: argparse.Namespace) -> int:
    for key in args.keys:
        check(key)
    code = 0
    with arguments.existing(args) as db:
        for key in args.keys:
            try:
                del db[key]
            except KeyError:
                if not args.force:
                    print(f"psync del: there is no key {key!r} in {arguments.where(args)}", file=sys.stderr)
                    code = 1
    return code
