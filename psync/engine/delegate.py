"""Delegate a method of an object to one of its parts, without a Python call more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Delegate(Generic[P, R]):
    """`verb = Delegate("part", Part.verb)` in a class: ``self.verb`` is ``self.part.verb``.

    The first use binds the part's method in the instance's dict, where later uses find it: a call then goes straight to
    the part. So the part must not be replaced afterwards.
    """

    def __init__(self, part: str, method: Callable[Concatenate[Any, P], R]) -> None:
        self._part = part
        self._method = method

    def __set_name__(self, owner: type, name: str) -> None:
        """A method without a docstring gets the one of the verb that it implements."""
        self._name = name
        self._method.__doc__ = self._method.__doc__ or getattr(super(owner, owner), name).__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[P, R]:
        bound: Callable[P, R]
        if instance is None:  # for those who inspect the class
            bound = self._method  # type: ignore[assignment]
        else:
            bound = instance.__dict__[self._name] = getattr(getattr(instance, self._part), self._method.__name__)
        return bound
