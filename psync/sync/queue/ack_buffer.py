"""Answers that are recorded a moment later, many together: where a server is asked for each, that is most of the work.

What a loop's tasks came to is kept in memory. It is recorded before the loop claims others, waits, or is left; when so
much has gathered; after PATIENCE seconds, by the thread that looks after what is in hand (see `batches`); and before
this process looks at what it may have changed. The facts that decide are those of each answer (see `claims`): one whose
claim was given away meanwhile changes nothing.

Who is killed before that has not answered: those tasks run again, and have lost an attempt. So that a task that kills
who works on it costs each of the others one attempt at most, only first attempts are answered so.

A forked child has none of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from psync.engine.system import fork_hooks
from psync.errors import PsyncError
from psync.sync.queue.claims import Answer, Claims

PATIENCE = 0.05
"""Seconds for which an answer waits for others, at most; and for which what is in hand waits for a slow task."""
SHORTEST_LEASE = 20 * PATIENCE
"""Seconds: a shorter one could run out meanwhile."""
MANY, MUCH = 256, 1 << 20
"""Answers, or bytes of them, that are recorded at once, at most."""


class Behind:
    """The answers of this process to one queue's tasks that are not recorded yet."""

    def __init__(
        self, claims: Claims, now: Callable[[], float], *, remote: bool, look_after: Callable[[], object]
    ) -> None:
        self._claims = claims
        self._now = now
        self.used = remote and claims.max_attempts > 1 and not 0 < claims.lease < SHORTEST_LEASE
        """Whether that is worth while: else every answer is recorded at once."""
        self._look_after = look_after
        """Called when there is something: that a thread sees to it, if there may be one."""
        self._loops = 0
        self._answers: list[Answer] = []
        self._bytes = 0
        self._since = 0.0
        """When the first of them was given."""
        self.after_fork()
        fork_hooks.remember(self)

    def after_fork(self) -> None:
        self._loops = self._bytes = 0
        self._answers = []
        self._adding = threading.Lock()
        self._recording = threading.RLock()
        self._busy = False
        """Whether the thread that has `_recording` is at it."""

    def begin(self) -> None:
        """A loop has begun."""
        with self._adding:
            self._loops += 1

    def end(self) -> None:
        """A loop is over. Its answers are recorded, or it raises why not; then they may be later."""
        with self._adding:
            self._loops -= 1
        self.record()

    def add(self, answer: Answer) -> bool:
        """Record it in a moment; False if nobody would see to that: then it is for the caller to do."""
        with self._adding:
            if not self.used or self._loops <= 0:
                return False
            if not self._answers:
                self._since = self._now()
            self._answers.append(answer)
            self._bytes += len(answer.ops or b"")
            full = len(self._answers) >= MANY or self._bytes >= MUCH
        if full:
            self.record()
        elif len(self._answers) == 1:
            self._look_after()
        return True

    def record(self) -> None:
        """All that was added before this call is recorded, or given away. Raises what an answer raises; those that were
        not recorded are kept then, for the next call."""
        if not self._answers:
            return
        with self._recording:
            if self._busy:  # in this very thread: the collector ends a forgotten loop at any moment
                return
            self._busy = True
            try:
                answers = self._answers[:]
                self._claims.finish_all(answers)
                with self._adding:
                    del self._answers[: len(answers)]
                    self._bytes = sum(len(answer.ops or b"") for answer in self._answers)
                    self._since = self._now()
            finally:
                self._busy = False

    def record_quietly(self) -> None:
        with contextlib.suppress(PsyncError):  # the next call says so, or the tasks go back when this process ends
            self.record()

    def is_due(self, now: float) -> bool:
        """Whether the first of them has waited for so long that the next chance may come too late."""
        return bool(self._answers) and now - self._since >= PATIENCE / 2

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._answers)
