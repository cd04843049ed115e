"""One of the candidates leads, until it resigns, ends or dies; then another one does.

The fact that decides is who holds the engine's mutex, as with a `Lock`: to lead is to hold it.
"""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

from psync.sync.primitive import Place, Primitive
from psync.sync.wait import patience


class ElectionStatistics(NamedTuple):
    """What `Election.statistics` saw."""

    leader: str | None
    """Who leads, for people; None when nobody does."""


class Election(Primitive):
    """A candidate for the lead.

    >>> import tempfile
    >>> election = Election(tempfile.mkdtemp(), "chief")
    >>> with election:  # campaigns until it leads, resigns in the end
    ...     election.is_leader()
    True

    Not promised: that a leader still runs while it leads, it may be stopped. What it does elsewhere is fenced by
    `token`: refuse a smaller one than the last.
    """

    _kind = "election"

    def __init__(self, db: Place, name: str) -> None:
        super().__init__(db, name)
        self._mutex = self._engine.mutex(f"{self._kind}/{name}")

    def campaign(self, timeout: float | None = None) -> bool:
        """True once this process leads; False if another one still does after `timeout` seconds (None: never)."""
        return self.is_leader() or self._mutex.acquire(patience(True, timeout))

    def resign(self) -> None:
        """Let another one lead. RuntimeError if this process does not lead."""
        if not self.is_leader():
            raise RuntimeError(f"this process does not lead {self.name!r}, so it can't resign")
        self._mutex.release()

    def is_leader(self) -> bool:
        """Whether this process leads. Costs nothing."""
        return self._mutex.token != 0

    def leader(self) -> str | None:
        """Who leads (pid, host, since when that one runs); None when nobody does."""
        owner = self._mutex.holder()
        return self._engine.describe(owner) if owner else None

    @property
    def token(self) -> int:
        """While this process leads: a number larger than that of every lead before. Else 0."""
        return self._mutex.token

    def __enter__(self) -> Election:
        self.campaign()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.is_leader():
            self.resign()

    def statistics(self) -> ElectionStatistics:
        """A look that changes nothing."""
        return ElectionStatistics(self.leader())

    def _state(self) -> str:
        return f"led by {self.leader() or 'nobody'}"
