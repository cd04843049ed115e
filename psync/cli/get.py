"""``psync get DIR KEY``: print a value."""

from __future__ import annotations

import argparse

from psync.cli import arguments, text
from psync.cli.errors import Failure


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the value of a key. Text is printed as it is, bytes too (without an end of line), anything else as "
        "Python writes it. Exit code 1 if there is no such key. The value is unpickled: get only what you trust."
    )
    arguments.directory(parser, made=False)
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("--default", metavar="TEXT", help="what to print if there is no such key; exit code 0 then")
    form(parser)


def form(parser: argparse.ArgumentParser) -> None:
    """How values are printed: `args.form`."""
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--json", dest="form", action="store_const", const=text.JSON, default=text.PLAIN, help="print it as JSON"
    )
    forms.add_argument(
        "--literal", dest="form", action="store_const", const=text.LITERAL, help="print it as a Python literal"
    )


def run(args: argparse.Namespace) -> int:
    what, absent = f"the value of {args.key!r}", object()
    with arguments.looked_at(args) as db, text.unpickled(what):
        value = db.get(args.key, absent)
    if value is not absent:
        text.show(value, what, args.form)
    elif args.default is not None:
        text.say(args.default, "the default")
    else:
        raise Failure(f"there is no key {args.key!r} in {arguments.where(args)}")
    return 0
