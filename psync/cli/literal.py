"""Python literals: decide which values can be printed and read back unchanged; print and read them."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from typing import Any

from psync.cli.errors import Failure

MAX_NESTING_LEVELS = 90
"""Python's own parser and printer surely bear this nesting."""


def why_not(value: Any) -> str | None:
    """Name the part of `value` that its printed form would not give back; None if there is none."""
    return _why_not(value, [])


def _why_not(value: Any, above: list[int]) -> str | None:
    kind = type(value)  # exactly: a subclass prints as something else, or reads back as its base
    if value is None or kind in (bool, str, bytes):
        return None
    if kind in (int, float, complex):
        return None if _same_number(value) else f"the number {_short(value)}"
    if kind not in (tuple, list, dict, set):
        return f"a {kind.__module__}.{kind.__qualname__}"
    if id(value) in above:
        return f"a {kind.__name__} that contains itself"
    if len(above) == MAX_NESTING_LEVELS:
        return f"a {kind.__name__} nested more than {MAX_NESTING_LEVELS} levels deep"
    inside = [*value, *value.values()] if kind is dict else value
    deeper = [*above, id(value)]
    return next(filter(None, (_why_not(part, deeper) for part in inside)), None)


def _same_number(value: complex) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    try:
        return repr(ast.literal_eval(repr(value))) == repr(value)
    except ValueError:  # nan, inf, or an int of more digits than Python converts
        return False


def shown(key: str, value: Any) -> str:
    """The pair as `pprint` prints it; also for a value whose own repr fails."""
    import pprint  # which costs more to import than the rest of the command line

    try:
        return pprint.pformat((key, value), sort_dicts=False)
    except Exception as error:  # a stranger's __repr__ may raise anything
        kind = type(value)
        return f"({key!r}, <{kind.__module__}.{kind.__qualname__} that can't be printed: {type(error).__name__}>)"


def pairs(text: str) -> Iterator[tuple[str, Any]]:
    """The keys and values in `text`, a list of pairs or a dict; nothing is run. Else `Failure`, naming the line."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        line = _short((error.text or "").strip())
        raise Failure(f"line {error.lineno or 1} is no Python literal: {line}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise Failure(f"this can't be read as a Python literal: {error}") from None
    for key_node, value_node in _nodes(tree):
        key = _value(key_node, "a key")
        if not isinstance(key, str):
            raise Failure(f"line {key_node.lineno}: a key must be a str, not {_short(key)}")
        yield key, _value(value_node, f"the value of {_short(key)}")


def _nodes(tree: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(tree, ast.Dict):
        for key, value in zip(tree.keys, tree.values, strict=True):
            if key is None:  # {**something}
                raise Failure(f"line {value.lineno} is no Python literal")
            yield key, value
    elif isinstance(tree, ast.List | ast.Tuple):
        for pair in tree.elts:
            if not isinstance(pair, ast.Tuple | ast.List) or len(pair.elts) != 2:
                raise Failure(f"line {pair.lineno}: a pair (key, value) should stand here")
            yield pair.elts[0], pair.elts[1]
    else:
        raise Failure("this is no dump: a dump is a list of pairs (key, value), or a dict")


def _value(node: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise Failure(f"line {node.lineno}: {what} is no Python literal: {_short(ast.unparse(node))}") from None


def _short(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:
        text = "of more digits than Python prints"
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"
