"""What several commands take: a directory, seconds, numbers, and how a value is written."""

from __future__ import annotations

import argparse
import errno
import math
import threading
from collections.abc import Callable
from pathlib import Path

from psync.cli import Failure
from psync.errors import StoreFailed
from psync.store import PickleShareDB


def directory(parser: argparse.ArgumentParser, *, made: bool) -> None:
    text = "the shared directory, made if it is not there" if made else "the shared directory"
    parser.add_argument("directory", metavar="DIR", help=text)
    trust(parser)


def trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-group", action="store_true", help="it is a team's folder (setgid): whoever is in its group is trusted"
    )


def opened(args: argparse.Namespace) -> PickleShareDB:
    """The store in the directory, made if it is not there. A key is in the file that PSYNC_KEY_FILE names."""
    return PickleShareDB(args.directory, trust_group=args.trust_group)


def existing(args: argparse.Namespace) -> PickleShareDB:
    """The store there; `Failure` if there is no such directory. To look makes none: the name may be mistyped."""
    if not Path(args.directory).expanduser().is_dir():
        raise Failure(f"{args.directory} is not a directory")
    return opened(args)


def looked_at(args: argparse.Namespace) -> PickleShareDB:
    """The store there, for who only reads: what can't be read stays where it is. `Failure` as for `existing`."""
    from psync.engine.directory.looking import LookingEngine

    if not Path(args.directory).expanduser().is_dir():
        raise Failure(f"{args.directory} is not a directory")
    try:
        return PickleShareDB(LookingEngine(args.directory, trust_group=args.trust_group))
    except StoreFailed as error:
        if error.errno != errno.EROFS:
            raise
        # with a key a new store is sealed, which is a change
        raise Failure(f"{args.directory} is not sealed yet: unset PSYNC_KEY_FILE to look at it") from error


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
