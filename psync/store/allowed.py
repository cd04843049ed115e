"""Which names a pickle may look up, where there is a list: those on it, and a few that do nothing.

A name on the list is ``module.name``, for just that, or ``module``, for the classes that are made in that module (not
for what it imports, nor for its functions).

Not promised: that what is allowed is harmless. A pickle may call what it has looked up with any arguments, and set
attributes of what that gave. So this is a second layer, for a store to which only those who are trusted can write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psync.errors import ClassRefused

_PLAIN = frozenset(
    f"builtins.{name}"
    for name in "bool int float complex str bytes bytearray list tuple dict set frozenset range slice".split()
)
"""What values without a class of anybody's are made of, in one protocol or another."""
_OWN = "psync.errors"
"""Errors travel with their facts."""


class Allowed:
    """A list of names."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = _PLAIN | names

    def find(self, module: str, name: str, find_class: Callable[[str, str], Any]) -> Any:
        """What the pickle asks for. Raises `ClassRefused`, before anything is imported, for what is not allowed."""
        whole = f"{module}.{name}"
        if whole in self._names:
            return find_class(module, name)
        if module in self._names or module in (_OWN, "builtins"):
            found = find_class(module, name)
            if self._is_allowed_in(module, found):
                return found
        raise ClassRefused(
            f"a pickle asks for {whole}, which is not among what it may ask for; nothing was called. If you trust who "
            f"wrote it, allow that, too: allow=[..., {whole!r}], or the variable PSYNC_ALLOW",
            name=whole,
        )

    def _is_allowed_in(self, module: str, found: Any) -> bool:
        if module == "builtins" and module not in self._names:
            return isinstance(found, type) and issubclass(found, BaseException)
        rebuilds_errors = module == _OWN and getattr(found, "__name__", "") == "_rebuild"
        return rebuilds_errors or (isinstance(found, type) and found.__module__ == module)
