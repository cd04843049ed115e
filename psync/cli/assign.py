"""``psync set DIR KEY VALUE``: store a value."""

from __future__ import annotations

import argparse

from psync.cli import arguments, text
from psync.cli.errors import Failure


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Store a value: the text as it is, or what it stands for as JSON or as a Python literal. A VALUE of - is read "
        "from the standard input; one newline at its end is left out then. (A VALUE that begins with a - stands behind "
        "a --.)"
    )
    arguments.directory(parser, made=True)
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE")
    parser.add_argument("--new", action="store_true", help="only if there is no such key; exit code 1 if there is")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--json", dest="form", action="store_const", const=text.JSON, default=text.PLAIN, help="VALUE is JSON"
    )
    forms.add_argument(
        "--literal", dest="form", action="store_const", const=text.LITERAL, help="VALUE is a Python literal"
    )


def run(args: argparse.Namespace) -> int:
    typed = text.typed().removesuffix("\n") if args.value == "-" else args.value
    value = text.parsed(typed, args.form)
    with arguments.opened(args) as db:
        if not args.new:
            db[args.key] = value
        elif not db.add(args.key, value):
            raise Failure(f"there is a key {args.key!r} in {arguments.where(args)} already")
    return 0
