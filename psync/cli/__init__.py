"""The `psync` command: each sub command has its own file here; this one finds it and turns errors into exit codes.

Exit codes: 0 it is done; 1 it said no, failed, or what was asked for is not there (the reason is on stderr, without a
traceback); 2 it was called wrongly; 124 it did not come about in time; 130 it was interrupted. This floor is the only
one that prints.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Protocol

from psync.errors import LockTimeout, PsyncError, WaitTimeout

COMMANDS = {
    "get": "print a value",
    "set": "store a value",
    "del": "remove keys",
    "ls": "list the keys",
    "wait": "wait until keys are there, or gone",
    "compress": "fold a hashed category into one file",
    "lock": "run a command while holding a lock",
    "barrier": "wait until so many have come",
    "put": "hand out tasks",
    "run": "run a command for each line of input",
    "results": "print what tasks came to",
    "worker": "make the calls that executors hand out",
    "status": "show queues, locks, barriers and who is at them",
    "top": "show the same, live",
    "doctor": "examine a directory: what works there, what stands in the way?",
    "copy": "copy a whole store to another place, and go on there",
    "dump": "print every key and value, as Python literals",
    "load": "read what dump printed and store it",
    "test": "try out a directory: do processes that share it see each other's values?",
}

EPILOG = "exit codes: 0 done, 1 refused, failed or not there, 2 wrong use, 124 not in time, 130 interrupted"
TIMED_OUT, INTERRUPTED = 124, 130


class Failure(Exception):
    """The command can't do what was asked; its text is all that the user gets to see."""


class WrongUse(Exception):
    """The command was called wrongly, in a way that argparse does not see; the text says what to do."""


class Command(Protocol):
    """What the module of a sub command has. With a true `TAKES_COMMAND` in it, too, what follows the first ``--`` is
    not parsed, and is `args.command`, a list: empty if there is nothing."""

    def options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None, prog: str = "psync") -> int:
    """Run one command line (`sys.argv` when None) and return its exit code; nothing is raised for what a user does."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        if given[:1] == ["--version"]:
            print(f"{prog} {_version()}")
            return 0
        name = _parser(prog).parse_args(given[:1]).command
        command = _command(name)
        parser = argparse.ArgumentParser(prog=f"{prog} {name}", description=COMMANDS[name], epilog=EPILOG)
        command.options(parser)
        own, following = _split(given[1:]) if getattr(command, "TAKES_COMMAND", False) else (given[1:], [])
        args = parser.parse_args(own)
        args.command = following
        try:
            return _guarded(command, args, parser.prog)
        except WrongUse as error:
            parser.error(str(error))
    except SystemExit as end:  # how argparse answers --help and wrong use, all said already
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before the first ``--``, and what behind."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def _guarded(command: Command, args: argparse.Namespace, title: str) -> int:
    try:
        _check_environment()
        code = command.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `psync dump | head`: nobody reads on; closing now keeps the exit from complaining
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.close()
        return 1
    except (Failure, PsyncError, OSError, ImportError) as error:  # the last: redis-py is not installed
        print(f"{title}: {error}", file=sys.stderr)
        return TIMED_OUT if isinstance(error, WaitTimeout | LockTimeout) else 1
    return code


def _check_environment() -> None:
    from psync.engine.serialization import check_environment

    try:
        check_environment()
    except (ValueError, TypeError) as error:
        raise WrongUse(str(error)) from None


def _version() -> str:
    from importlib import metadata

    return metadata.version("psync")


def _parser(prog: str) -> argparse.ArgumentParser:
    lines = [f"  {name:10}{text}" for name, text in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [-h] [--version] command ...",
        description="\n".join(
            ["Look at and use what processes share: a directory, or a store on a server.", "", "commands:", *lines]
        ),
        epilog=f"`{prog} command --help` says more; {EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of the commands above")
    return parser


def _command(name: str) -> Command:  # noqa: PLR0912 (a table)
    """The module behind a command, imported only when it is asked for: `psync --help` must be quick."""
    match name:
        case "get":
            from psync.cli import get

            return get
        case "set":
            from psync.cli import assign

            return assign
        case "del":
            from psync.cli import delete

            return delete
        case "ls":
            from psync.cli import ls

            return ls
        case "wait":
            from psync.cli import wait

            return wait
        case "compress":
            from psync.cli import compress

            return compress
        case "lock":
            from psync.cli import lock

            return lock
        case "barrier":
            from psync.cli import barrier

            return barrier
        case "put":
            from psync.cli import put

            return put
        case "results":
            from psync.cli import results

            return results
        case "worker":
            from psync.cli import worker

            return worker
        case "run":
            from psync.cli import run

            return run
        case "status":
            from psync.cli import status

            return status
        case "top":
            from psync.cli import top

            return top
        case "doctor":
            from psync.cli import doctor

            return doctor
        case "copy":
            from psync.cli import copy

            return copy
        case "dump":
            from psync.cli import dump

            return dump
        case "load":
            from psync.cli import load

            return load
    from psync.cli import test

    return test
