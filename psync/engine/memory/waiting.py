"""A mutex and a watch in memory: both sleep on the engine's one condition, by the engine's clock."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from psync.engine.contract import Mutex, Watch

if TYPE_CHECKING:
    from psync.engine.memory.engine import MemoryEngine


class MemoryMutex(Mutex):
    def __init__(self, engine: MemoryEngine, name: str) -> None:
        self._engine = engine
        self._name = name

    def __repr__(self) -> str:
        holder = self._engine._space.mutexes.get(self._name)
        return f"<MemoryMutex {self._name!r} {f'held by owner {holder[0]}' if holder else 'free'}>"

    def acquire(self, timeout: float | None = None) -> bool:
        engine = self._engine
        with engine._turn("acquire", self._name) as space:
            if not engine._until(lambda: self._name not in space.mutexes, timeout):
                return False
            space.mutexes[self._name] = engine.owner(), self
            return True

    def release(self) -> None:
        with self._engine._turn("release", self._name) as space:
            if space.mutexes.get(self._name, (0, None))[1] is not self:
                raise RuntimeError(f"the mutex {self._name!r} is not held through this object")
            del space.mutexes[self._name]
            space.turn.notify_all()


class MemoryWatch(Watch):
    """Its own context manager, so that it is there from the moment of entering on."""

    def __init__(self, engine: MemoryEngine, names: Sequence[str]) -> None:
        self._engine = engine
        self._names = frozenset(names)
        self.fired = False

    def __repr__(self) -> str:
        return f"<MemoryWatch of {', '.join(sorted(self._names)) or 'nothing'}>"

    def __enter__(self) -> MemoryWatch:
        with self._engine._turn("watch", " ".join(sorted(self._names))) as space:
            self.fired = False
            for name in self._names:
                space.watching.setdefault(name, set()).add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        space = self._engine._space
        with space.turn:
            for name in self._names:
                watches = space.watching.get(name, set())
                watches.discard(self)
                if not watches:
                    space.watching.pop(name, None)

    def pause(self, timeout: float | None) -> None:
        grace = self._engine.grace
        with self._engine._turn("pause", " ".join(sorted(self._names))):
            self._engine._until(lambda: self.fired, grace if timeout is None else min(timeout, grace))
            self.fired = False
