"""Results: a mailbox with a message for each task that was done with a result, by task id.

A result is recorded before the status of its task (see `claims`). So a reader that finds no result and then the status
DONE looks for the result once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from psync.engine.contract.log import State
from psync.errors import CorruptValue, TaskFailed, UnreadableValue
from psync.store.category import Category
from psync.store.sentinels import MISSING, NOT_YET
from psync.sync.mailbox import Mailbox
from psync.sync.queue.task_index import TaskIndex


class HasResults(Protocol):
    """A work queue, which the results travel with when they are pickled."""

    name: str
    results: Results


class Results(Mailbox):
    """A queue's results by task id. A task done without a result answers None; one that is dead raises `TaskFailed`."""

    def __init__(self, queue: HasResults, final: str, index: TaskIndex, record_acks: Callable[[], object]) -> None:
        self._queue = queue
        self._index = index
        self._record_acks = record_acks
        self._final = final
        box = index.results
        self._set_up(box.engine, queue.name, box.name, box)

    def __reduce__(self) -> tuple[Any, ...]:
        return _results_of, (self._queue,)

    @property
    def _messages(self) -> Category:
        """Acknowledgements that this process has buffered are recorded before it reads."""
        self._record_acks()
        return self._box

    def _watched(self, addresses: Iterable[Any]) -> list[str]:
        return [*super()._watched(addresses), self._final]

    def _without_message(self, address: Any) -> Any:
        state = self._state(address)
        if state is State.DEAD:
            raise self._failure(address)
        return NOT_YET if state is not State.DONE else self._result(address)

    def _settled(self, missing: Iterable[Any]) -> list[tuple[Any, Any]]:
        states = {id: self._state(id) for id in missing}
        found = []
        for id, state in states.items():
            if state is State.DONE:
                with contextlib.suppress(UnreadableValue):  # it came a moment ago: it is told of when it is seen as new
                    found.append((id, self._result(id)))
        dead = [id for id, state in states.items() if state is State.DEAD]
        if dead and not found and len(dead) == len(states):
            raise self._failure(dead[0])  # all others were yielded before
        return found

    def _state(self, id: str) -> State | None:
        self._record_acks()
        return self._index.state(id)

    def _result(self, id: str) -> Any:
        """The result of a task that is done, or None if it was done without one."""
        result = self._box.get(id, fast_only=False)
        if result is not MISSING:
            return result
        if self._index.was_done_with_result(id):
            raise CorruptValue(
                f"the answer to task {id!r} is gone: it was taken away, or lost in a power cut; put the task once more",
                key=id,
                reason="the task was done with an answer, and there is none",
            )
        return None

    def _failure(self, id: str) -> TaskFailed:
        history = self._index.history(id)
        if not history:
            text = f"task {id!r} was lost, in a power cut or to damage, and what became of it; put it once more"
        else:
            text = f"task {id!r} failed after {history[-1].number} attempts; the last time: {history[-1].error}"
        return TaskFailed(text, task=id, history=history)


def _results_of(queue: HasResults) -> Results:
    return queue.results
