"""Bugs to plant under every primitive, so that a test can say that the schedules find them.

Each makes the engine keep less than its contract. That is what a primitive does which uses the verbs in the wrong way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from psync.engine.contract.log import Mark
from psync.engine.contract.values import Update
from psync.engine.memory.locks import MemoryWatch
from psync.engine.memory.log import MemoryLog
from tests.simulation.actor import SteppedEngine


def read_then_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parties share is changed by a read and a write, and others come in between."""

    def update(self: SteppedEngine, name: str, function: Update) -> bytes | None:
        cell = self.read(name)
        old = None if cell is None else cell.payload
        new = function(old)
        if new is not None and new is not old:
            self.write(name, new)
        return new

    monkeypatch.setattr(SteppedEngine, "update", update)


def look_before_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks, and only then begins to watch: what changes in between wakes nobody."""
    enter, pause = MemoryWatch.__enter__, MemoryWatch.pause

    def late(self: MemoryWatch, timeout: float | None) -> None:
        with enter(self):
            pause(self, timeout)

    monkeypatch.setattr(MemoryWatch, "__enter__", lambda self: self)
    monkeypatch.setattr(MemoryWatch, "pause", late)


def never_announce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of a change by `Engine.announce`."""
    monkeypatch.setattr(SteppedEngine, "announce", lambda self, name: None)


def answer_without_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is written before it is known whether the claim still holds."""
    settle = MemoryLog.settle

    def early(
        self: MemoryLog, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None
    ) -> bool:
        if before is not None:
            before()
        return settle(self, position, held, new)

    monkeypatch.setattr(MemoryLog, "settle", early)


def answer_after_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is done first, and then its answer is written: whoever dies in between has lost it."""
    settle = MemoryLog.settle

    def late(self: MemoryLog, position: int, held: Mark, new: Mark, before: Callable[[], Any] | None = None) -> bool:
        settled = settle(self, position, held, new)
        if settled and before is not None:
            before()
        return settled

    monkeypatch.setattr(MemoryLog, "settle", late)
