"""``psync worker DIR``: run the calls that executors submit, in N processes."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from psync.cli import arguments
from psync.cli.errors import INTERRUPTED
from psync.work.shell.child_group import processors
from psync.work.supervisor import Supervisor, WorkerLimits

MEGABYTE = 1 << 20


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make the calls that executors (psync.Executor) hand out in DIR, in N processes, which are replaced when they "
        "die. Functions are imported by name, from where Python finds them (PYTHONPATH), and from this folder. Told to "
        "stop (SIGTERM, Ctrl-C), each finishes the call it is at; told again, all stop at once, and their calls are "
        "made by others. Calls are unpickled: work only for those whom you trust."
    )
    parser.epilog = (
        "exit codes: 0 through (--idle, --drain, or the queue was closed), or stopped by SIGTERM with no call left "
        "unfinished; 1 the store refused something, 2 wrong use, 130 interrupted, 143 stopped at once"
    )
    arguments.directory(parser, made=True)
    parser.add_argument("-j", "--jobs", type=arguments.count, metavar="N", help="how many processes (one a processor)")
    parser.add_argument("--queue", default="jobs", metavar="NAME", help="the executors' queue (jobs, if not said)")
    parser.add_argument("--idle", type=arguments.seconds, metavar="S", help="end when there was no call for S seconds")
    parser.add_argument("--drain", action="store_true", help="end when no call is left to make")
    parser.add_argument(
        "--max-rss", type=arguments.above(0), metavar="MB", help="replace a process above that, when it ended its call"
    )
    parser.add_argument(
        "--max-load",
        type=arguments.above(0),
        metavar="N",
        help="begin no call while the host's load average, for each of its processors, is above N",
    )
    parser.add_argument(
        "--attempts",
        type=arguments.count,
        default=3,
        metavar="N",
        help="begin a call N times at most, if its workers die or it is to be made again when it raises (3)",
    )


def run(args: argparse.Namespace) -> int:
    size = args.jobs or processors()
    memory = None if args.max_rss is None else args.max_rss * MEGABYTE
    if not sys.flags.safe_path:
        sys.path.append(str(Path.cwd()))
    limits = WorkerLimits(args.idle, args.drain, memory, args.max_load, args.attempts)
    supervisor = Supervisor(args.directory, args.queue, size, limits, trust_group=args.trust_group)
    tell(f"{size} {'processes work' if size > 1 else 'process works'} on {args.queue!r} in {arguments.where(args)}")
    supervisor.run()
    why = (
        f"; stopped {'at once ' * supervisor.killed}by {signal.Signals(supervisor.signal).name}"
        if supervisor.signal
        else ""
    )
    tell(f"{supervisor.made} call{'s' * (supervisor.made != 1)} made{why}")
    if supervisor.signal == signal.SIGINT:
        return INTERRUPTED
    if supervisor.killed and supervisor.signal:
        return 128 + supervisor.signal
    return 1 if supervisor.failed else 0


def tell(text: str) -> None:
    print(f"psync worker: {text}", file=sys.stderr, flush=True)
