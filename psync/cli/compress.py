"""``psync compress DIR CATEGORY``: fold a hashed category into one file."""

from __future__ import annotations

import argparse
import re

from psync.cli import arguments
from psync.cli.errors import Failure
from psync.store.keys import check

is_part = re.compile("[0-9a-f]{2}|xx").fullmatch
"""Whether a file of a folder is one that a category has."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Move every item of a hashed category (hset, hget) into one file, so that reading all of it is fast. May run "
        "beside any use of the category, and be killed: nothing is lost."
    )
    arguments.directory(parser, made=False)
    parser.add_argument("category", metavar="CATEGORY")


def run(args: argparse.Namespace) -> int:
    with arguments.existing(args) as db:
        if not any(map(is_part, db.engine.entries(check(args.category))[0])):
            raise Failure(f"there is no category {args.category!r} in {arguments.where(args)}")
        db.hcompress(args.category)
    return 0
