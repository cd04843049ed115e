"""Allow list: lets a pickle look up the names on a list, and a few that do nothing.

A name on the list is ``module.name``, for that name alone, or ``module``, for the classes that are made in that module
(not for those that it imports, nor for its functions).

Not promised: that an allowed name is harmless. A pickle may call it with any arguments, and set attributes of the
result. So this is a second layer, for a store with trusted writers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psync.errors import ClassRefused

_PLAIN = frozenset(
    f"builtins.{name}"
    for name in "bool int float complex str bytes bytearray list tuple dict set frozenset range slice".split()
)
"""The builtins that pickles of plain values look up, in one protocol or another."""
_OWN = "psync.errors"
"""psync's own errors, which are rebuilt with their fields."""


class Allowed:
    """A list of names."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = _PLAIN | names

    def find(self, module: str, name: str, find_class: Callable[[str, str], Any]) -> Any:
        """Look a name up. Raises `ClassRefused`, before anything is imported, for a name that is not allowed."""
        whole = f"{module}.{name}"
        if whole in self._names:
            return find_class(module, name)
        if module in self._names or module in (_OWN, "builtins"):
            found = find_class(module, name)
            if self._is_allowed_in(module, found):
                return found
        raise ClassRefused(
            f"a pickle looks up {whole}, which is not on the allow list; nothing was called. If you trust its writer, "
            f"allow that name, too: allow=[..., {whole!r}], or the variable PSYNC_ALLOW",
            name=whole,
        )

    def _is_allowed_in(self, module: str, found: Any) -> bool:
        if module == "builtins" and module not in self._names:
            return isinstance(found, type) and issubclass(found, BaseException)
        rebuilds_errors = module == _OWN and getattr(found, "__name__", "") == "_rebuild"
        return rebuilds_errors or (isinstance(found, type) and found.__module__ == module)
