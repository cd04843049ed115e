"""``psync put DIR QUEUE VALUE...``: put tasks into a queue, and print their ids."""

from __future__ import annotations

import argparse
from typing import Any

from psync.cli import arguments, text
from psync.cli.errors import WrongUse
from psync.sync import WorkQueue
from psync.sync.queue.delays import MAX_DELAY_S
from psync.sync.queue.priorities import HIGHEST_PRIORITY, LOWEST_PRIORITY


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Put tasks into a queue, for Python programs that claim them (psync.WorkQueue), and print their ids, each on a "
        "line. Either all tasks are put or none. Without VALUE, every line of the standard input is a task."
    )
    arguments.anywhere(parser)
    arguments.directory(parser, made=True)
    parser.add_argument("queue", metavar="QUEUE", help="the name of the queue")
    parser.add_argument("values", nargs="*", metavar="VALUE", help="a text, or JSON with --json")
    parser.add_argument(
        "--id", metavar="ID", help="an id of your own, for a single task; a second put with it adds no task"
    )
    parser.add_argument(
        "--priority",
        type=_priority,
        default=0,
        metavar="N",
        help=f"{LOWEST_PRIORITY} to {HIGHEST_PRIORITY}; a higher one is claimed first",
    )
    parser.add_argument("--delay", type=_delay, default=0.0, metavar="S", help="let no worker claim it for S seconds")
    parser.add_argument(
        "--json",
        dest="form",
        action="store_const",
        const=text.JSON,
        default=text.PLAIN,
        help="the values are JSON (empty lines are skipped)",
    )


def _priority(given: str) -> int:
    try:
        number = int(given)
    except ValueError:
        number = HIGHEST_PRIORITY + 1
    if not LOWEST_PRIORITY <= number <= HIGHEST_PRIORITY:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}")
    return number


def _delay(given: str) -> float:
    delay = arguments.seconds(given)
    if delay > MAX_DELAY_S:
        raise argparse.ArgumentTypeError(f"{given!r} is more than {MAX_DELAY_S:g} seconds")
    return delay


def run(args: argparse.Namespace) -> int:
    if args.id is not None and (not args.id or args.id.startswith("#")):
        raise WrongUse(f"an id must not be empty, nor begin with a #, as {args.id!r} does")
    values = [text.parsed(each, args.form) for each in args.values or lines(args.form)]
    if args.id is not None and len(values) != 1:
        raise WrongUse(f"--id is for a single task, not for {len(values)}")
    for id in put(args, values):
        text.say(id, "an id")
    return 0


def put(args: argparse.Namespace, values: list[Any]) -> list[str]:
    with arguments.opened(args) as db:
        queue = WorkQueue(db, args.queue)
        if args.id is not None:
            return [queue.put(values[0], id=args.id, priority=args.priority, delay=args.delay)]
        return queue.put_many(values, priority=args.priority, delay=args.delay)


def lines(form: str) -> list[str]:
    """Read the values from the standard input."""
    found = text.typed().removesuffix("\n")
    every = found.split("\n") if found else []
    return [line for line in every if line.strip()] if form == text.JSON else every
