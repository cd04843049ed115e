"""Who is inside, counted by the test itself: it knows nothing of the primitive that lets them in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psync.engine import MemoryEngine
from tests.simulation.schedule import Schedule


class Occupancy:
    """The living who are inside. Whoever is killed in here is not, from that moment on."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._inside: list[MemoryEngine] = []

    def __len__(self) -> int:
        return len(self.now())

    def now(self) -> set[MemoryEngine]:
        return set(filter(self._schedule.lives, self._inside))

    @contextmanager
    def entered(self, engine: MemoryEngine) -> Iterator[None]:
        """Inside for the length of the block, which has a verb in the middle, so that others come by."""
        self._inside.append(engine)
        yield
        engine.read("elsewhere")
        self._inside.remove(engine)
