"""Mutexes and watches in memory: both sleep on the one condition of the memory, by its clock."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from psync.engine.contract.engine import Mutex, Watch
from psync.engine.memory.turns import Turns
from psync.engine.system import fork_hooks


class MemoryMutex(Mutex):
    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name
        self._holder = self._token = 0
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        """Called in a forked child: the parent holds it, in this copy of the memory, too."""
        self._holder = 0

    def __repr__(self) -> str:
        holder = self._turns.state.mutexes.get(self._name)
        return f"<MemoryMutex {self._name!r} {f'held by owner {holder}' if holder else 'free'}>"

    def acquire(self, timeout: float | None = None) -> bool:
        turns = self._turns
        with turns.turn("acquire", self._name) as state:
            if not turns.until(lambda: self._name not in state.mutexes, timeout):
                return False
            self._holder = state.mutexes[self._name] = turns.owner()
            self._token = state.tokens[self._name] = state.tokens.get(self._name, 0) + 1
            return True

    @property
    def token(self) -> int:  # type: ignore[override]
        return self._token if self._turns.state.mutexes.get(self._name, -1) == self._holder else 0

    def release(self) -> None:
        with self._turns.turn("release", self._name) as state:
            if state.mutexes.get(self._name, -1) not in (self._turns.owner(), self._holder):
                raise RuntimeError("a mutex that is not held can't be released")
            del state.mutexes[self._name]
            state.condition.notify_all()

    def holder(self) -> int:
        with self._turns.turn("holder", self._name) as state:
            return state.mutexes.get(self._name, 0)


class MemoryWatch(Watch):
    """Its own context manager, so that it is registered from the moment of entering on."""

    def __init__(self, turns: Turns, names: Sequence[str], grace: float) -> None:
        self._turns = turns
        self._grace = grace
        self._names = frozenset(names)
        self.fired = False

    def __repr__(self) -> str:
        return f"<MemoryWatch of {', '.join(sorted(self._names)) or 'nothing'}>"

    def __enter__(self) -> MemoryWatch:
        with self._turns.turn("watch", " ".join(sorted(self._names))) as state:
            self.fired = False
            for name in self._names:
                state.watching.setdefault(name, set()).add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        state = self._turns.state
        with self._turns.alone():
            for name in self._names:
                watches = state.watching.get(name, set())
                watches.discard(self)
                if not watches:
                    state.watching.pop(name, None)

    def pause(self, timeout: float | None) -> None:
        with self._turns.turn("pause", " ".join(sorted(self._names))):
            self._turns.until(lambda: self.fired, self._grace if timeout is None else min(timeout, self._grace))
            self.fired = False
