"""The `psync` command: each sub command has its own file here; this one finds it and turns errors into exit codes.

Exit codes: 0 it is done; 1 it said no or failed (the reason is on stderr, without a traceback);
2 it was called wrongly; 130 it was interrupted. This floor is the only one that prints.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Protocol

from psync.errors import PsyncError

COMMANDS = {
    "dump": "print every key and value, as Python literals",
    "load": "read what dump printed and store it",
    "test": "try out a directory: do processes that share it see each other's values?",
}

EPILOG = "exit codes: 0 done, 1 refused or failed, 2 wrong use, 130 interrupted"


class Failure(Exception):
    """The command can't do what was asked; its text is all that the user gets to see."""


class Command(Protocol):
    """What the module of a sub command has."""

    def options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None, prog: str = "psync") -> int:
    """Run one command line (`sys.argv` when None) and return its exit code; nothing is raised for what a user does."""
    try:
        chosen = _parser(prog).parse_args(sys.argv[1:] if argv is None else list(argv))
        command = _command(chosen.command)
        title = f"{prog} {chosen.command}"
        parser = argparse.ArgumentParser(prog=title, description=COMMANDS[chosen.command], epilog=EPILOG)
        command.options(parser)
        args = parser.parse_args(chosen.arguments)
    except SystemExit as end:  # how argparse answers --help and wrong use, all said already
        return end.code if isinstance(end.code, int) else 2
    return _guarded(command, args, title)


def _guarded(command: Command, args: argparse.Namespace, title: str) -> int:
    try:
        code = command.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `psync dump | head`: nobody reads on; closing now keeps the exit from complaining
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.close()
        return 1
    except (Failure, PsyncError, OSError) as error:
        print(f"{title}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser(prog: str) -> argparse.ArgumentParser:
    lines = [f"  {name:8}{text}" for name, text in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [-h] command ...",
        description="\n".join(["Look at and use a directory that processes share.", "", "commands:", *lines]),
        epilog=f"`{prog} command --help` says more; {EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of the commands above")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _command(name: str) -> Command:
    """The module behind a command, imported only when it is asked for: `psync --help` must be quick."""
    if name == "dump":
        from psync.cli import dump

        return dump
    if name == "load":
        from psync.cli import load

        return load
    from psync.cli import test

    return test
