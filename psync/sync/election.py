"""Election: makes one candidate the leader until it resigns, ends or dies; then another one leads.

The fact that decides: the grant of the engine's mutex, as with a `Lock`. To lead is to hold it.
"""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

from psync.sync.primitive import Place, Primitive
from psync.sync.wait import patience


class ElectionStatistics(NamedTuple):
    """Snapshot of an election: see `Election.statistics`."""

    leader: str | None
    """The leader, for people; None when there is none."""


class Election(Primitive):
    """A candidate for the lead.

    >>> import tempfile
    >>> election = Election(tempfile.mkdtemp(), "chief")
    >>> with election:  # campaigns until it leads, resigns in the end
    ...     election.is_leader()
    True

    Not promised: that a leader still runs while it leads; it may be stopped (SIGSTOP). Use `token` as a fencing token
    for its actions elsewhere: refuse a smaller one than the last.
    """

    _kind = "election"

    def __init__(self, db: Place, name: str) -> None:
        super().__init__(db, name)
        self._mutex = self._engine.mutex(f"{self._kind}/{name}")

    def campaign(self, timeout: float | None = None) -> bool:
        """Wait until this process leads: True; False if another one still leads after `timeout` seconds (None:
        never)."""
        return self.is_leader() or self._mutex.acquire(patience(True, timeout))

    def resign(self) -> None:
        """Let another candidate lead. Raises RuntimeError if this process does not lead."""
        if not self.is_leader():
            raise RuntimeError(f"this process does not lead {self.name!r}, so it can't resign")
        self._mutex.release()

    def is_leader(self) -> bool:
        """Tell whether this process leads. Costs no system call."""
        return self._mutex.token != 0

    def leader(self) -> str | None:
        """Describe the leader (pid, host, start time); None when there is none."""
        owner = self._mutex.holder()
        return self._engine.describe(owner) if owner else None

    @property
    def token(self) -> int:
        """While this process leads: a number larger than that of every lead before. Else 0."""
        self._mutex.check()
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
        """Return a snapshot; changes nothing."""
        return ElectionStatistics(self.leader())

    def _state(self) -> str:
        return f"led by {self.leader() or 'nobody'}"
