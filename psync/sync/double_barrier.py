"""Double barrier: lets all parties enter together, work, and leave together.

It is one `Barrier` whose rounds are by turns the way in and the way out (ZooKeeper's recipe of that name). So a party
that works inside is expected at the way out, and its death breaks the barrier.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from psync.sync.barrier.barrier import Barrier, BarrierStatistics
from psync.sync.primitive import Place, Primitive


class DoubleBarrier(Primitive):
    """A barrier at the beginning and one at the end of the work that `parties` do together.

    >>> import tempfile
    >>> with DoubleBarrier(tempfile.mkdtemp(), "step", parties=1) as step:
    ...     step.inside
    True
    """

    _kind = "double"

    def __init__(self, db: Place, name: str, parties: int) -> None:
        super().__init__(db, name)
        self._barrier = _Ways(self._engine, name, parties)
        self._entered = 0
        """The owner that entered through this handle; a forked child has not."""

    def _arguments(self) -> tuple[Any, ...]:
        return self.name, self._barrier.parties

    @property
    def parties(self) -> int:
        """The number of parties that have to come."""
        return self._barrier.parties

    @property
    def inside(self) -> bool:
        """Tell whether this party has entered and not left. Changes nothing."""
        return self._entered != 0 and self._entered == self._engine.owner()

    def enter(self, timeout: float | None = None) -> None:
        """Wait until all parties want to enter. Raises `BrokenBarrierError` as `Barrier.wait` does.

        Raises RuntimeError if this party is inside already.
        """
        if self.inside:
            raise RuntimeError(f"this party has entered {self.name!r} already: leave() comes first")
        self._barrier.wait(timeout)
        self._entered = self._engine.owner()

    def leave(self, timeout: float | None = None) -> None:
        """Wait until all parties want to leave. Raises `BrokenBarrierError` as `Barrier.wait` does.

        Raises RuntimeError if this party has not entered. In any case it is outside afterwards.
        """
        if not self.inside:
            raise RuntimeError(f"this party has not entered {self.name!r}, so it can't leave")
        self._entered = 0
        self._barrier.wait(timeout)

    def __enter__(self) -> DoubleBarrier:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Leave; after an exception, break the barrier: the others must not wait for work that was not done."""
        if error is None:
            self.leave()
        else:
            self._entered = 0
            self._barrier.abort()

    def reset(self) -> None:
        """Put all parties outside, so that they may enter; present waiters raise `BrokenBarrierError`."""
        self._entered = 0
        self._barrier.reset()

    def statistics(self) -> BarrierStatistics:
        """Return a snapshot; changes nothing."""
        return self._barrier.statistics()

    def _state(self) -> str:
        return self._barrier._state()


class _Ways(Barrier):
    """The barrier in a double barrier."""

    _kind = "double"
