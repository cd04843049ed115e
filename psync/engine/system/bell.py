"""Bell: wakes a thread that waits for it; it may be rung by any thread, and by a call that interrupts that very wait.

`threading.Event` can't do that: its `set` waits for a lock that its interrupted `wait` holds. (And the `get` of a
`queue.SimpleQueue` never ends if a signal's handler outlasts its timeout.)
"""

from __future__ import annotations

import contextlib
import threading


class Bell:
    def __init__(self) -> None:
        self._silence = threading.Lock()
        """Locked until it rings."""
        self._silence.acquire()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has rung already
            self._silence.release()

    def wait(self, seconds: float) -> bool:
        """True as soon as it rings, or if it rang since the last wait; False after `seconds`."""
        return self._silence.acquire(timeout=max(seconds, 0.0))
