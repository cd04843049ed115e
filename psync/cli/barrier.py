"""``psync barrier DIR NAME --parties N``: wait until N processes have arrived at a barrier."""

from __future__ import annotations

import argparse
import sys

from psync.cli import arguments
from psync.cli.errors import TIMED_OUT, WrongUse
from psync.errors import BrokenBarrierError
from psync.sync import Barrier


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Wait until N processes have arrived at the barrier NAME, each with this command (or psync.Barrier in a "
        "Python program). Then all of them continue, and the barrier is ready for the next N. If a waiting process is "
        "killed, or stops waiting, the barrier is broken and all waiting processes fail. When they have ended, the "
        "next process to arrive starts a new round."
    )
    parser.epilog = (
        "exit codes: 0 all have arrived, 1 the barrier was broken (stderr says why, and which process died), 2 wrong "
        "use, 124 the others did not arrive in time, 130 interrupted"
    )
    arguments.directory(parser, made=True)
    parser.add_argument("name", metavar="NAME", help="the name of the barrier")
    parser.add_argument(
        "-n", "--parties", type=arguments.count, required=True, metavar="N", help="the number of processes to wait for"
    )
    arguments.timeout(parser, "break the barrier after S seconds")


def run(args: argparse.Namespace) -> int:
    with arguments.opened(args) as db:
        barrier = Barrier(db, args.name, args.parties)
        begun = db.engine.now()
        try:
            barrier.wait(args.timeout)
        except KeyboardInterrupt:
            barrier.abort()  # at once, and with our name; the death of a killed party is found by probing
            raise
        except ValueError as error:
            raise WrongUse(str(error)) from None
        except BrokenBarrierError as error:
            in_time = args.timeout is None or db.engine.now() - begun < args.timeout
            print(f"psync barrier: {str(error).partition('. When all parties')[0]}", file=sys.stderr)
            return 1 if in_time else TIMED_OUT
        barrier.leave()  # the next round is another process's: none should wait for this one
    return 0
