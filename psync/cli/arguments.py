"""Arguments that several commands share: the store, durations and numbers."""

from __future__ import annotations

import argparse
import math
import threading
from collections.abc import Callable

from psync.cli.errors import Failure
from psync.engine.admin import checked, is_there, looking_engine, shown
from psync.store import PickleShareDB

PLACE = "or the URL of a server: redis://HOST/0?prefix=NAME"


def directory(parser: argparse.ArgumentParser, *, made: bool) -> None:
    text = f"the shared directory, made if it is not there; {PLACE}" if made else f"the shared directory, {PLACE}"
    parser.add_argument("directory", type=place, metavar="DIR", help=text)
    trust(parser)


def place(text: str) -> str:
    """Return a path or URL of a store, if it can be opened: the type of such an argument."""
    try:
        return str(checked(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def where(args: argparse.Namespace) -> str:
    """Return the path or URL of the store as messages show it."""
    return shown(args.directory)


def trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-group", action="store_true", help="it is a team's folder (setgid): trust the members of its group"
    )


def opened(args: argparse.Namespace) -> PickleShareDB:
    """Open the store; make it if it is missing. The file that PSYNC_KEY_FILE names has the key."""
    return PickleShareDB(args.directory, trust_group=args.trust_group)


def existing(args: argparse.Namespace) -> PickleShareDB:
    """Open the store. Raises `Failure` if it is missing, and does not make it: the user may have mistyped the name."""
    must_exist(args.directory)
    return opened(args)


def looked_at(args: argparse.Namespace) -> PickleShareDB:
    """Open the store read-only: a value that can't be read stays in its place. Raises `Failure` as `existing` does."""
    must_exist(args.directory)
    return PickleShareDB(looking_engine(args.directory, trust_group=args.trust_group))


def must_exist(directory: str) -> None:
    if not is_there(directory):
        raise Failure(f"{shown(directory)} is not a directory")


def anywhere(parser: argparse.ArgumentParser) -> None:
    """Options may stand between the others, as in ``ls DIR -l GLOB``: argparse takes no GLOB there by itself."""
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]


def timeout(parser: argparse.ArgumentParser, says: str) -> None:
    parser.add_argument("--timeout", type=seconds, metavar="S", help=f"{says} (default: wait for ever)")


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return number


def above(least: float) -> Callable[[str], float]:
    """The type of an option that is a number above `least`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above {least:g}")
        return value

    return read


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)
