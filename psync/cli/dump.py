"""``psync dump DIR > dump.txt``: every key and value, as literals that ``psync load`` reads."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from typing import Any

from psync.cli import arguments, literal
from psync.errors import PsyncError, UnreadableValue
from psync.store import PickleShareDB


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print every key and value as a list of pairs, which load can read back. A value that can't be read, or that "
        "load could not read back (an object, say), is named on stderr, and the exit code is then 1: such a dump is "
        "for reading only. The command changes and moves nothing. Values are unpickled, so dump only stores that you "
        "trust."
    )
    parser.add_argument(
        "directory",
        nargs="?",
        default=".",
        type=arguments.place,
        metavar="DIR",
        help=f"the directory to look at (default: this one), {arguments.PLACE}",
    )
    arguments.trust(parser)


def run(args: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # within a literal, the very escapes that Python reads
    trouble = 0
    start = "["
    with arguments.looked_at(args) as db:
        for key, value, problem in pairs(db):
            if problem:
                trouble += 1
                print(f"{key!r}: {problem}", file=sys.stderr)
            if value is not UNREAD:
                print(start, literal.shown(key, value).replace("\n", "\n "), sep="", end="")
                start = ",\n "
    print("[]" if start == "[" else "]")
    return 1 if trouble else 0


UNREAD: Any = object()


def pairs(db: PickleShareDB) -> Iterator[tuple[str, Any, str | None]]:
    """Yield every key in order, its value (UNREAD if it can't be read), and why a load can't store the same again."""
    for key in sorted(db):
        try:
            value = db[key]
        except UnreadableValue as error:
            value = UNREAD if error.rest is None else error.rest
            yield key, value, f"can't be unpickled here: {error.reason}"
        except PsyncError as error:
            yield key, UNREAD, str(error)
        except KeyError:
            continue  # somebody removed it since it was listed
        except Exception as error:  # memory is short, for one
            yield key, UNREAD, f"can't be unpickled here: {type(error).__name__}: {error}"
        else:
            wrong = literal.why_not(value)
            yield key, value, wrong and f"can't be loaded back: it has {wrong} in it"
