"""``psync status DIR``: queues, locks, barriers and the like, and who is at them. A look that changes nothing."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from psync.cli import arguments
from psync.cli.errors import Failure
from psync.cli.tables import size, table

if TYPE_CHECKING:
    from psync.work.admin.overview import Observer, Overview


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what is in a directory: queues and who has which task, barriers and who waits or is missing there, held "
        "locks and elections, semaphores, groups, and the processes at work with the processor time and memory of "
        "those on this host. It changes nothing."
    )
    parser.epilog = "exit codes: 0 shown, 1 psync was never used there, or something can't be read, 2 wrong use"
    arguments.directory(parser, made=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    observer = observe(args)
    try:
        overview = observer.look()
    finally:
        observer.close()
    if args.json:
        print(json.dumps(as_dict(overview), indent=2))
    else:
        print("\n".join(shown(overview)))
    for trouble in overview.troubles:
        print(f"psync status: {trouble.name}: {trouble.why}", file=sys.stderr)
    return 1 if overview.troubles else 0


def observe(args: argparse.Namespace) -> Observer:
    """Return an observer. Raises `Failure` if psync was never used there."""
    from psync.engine.admin import is_used
    from psync.work.admin.overview import Observer

    arguments.must_exist(args.directory)
    if not is_used(args.directory):
        kind = "prefix" if "://" in args.directory else "directory"
        raise Failure(
            f"{arguments.where(args)} holds nothing of psync's: nobody has used it yet (is it the right {kind}?)"
        )
    return Observer(args.directory, trust_group=args.trust_group)


# -- for programs ------------------------------------------------------------------------------------


def as_dict(overview: Overview) -> dict[str, Any]:
    """Return the overview as JSON objects."""
    return {
        "directory": overview.root,
        "queues": [
            {
                "name": queue.name,
                **queue.counts._asdict(),
                "claims": [{k: v for k, v in claim._asdict().items() if k != "owner"} for claim in queue.claims],
            }
            for queue in overview.queues
        ],
        "barriers": [{"name": name, **seen._asdict()} for name, seen in overview.barriers],
        "held": [each._asdict() for each in overview.held],
        "semaphores": [{"name": name, **seen._asdict()} for name, seen in overview.semaphores],
        "groups": [
            {
                "name": name,
                "joined": seen.joined,
                "members": [{**each._asdict(), "information": _plain(each.information)} for each in seen.members],
            }
            for name, seen in overview.groups
        ],
        "others": [{"kind": each.kind, "name": each.name, **each.seen._asdict()} for each in overview.others],
        "processes": [
            {
                **(each.identity._asdict() if each.identity else {}),
                "alive": each.alive.value,
                "cpu_seconds": each.usage and round(each.usage.cpu, 2),
                "memory": each.usage and each.usage.memory,
            }
            for each in overview.processes
        ],
        "unreadable": [each._asdict() for each in overview.troubles],
    }


def _plain(value: Any) -> Any:
    """Return `value` as it is if JSON has such a value; else its repr."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value


# -- for people --------------------------------------------------------------------------------------


def shown(overview: Overview, before: Overview | None = None, passed: float = 0.0) -> list[str]:
    """Return the lines to print. With an earlier overview, from `passed` seconds ago, processor time counts since
    then."""
    queues = (
        (q.name, c.waiting, c.delayed, c.running, c.dead, c.put, c.workers, "closed" if c.closed else "open")
        for q in overview.queues
        for c in (q.counts,)
    )
    lines = table("queues", ("name", "waiting", "delayed", "running", "dead", "put", "workers", "is"), queues)
    claims = (
        (q.name, c.id, c.attempt, "runs" if c.begun else "reserved", c.who) for q in overview.queues for c in q.claims
    )
    lines += table("tasks that somebody has", ("queue", "task", "attempt", "", "who"), claims)
    barriers = (
        (name, b.round, f"{len(b.waiting)} of {b.parties}", _people(b.waiting), _people(b.missing), b.broken or "no")
        for name, b in overview.barriers
    )
    lines += table("barriers", ("name", "round", "there", "who waits", "who is missing", "broken"), barriers)
    lines += table("held", ("kind", "name", "by"), overview.held)
    semaphores = ((name, seen.value, _people(seen.holders)) for name, seen in overview.semaphores)
    lines += table("semaphores", ("name", "free", "held by"), semaphores)
    members = (
        (name, each.number, each.who, "" if each.information is None else _plain(each.information))
        for name, seen in overview.groups
        for each in seen.members
    )
    lines += table("members of groups", ("group", "number", "who", "says"), members)
    others = ((each.kind, each.name, _facts(each.seen)) for each in overview.others)
    lines += table("others", ("kind", "name", "state"), others)
    lines += _processes(overview, before, passed)
    return lines[:-1] if lines else [f"{overview.root}: nothing goes on here"]


def _processes(overview: Overview, before: Overview | None, passed: float) -> list[str]:
    then = {each.owner: each.usage.cpu for each in before.processes if each.usage} if before else {}
    rows = []
    for each in overview.processes:
        share = memory = "-"
        if each.usage is not None:
            memory = size(each.usage.memory)
            used, seconds = each.usage.cpu, each.usage.seconds
            if each.owner in then:
                used, seconds = used - then[each.owner], passed
            share = f"{100 * used / seconds:.0f}%" if seconds > 0 else "-"
        who = each.identity or f"unknown ({each.owner:016x})"
        rows.append((who, {"yes": "lives", "no": "dead", "unknown": "perhaps"}[each.alive.value], share, memory))
    return table("processes", ("who", "", "cpu", "memory"), rows)


def _people(who: tuple[str, ...]) -> str:
    return "; ".join(who) or "-"


def _facts(seen: Any) -> str:
    return ", ".join(
        f"{name} {_people(value) if isinstance(value, tuple) else value}" for name, value in seen._asdict().items()
    )
