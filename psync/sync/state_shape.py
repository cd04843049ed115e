"""State shape: tells whether what a register holds is a state of its primitive, before anything is done with it.

The annotations of the state's class say what it is made of: numbers, texts, tuples, dicts, and users' values (`Any`).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin, get_type_hints

Check = Callable[[Any], bool]


def fits(fields: object, state: type[tuple[Any, ...]]) -> bool:
    """Whether `fields` are those of the named tuple `state`, one after the other, each of its type."""
    checks = _checks(state)
    return isinstance(fields, tuple | list) and len(fields) == len(checks) and _all_fit(checks, fields)


@functools.cache
def _checks(state: type[tuple[Any, ...]]) -> tuple[Check, ...]:
    return tuple(_check(hint) for hint in get_type_hints(state).values())


def _all_fit(checks: tuple[Check, ...], values: tuple[Any, ...] | list[Any]) -> bool:
    return all(check(value) for check, value in zip(checks, values, strict=True))


def _check(hint: Any) -> Check:
    """The check for one annotation."""
    parts = get_args(hint)
    origin = get_origin(hint)
    if hint is Any:
        return lambda value: True
    if origin is tuple and parts[-1] is Ellipsis:
        each = _check(parts[0])
        return lambda value: isinstance(value, tuple) and all(map(each, value))
    checks = tuple(map(_check, parts))
    if origin is tuple:
        return lambda value: isinstance(value, tuple) and len(value) == len(checks) and _all_fit(checks, value)
    if origin is dict:
        return lambda value: isinstance(value, dict) and all(_all_fit(checks, item) for item in value.items())
    if origin in (Union, types.UnionType):
        return lambda value: any(check(value) for check in checks)
    return lambda value: isinstance(value, hint)
