"""Runner: runs the commands of a queue's tasks, several at a time, until all are done; runners share a queue.

A task's value is a command and its line of input (see `template`). Its result is a dict: line, command, code, stdout,
stderr, seconds, attempt, who. The result of an attempt that failed is a message in the mailbox ``<queue>/failed``, for
(id, attempt); a task that failed for good is dead.

When a runner is killed, each task whose command ran loses one attempt; its other claimed tasks lose nothing.
"""

from __future__ import annotations

import queue as stdlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from psync.errors import QueueClosed, StaleClaim
from psync.sync.mailbox import Mailbox
from psync.sync.queue.task import Task, attempt_since_revival
from psync.sync.queue.work_queue import WorkQueue, internals_of
from psync.work.shell.child_group import Children, Ended

SHORT_COMMAND_S, AHEAD_PER_SLOT = 0.02, 4
"""After a command that took no longer, this many tasks for each slot are prefetched."""
GIVE_BACK_S = 0.1
"""When no command has ended for this time, prefetched tasks go back to runners that may have a free slot."""
BUSY_POLL_S, IDLE_POLL_S = 0.05, 0.25
"""The time between two looks for tasks, while commands run and while none does."""
MAX_WAIT_S = 60.0


class Outcome(NamedTuple):
    """The last outcome of a command that ran here."""

    id: str
    result: dict[str, Any]


class Runner:
    """A runner runs commands of `queue` in this process: `slots` at once, each again up to `retries` times."""

    def __init__(
        self,
        queue: WorkQueue,
        command_of: Callable[[str], Sequence[str]],
        *,
        slots: int,
        retries: int = 0,
        limit: float | None = None,
    ) -> None:
        self.done = self.failed = self.given_back = 0
        """The numbers of commands that ended well here, failed for good, and were interrupted."""
        self.interrupted = False
        self._queue = queue
        self._internals = internals_of(queue)
        self._command_of = command_of
        """The template for tasks whose value is only a line."""
        self._slots = slots
        self._retries = retries
        self._limit = limit
        self._failures = Mailbox(queue.engine, f"{queue.name}/failed")
        self._who = queue.engine.describe(queue.engine.owner())
        self._prefetched: deque[Task] = deque()
        self._at: dict[int, tuple[Task, str, list[str]]] = {}
        """Running tasks by the number of their start."""
        self._started = 0
        self._ahead = AHEAD_PER_SLOT * slots
        self._next_look = 0.0

    def outcomes(self) -> Iterator[Outcome]:
        """Run all commands of the queue. A caller that stops iterating kills the running ones."""
        told = 0
        with Children(self._limit) as children:
            try:
                while True:
                    if not told:
                        self._fill(children)
                    if not children and (told or self._is_over()):
                        return
                    for ended in children.ended(self._patience(children)):
                        outcome = self._settle(ended, told > 0)
                        if outcome is not None:
                            yield outcome
                    if children.told > told:
                        self._stop(children, again=told > 0)
                        told = children.told
                        if told > 1:
                            return
            finally:
                self._give_back_prefetched()

    # -- taking and starting -----------------------------------------------------------------------------

    def _fill(self, children: Children) -> None:
        while len(children) < self._slots and (task := self._next(children)) is not None:
            try:
                value = task.value
            except StaleClaim:
                continue
            try:
                command, line = ([*self._command_of(value)], value) if isinstance(value, str) else value
                self._started += 1
                children.start(command, self._started)
            except (TypeError, ValueError, IndexError) as error:
                task.fail(f"this is no command: {value!r} ({error})")
                self.failed += 1
            else:
                self._at[self._started] = task, line, command

    def _next(self, children: Children) -> Task | None:
        if not self._prefetched:
            now = self._queue.engine.now()
            if now < self._next_look:
                return None
            idle = not len(children)
            try:
                if self._queue.empty() and (not idle or self._is_over()):
                    raise stdlib.Empty
                timeout = IDLE_POLL_S if idle else 0.0
                self._prefetched.extend(self._queue.get_many(self._share(children), timeout=timeout))
            except (stdlib.Empty, QueueClosed):
                self._next_look = 0.0 if idle else now + BUSY_POLL_S
                return None
        return self._prefetched.popleft()

    def _share(self, children: Children) -> int:
        free = self._slots - len(children)
        fair = self._queue.qsize() // self._internals.claims.workers
        return max(1, min(free + self._ahead, fair))

    def _patience(self, children: Children) -> float:
        if not children:
            return 0.0
        return GIVE_BACK_S if self._prefetched else BUSY_POLL_S if len(children) < self._slots else MAX_WAIT_S

    def _is_over(self) -> bool:
        return not self._prefetched and self._internals.priorities.finished()

    def _give_back_prefetched(self) -> None:
        if self._prefetched:
            self._prefetched.clear()
            self._internals.prefetched.give_back()

    # -- ending ------------------------------------------------------------------------------------------

    def _settle(self, ended: Ended, told: bool) -> Outcome | None:
        """Settle the task of a command that ended; None if it will run again."""
        self._ahead = AHEAD_PER_SLOT * self._slots if ended.seconds <= SHORT_COMMAND_S else 0
        task, line, command = self._at.pop(ended.key)
        try:
            if ended.code and told:
                task.retry("interrupted")
                self.given_back += 1
                return None
            result = {
                "line": line,
                "command": command,
                "code": ended.code,
                "stdout": text_of(ended.out),
                "stderr": text_of(ended.err),
                "seconds": round(ended.seconds, 6),
                "attempt": task.attempt,
                "who": self._who,
            }
            return self._ended_well(task, result) if not ended.code else self._ended_badly(task, result)
        except StaleClaim:
            return None  # the task was given to another runner meanwhile, whose result counts

    def _ended_well(self, task: Task, result: dict[str, Any]) -> Outcome:
        task.done(result)
        self.done += 1
        return Outcome(task.id, result)

    def _ended_badly(self, task: Task, result: dict[str, Any]) -> Outcome | None:
        self._failures.post((task.id, task.attempt), result)
        said = f"exit code {result['code']}: {result['stderr'].strip()}".rstrip(": ")
        if attempt_since_revival(task) <= self._retries:
            task.retry(said)
            return None
        task.fail(said)
        self.failed += 1
        return Outcome(task.id, result)

    def _stop(self, children: Children, *, again: bool) -> None:
        """Tell the running commands to end; at the second time, the caller's close of `children` kills them."""
        self.interrupted = True
        self._give_back_prefetched()
        if not again:
            children.tell()
            return
        for task, _, _ in self._at.values():
            task.retry("interrupted")
            self.given_back += 1


def text_of(data: bytes) -> str:
    """Decode a program's output; bytes that are no UTF-8 become lone surrogates, as in the names of files."""
    return data.decode("utf-8", "surrogateescape")
