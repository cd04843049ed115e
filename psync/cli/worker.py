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
        "Make the calls that executors (psync.Executor) hand out in DIR, in N processes; one that dies is replaced. "
        "Functions are imported by name, from where Python finds them (PYTHONPATH) and from this folder. At the first "
        "SIGTERM or Ctrl-C each process finishes its call; at the second one all stop at once, and other workers make "
        "their calls. Calls are unpickled: work only for clients that you trust."
    )
    parser.epilog = (
        "exit codes: 0 finished (--idle, --drain, or the queue was closed), or stopped by SIGTERM with every call "
        "finished; 1 the store reported an error, 2 wrong use, 130 interrupted, 143 stopped at once"
    )
    arguments.directory(parser, made=True)
    parser.add_argument(
        "-j", "--jobs", type=arguments.count, metavar="N", help="number of processes (default: one for each processor)"
    )
    parser.add_argument("--queue", default="jobs", metavar="NAME", help="the executors' queue (default: jobs)")
    parser.add_argument("--idle", type=arguments.seconds, metavar="S", help="end after S seconds without a call")
    parser.add_argument("--drain", action="store_true", help="end when no call is left to make")
    parser.add_argument(
        "--max-rss",
        type=arguments.above(0),
        metavar="MB",
        help="replace a process that uses more memory, after its call",
    )
    parser.add_argument(
        "--max-load",
        type=arguments.above(0),
        metavar="N",
        help="begin no call while the load average of the host, divided by its processors, is above N",
    )
    parser.add_argument(
        "--attempts",
        type=arguments.count,
        default=3,
        metavar="N",
        help="begin a call at most N times, if its workers die or it raises and is retried (default: 3)",
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
