"""Wait: watches the names, then reads, and only then pauses, so that it misses no change between read and pause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from psync.engine.contract.engine import Engine, Watch
from psync.errors import WaitTimeout
from psync.store.sentinels import NOT_YET

T = TypeVar("T")


class _NoWatch(Watch):
    def pause(self, timeout: float | None) -> None:
        """Nothing is waited for."""


def watched(engine: Engine, names: Sequence[str], timeout: float | None) -> AbstractContextManager[Watch]:
    """``engine.watch(names)``; but a wait of no time makes no watch, because a look should leave nothing behind."""
    return engine.watch(names) if timeout is None or timeout > 0 else nullcontext(_NoWatch())


def wait_for(engine: Engine, names: Sequence[str], look: Callable[[], T], timeout: float | None, awaited: str) -> T:
    """Return the first result of `look` that is not NOT_YET; it is called whenever one of `names` may have changed.

    Raises `WaitTimeout` after `timeout` seconds (None: never; 0: after one call).
    """
    found = look()
    if found is not NOT_YET:
        return found
    begun = engine.now()
    with watched(engine, names, timeout) as watch:
        while (found := look()) is NOT_YET:
            waited = engine.now() - begun
            if timeout is not None and waited >= timeout:
                raise WaitTimeout(
                    f"{awaited} within {timeout:g} seconds; is the process that should do that running, and on this "
                    "directory? Wait longer, or list the keys with keys()",
                    key=names[0] if len(names) == 1 else tuple(names),
                    waited=waited,
                )
            watch.pause(None if timeout is None else timeout - waited)
    return found
