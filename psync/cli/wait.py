"""``psync wait DIR KEY...``: wait until the keys are there, and print their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from psync.cli import arguments, text
from psync.cli.get import form
from psync.errors import WaitTimeout
from psync.store import PickleShareDB
from psync.store.keys import check


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Wait until every KEY is there, and print the values in that order, each on a line (with --json and several "
        "keys, one object). With --any, wait until one of them is there, and print the key, a tab, and the value. With "
        "--gone, wait until none of them is there, and print nothing. The exit code is 124 after S seconds."
    )
    arguments.anywhere(parser)
    arguments.directory(parser, made=True)
    parser.add_argument("keys", nargs="+", metavar="KEY")
    arguments.timeout(parser, "wait at most S seconds")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--any", action="store_true", help="wait until one of the keys is there")
    until.add_argument("--gone", action="store_true", help="wait until the keys are gone")
    form(parser)


def run(args: argparse.Namespace) -> int:
    for key in args.keys:
        check(key)
    with arguments.opened(args) as db:
        deadline = math.inf if args.timeout is None else db.engine.now() + args.timeout

        def left() -> float | None:
            return None if args.timeout is None else max(0.0, deadline - db.engine.now())

        try:
            with text.unpickled("the awaited value"):
                found = wait(db, args, left)
        except WaitTimeout as error:
            names = ", ".join(repr(key) for key in args.keys if (key in db) is args.gone) or repr(error.key)
            verb = "did not go from" if args.gone else "did not come to"
            raise WaitTimeout(
                f"{names} {verb} {arguments.where(args)} within {args.timeout:g} seconds",
                key=error.key,
                waited=error.waited,
            ) from None
    show(found, args)
    return 0


def wait(db: PickleShareDB, args: argparse.Namespace, left: Callable[[], float | None]) -> dict[str, Any]:
    """Return the values that came. Raises `WaitTimeout`."""
    if args.any:
        return dict([db.waitany(args.keys, left())])
    if not args.gone:
        return {key: db.waitget(key, left()) for key in args.keys}
    for key in args.keys:
        db.waitgone(key, left())
    return {}


def show(found: dict[str, Any], args: argparse.Namespace) -> None:
    if args.form == text.JSON and (len(args.keys) > 1 or args.any) and not args.gone:
        print(text.as_json(found, "what came"))
        return
    for key, value in found.items():
        what = f"the value of {key!r}"
        if args.any:
            text.say(f"{key}\t{text.shown(value, what, args.form)}", what)
        else:
            text.show(value, what, args.form)
