"""A mutex and a watch in memory: both sleep on the engine's one condition, by the engine's clock."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from psync.engine.contract.engine import Mutex, Watch

if TYPE_CHECKING:
    from psync.engine.memory.engine import MemoryEngine


class MemoryMutex(Mutex):
    def __init__(self, engine: MemoryEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._holder = self._token = 0

    def __repr__(self) -> str:
        holder = self._engine._space.mutexes.get(self._name)
        return f"<MemoryMutex {self._name!r} {f'held by owner {holder}' if holder else 'free'}>"

    def acquire(self, timeout: float | None = None) -> bool:
        engine = self._engine
        with engine._turn("acquire", self._name) as space:
            if not engine._until(lambda: self._name not in space.mutexes, timeout):
                return False
            self._holder = space.mutexes[self._name] = engine.owner()
            self._token = space.tokens[self._name] = space.tokens.get(self._name, 0) + 1
            return True

    @property
    def token(self) -> int:  # type: ignore[override]
        return self._token if self._engine._space.mutexes.get(self._name, -1) == self._holder else 0

    def release(self) -> None:
        with self._engine._turn("release", self._name) as space:
            if space.mutexes.get(self._name, -1) not in (self._engine.owner(), self._holder):
                raise RuntimeError("a mutex that is not held can't be released")
            del space.mutexes[self._name]
            space.turn.notify_all()

    def holder(self) -> int:
        with self._engine._turn("holder", self._name) as space:
            return space.mutexes.get(self._name, 0)


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
