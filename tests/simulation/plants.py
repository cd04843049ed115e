"""Bugs to plant into every primitive, so that a test can say that the schedules find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from psync.engine import Engine
from psync.store import codec, db
from psync.store.waiting import NOT_YET
from psync.sync import mailbox
from psync.sync.shared import Shared
from psync.sync.waiting import Waiter
from tests.simulation.actor import SteppedEngine


def read_then_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parties share is changed by a read and a write, and others come in between."""

    def change(self: Shared[Any], function: Callable[[Any], Any]) -> Any:
        register: Any = self._register
        before = self.look()
        after = function(before)
        if after is not before:
            register._engine.write(register._name, codec.dumps(tuple(after)))
        return after

    monkeypatch.setattr(Shared, "change", change)


def look_before_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks, and only then begins to watch: what changes in between wakes nobody."""

    def until(self: Waiter, look: Callable[[], Any], timeout: float | None, look_for_dead: Any = None) -> Any:
        return wait_for(self._engine, self._names, look, timeout, "")

    def wait_for(
        engine: Engine, names: Sequence[str], look: Callable[[], Any], timeout: float | None, awaited: str
    ) -> Any:
        while (found := look()) is NOT_YET:
            with engine.watch(names) as watch:
                watch.pause(timeout)
        return found

    monkeypatch.setattr(Waiter, "until", until)
    monkeypatch.setattr(db, "wait_for", wait_for)
    monkeypatch.setattr(mailbox, "wait_for", wait_for)


def never_announce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of a change by `Engine.announce`."""
    monkeypatch.setattr(SteppedEngine, "announce", lambda self, name: None)
