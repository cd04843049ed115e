"""Foreign names: a listing passes over files that psync did not write, and tells all of them in one warning."""

from __future__ import annotations

import warnings

from psync.errors import CorruptValue

SHOWN = 10
"""The number of names that the warning lists."""


class ForeignNames:
    """The names of the files that hold no value, as far as a listing has met any."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def passes(self, error: CorruptValue) -> bool:
        """Take the name of a foreign file from the `error` that reading it raised; False if it is another error."""
        if error.foreign:
            self._names[error.key] = None
        return bool(error.foreign)

    def __str__(self) -> str:
        names = list(self._names)
        files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{files} not psync's, and still at the same place: {', '.join(map(repr, names[:SHOWN]))}{more}"

    def __bool__(self) -> bool:
        return bool(self._names)

    def tell(self, stacklevel: int) -> None:
        """Warn once, if there were any."""
        if self._names:
            warnings.warn(str(self), RuntimeWarning, stacklevel=stacklevel + 1)
