"""The `psync` command: finds the sub command, parses its arguments, runs it, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from psync.cli.errors import EXIT_CODES, INTERRUPTED, TIMED_OUT, Failure, WrongUse
from psync.errors import LockTimeout, PsyncError, WaitTimeout

COMMANDS = {
    "get": "print the value of a key",
    "set": "store a value under a key",
    "del": "remove keys",
    "ls": "list the keys",
    "wait": "wait until keys exist, or until they are gone",
    "compress": "move a hashed category into one file",
    "lock": "run a command while holding a lock",
    "barrier": "wait until a number of processes have arrived",
    "put": "put tasks into a queue",
    "run": "run a command for each line of input",
    "results": "print the results of tasks",
    "worker": "run the calls that executors submit",
    "status": "show queues, locks and barriers, and the processes that use them",
    "top": "show the status again and again",
    "doctor": "examine a directory: report what works there and what does not, with remedies",
    "copy": "copy a whole store to another place",
    "dump": "print every key and value as Python literals",
    "load": "store what dump printed",
    "test": "try a directory out: check that processes sharing it see each other's values",
}
"""Every sub command, with the line that describes it."""

MODULES = {"set": "assign", "del": "delete"}
"""The module of a sub command in this package, where its name is not the command's: `set` is a builtin's name, `del` a
keyword."""


class Command(Protocol):
    """The interface of a sub command's module.

    If the module also has a true `TAKES_COMMAND`, the arguments after the first ``--`` are not parsed. They become
    `args.command`, a list, which is empty if there are none.
    """

    def options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None, prog: str = "psync") -> int:
    """Run one command line (`sys.argv` when None) and return its exit code.

    No mistake of the user's raises an exception.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        if given[:1] == ["--version"]:
            print(f"{prog} {_version()}")
            return 0
        # the parser of all commands costs a millisecond, and is needed for its help and its errors only
        name = given[0] if given and given[0] in COMMANDS else _parser(prog).parse_args(given[:1]).command
        command = command_module(name)
        # each added option makes a formatter, and one without a width imports shutil to ask the terminal
        narrow = functools.partial(argparse.HelpFormatter, width=80)
        parser = argparse.ArgumentParser(
            prog=f"{prog} {name}", description=COMMANDS[name], epilog=EXIT_CODES, formatter_class=narrow
        )
        command.options(parser)
        parser.formatter_class = argparse.HelpFormatter  # help and usage have the terminal's width
        own, following = _split(given[1:]) if getattr(command, "TAKES_COMMAND", False) else (given[1:], [])
        args = parser.parse_args(own)
        args.command = following
        try:
            return _guarded(command, args, parser.prog)
        except WrongUse as error:
            parser.error(str(error))
    except SystemExit as end:  # argparse has printed the help, or the error
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before the first ``--``, and those after it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def _guarded(command: Command, args: argparse.Namespace, title: str) -> int:
    try:
        _check_environment()
        code = command.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `psync dump | head`: nobody reads on. Closing stdout here keeps the exit from complaining
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.close()
        return 1
    except (Failure, PsyncError, OSError, ImportError) as error:  # ImportError: redis-py is not installed
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
            ["Use and inspect what processes share: a directory, or a store on a server.", "", "commands:", *lines]
        ),
        epilog=f"`{prog} command --help` says more; {EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of the commands above")
    return parser


def command_module(name: str) -> Command:
    """Import the module of a sub command, and none of the others: `psync --help` must be quick."""
    return cast(Command, importlib.import_module(f"psync.cli.{MODULES.get(name, name)}"))
