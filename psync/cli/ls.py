"""``psync ls DIR [GLOB]``: the keys, in order."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from psync.cli import arguments, text
from psync.engine import Engine


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the keys, or those that match GLOB: *, ? and [...] within a segment, ** any depth (quote it from the "
        "shell). No key at all is no failure. No value is read."
    )
    arguments.anywhere(parser)
    arguments.directory(parser, made=False)
    parser.add_argument("glob", nargs="?", metavar="GLOB")
    parser.add_argument("-l", "--long", action="store_true", help="with bytes, and time of the last change (of files)")
    parser.add_argument("--json", action="store_true", help="as a list in JSON")


def run(args: argparse.Namespace) -> int:
    with arguments.looked_at(args) as db:
        keys = sorted(db.keys(args.glob))
        found = list(described(db.engine, keys)) if args.long else []
    if args.json:
        import json

        print(json.dumps(found if args.long else keys))
    elif args.long:
        width = max((len(str(each["bytes"])) for each in found), default=0)
        for each in found:
            text.say(f"{each['bytes']:{width}}  {each['changed'] or '-'}  {each['key']}", "a key")
    else:
        for key in keys:
            text.say(key, "a key")
    return 0


def described(engine: Engine, keys: list[str]) -> Iterator[dict[str, Any]]:
    from datetime import datetime

    for key in keys:
        facts = engine.facts(key)
        if facts is not None:  # else it was removed since it was listed
            changed = facts.changed and datetime.fromtimestamp(facts.changed).isoformat(" ", "seconds")
            yield {"key": key, "bytes": facts.size, "changed": changed}
