"""``psync ls DIR [GLOB]``: the keys, in order."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from psync.cli import arguments, text


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the keys, or those that match GLOB: *, ? and [...] within a segment, ** any depth (quote it from the "
        "shell). No key at all is no failure. No value is read."
    )
    arguments.anywhere(parser)
    arguments.directory(parser, made=False)
    parser.add_argument("glob", nargs="?", metavar="GLOB")
    parser.add_argument("-l", "--long", action="store_true", help="with bytes on the disk and time of the last change")
    parser.add_argument("--json", action="store_true", help="as a list in JSON")


def run(args: argparse.Namespace) -> int:
    with arguments.existing(args) as db:
        keys = sorted(db.keys(args.glob))
        found = list(described(db.root, keys)) if args.long else []
    if args.json:
        print(json.dumps(found if args.long else keys))
    elif args.long:
        width = max((len(str(each["bytes"])) for each in found), default=0)
        for each in found:
            text.say(f"{each['bytes']:{width}}  {each['changed']}  {each['key']}", "a key")
    else:
        for key in keys:
            text.say(key, "a key")
    return 0


def described(root: Path, keys: list[str]) -> Iterator[dict[str, Any]]:
    for key in keys:
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            status = (root / key).stat()
            changed = datetime.fromtimestamp(status.st_mtime).isoformat(" ", "seconds")
            yield {"key": key, "bytes": status.st_size, "changed": changed}
