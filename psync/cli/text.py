"""Text of values for a shell: a str is itself; any other value is JSON or a Python literal, by option."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any

from psync.cli.errors import Failure, WrongUse
from psync.errors import PsyncError

PLAIN, JSON, LITERAL = "plain", "json", "literal"


def typed() -> str:
    """The standard input. Bytes that are no UTF-8 are kept, as in arguments and file names."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def parsed(text: str, form: str) -> Any:
    """The value that `text` stands for. Raises `WrongUse`."""
    if form == PLAIN:
        return text
    try:
        if form == JSON:
            import json

            return json.loads(text, parse_constant=_refuse)
        import ast

        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        shown = text if len(text) <= 60 else f"{text[:50]} ... ({len(text)} characters)"
        kind = "JSON" if form == JSON else "a Python literal"
        raise WrongUse(f"this is not {kind}: {shown!r} (text needs quotes there, beside the shell's)") from None


def _refuse(name: str) -> Any:
    raise ValueError(name)


@contextlib.contextmanager
def unpickled(what: str) -> Iterator[None]:
    """In the block values are read; `Failure` if one can't be unpickled here."""
    try:
        yield
    except (PsyncError, OSError, Failure):
        raise
    except Exception as error:  # unpickling runs what the value asks for; a missing class is the usual one
        raise Failure(f"{what} can't be unpickled here: {type(error).__name__}: {error}") from None


def show(value: Any, what: str, form: str) -> None:
    """Print a value; `what` it is, for people. A str is printed as it is, and bytes too, without an end of line."""
    if form == PLAIN and isinstance(value, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
    else:
        say(shown(value, what, form), what)


def say(line: str, what: str) -> None:
    """Print a line; `what` names it for people. Bytes that are no UTF-8 go out as they came in."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        print(line)
    except UnicodeEncodeError as error:
        raise Failure(f"{what} can't be printed: {error}. Ask for --json, or set PYTHONIOENCODING=utf-8") from None


def shown(value: Any, what: str, form: str) -> str:
    """The value as text. `Failure` if it has no such form."""
    if form == PLAIN and isinstance(value, str):
        return value
    if form == JSON:
        return as_json(value, what)
    if form == LITERAL:
        from psync.cli import literal

        if wrong := literal.why_not(value):
            raise Failure(f"{what} has {wrong} in it, which has no form that could be read back")
    try:
        return repr(value)
    except Exception as error:  # a stranger's __repr__ may raise anything
        raise Failure(f"{what} can't be printed: {type(error).__name__}: {error}") from None


def as_json(value: Any, what: str) -> str:
    import json

    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Failure(f"{what} has no form in JSON: {error}. Leave out --json") from None
