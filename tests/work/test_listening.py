"""The signal handlers of a worker, in processes that its calls fork."""

from __future__ import annotations

import os
import signal

from psync.engine.system import fork_hooks
from psync.work.worker import Listening


def test_a_child_that_is_told_before_its_fork_hooks_ran_ends_as_any_program() -> None:
    """`multiprocessing.Pool` ends its processes by SIGTERM, some of them in their first moment, and waits for them."""
    told: list[int] = []
    listening = Listening([signal.SIGTERM], lambda: told.append(1))
    try:
        fork_hooks._concerned.discard(listening)  # as if the signal came between the fork and the hook
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
        assert told == [1]  # here it still counts
    finally:
        listening.close()
