"""The answers to a queue's tasks: a mailbox with a letter for each, by task id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from psync.engine.contract.bucket import Bucket
from psync.engine.contract.log import State
from psync.errors import CorruptValue, TaskFailed
from psync.store.category import Append, Category
from psync.store.sentinels import MISSING, NOT_YET
from psync.sync.mailbox import Mailbox
from psync.sync.queue.priorities import place_of_answer

if TYPE_CHECKING:
    from psync.sync.queue.work_queue import WorkQueue


class Results(Mailbox):
    """A queue's results by task id. A task done without a result answers None; one that is dead raises `TaskFailed`."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._setup(queue._beside, queue.name, queue._where + "/results", place_of_answer)

    def __reduce__(self) -> tuple[Any, ...]:
        return _results_of, (self._queue,)

    @property
    def _letters(self) -> Category:
        """What was answered here is recorded before anybody here looks for it."""
        self._queue._behind.record()
        return self._box

    def letter(self, id: str) -> Any:
        return self._box.get(id, fast_only=False)

    def write(self, id: str, ops: bytes, append: Append | None = None) -> bool:
        """Without looking whether there is one: the caller, or `append`, makes sure of the task's claim."""
        return self._box.set_pickled(id, ops, append)

    def growing(self, id: str) -> Bucket:
        """Where to append a letter, as in `write`; and then `grown`."""
        return self._box.growing(id)

    def grown(self, id: str, size: int) -> None:
        self._box.grown(id, size)

    def _watched(self, addresses: Iterable[Any]) -> list[str]:
        return [*super()._watched(addresses), self._queue._where + "/final"]

    def _without_letter(self, address: Any) -> Any:
        state = self._queue._state_of(address)
        if state is State.DEAD:
            raise self._failure(address)
        # looked at again, because the letter comes before the mark
        return NOT_YET if state is not State.DONE else self._answer(address)

    def _settled(self, missing: Iterable[Any]) -> list[tuple[Any, Any]]:
        states = {id: self._queue._state_of(id) for id in missing}
        found = [(id, self._answer(id)) for id, state in states.items() if state is State.DONE]
        dead = [id for id, state in states.items() if state is State.DEAD]
        if dead and not found and len(dead) == len(states):
            raise self._failure(dead[0])  # the others were yielded before
        return found

    def _answer(self, id: str) -> Any:
        """Of a task that is done: the letter, or None if it was done without one."""
        letter = self.letter(id)
        if letter is not MISSING:
            return letter
        if self._queue._was_answered(id):
            raise CorruptValue(
                f"the answer to task {id!r} is gone: it was taken away, or lost in a power cut; put the task once more",
                key=id,
                reason="the task was done with an answer, and there is none",
            )
        return None

    def _failure(self, id: str) -> TaskFailed:
        history = self._queue.history(id)
        if not history:
            text = f"task {id!r} was lost, in a power cut or to damage, and what became of it; put it once more"
        else:
            text = f"task {id!r} failed after {len(history)} attempts; the last time: {history[-1].error}"
        return TaskFailed(text, task=id, history=history)


def _results_of(queue: WorkQueue) -> Results:
    return queue.results
