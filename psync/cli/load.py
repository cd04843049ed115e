"""``psync load DIR < dump.txt``: store what dump printed. Only literals are read; nothing in the file is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from psync.cli import arguments, literal
from psync.engine.contract.bucket import is_bucket_name
from psync.errors import CorruptValue
from psync.store import PickleShareDB
from psync.store.foreign import ForeignNames
from psync.store.keys import check


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read what dump printed from the standard input and store it. The directory then holds exactly that: "
        "keys that are not in it are removed (after all the others are stored), unless --keep is given. Files that "
        "psync did not write stay, and are named on stderr. "
        "A text that is not all literals is refused, and nothing is changed."
    )
    arguments.directory(parser, made=True)
    parser.add_argument("--keep", action="store_true", help="keep the keys that the dump does not have")


def run(args: argparse.Namespace) -> int:
    values = dict(literal.pairs(sys.stdin.read()))
    for key in values:
        check(key)
    left = ForeignNames()
    with arguments.opened(args) as db:
        removed = store(db, values, keep=args.keep, left=left)
    if left:
        print(left, file=sys.stderr)
    print(f"{len(values)} stored, {removed} removed")
    return 0


def store(db: PickleShareDB, values: dict[str, Any], *, keep: bool, left: ForeignNames | None = None) -> int:
    """Make `db` hold `values` and, unless `keep`, nothing else; return the number of removed keys. Files that psync did
    not write stay, and go on the list `left`."""
    left = ForeignNames() if left is None else left
    there = set(db)
    others = set() if keep else there - values.keys()
    blocking = _blocking(others, values)
    # Those that block go first, because a name can't be both a value and a folder, or a bucket. The rest go last:
    # whatever stops this half way, no value is gone whose successor has not come.
    removed = _remove(db, blocking, left)
    _remove(db, _buckets(db, there, values), left)
    for key, value in sorted(values.items(), key=lambda item: not isinstance(item[1], dict)):
        db[key] = value  # dicts first: they take the place of buckets, beside which no other value may come
    return removed + _remove(db, others - blocking, left)


def _blocking(others: Iterable[str], values: dict[str, Any]) -> set[str]:
    folders = {folder for key in values for folder in _folders(key)}
    no_categories = {key[:-3] for key in values if _is_in_a_buckets_place(key, values)}
    return {
        key
        for key in others
        if key in folders
        or not values.keys().isdisjoint(_folders(key))
        or (is_bucket_name(key) and key[:-3] in no_categories)
    }


def _buckets(db: PickleShareDB, there: set[str], values: dict[str, Any]) -> list[str]:
    """The buckets in `db` for which the dump has another value than a dict."""
    found = [key for key in values if key in there and _is_in_a_buckets_place(key, values)]
    return [key for key in found if not db.engine.bucket(key).is_foreign()]


def _is_in_a_buckets_place(key: str, values: dict[str, Any]) -> bool:
    return is_bucket_name(key) and not isinstance(values[key], dict)


def _folders(key: str) -> list[str]:
    """``a/b/c``: a, a/b."""
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _remove(db: PickleShareDB, keys: Iterable[str], left: ForeignNames) -> int:
    removed = 0
    for key in keys:
        try:
            removed += db.engine.delete(key, spare_foreign=True)  # False: somebody else was quicker
        except CorruptValue as error:
            if not left.passes(error):
                raise
    db.uncache()
    return removed
