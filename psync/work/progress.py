"""How many of the calls are done, shown as it grows: a bar if `tqdm` is installed, a line now and then otherwise."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

MAX_LINES = 50
"""Without tqdm, the line is rewritten at most this many times."""


class Progress:
    """Counts futures. Shown on stderr."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._done = self._total = self._shown = 0
        try:
            from tqdm import tqdm  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            self._bar: Any = None
        else:
            self._bar = tqdm(total=0, unit="call")

    def watch(self, futures: Iterable[Future[Any]]) -> None:
        for future in futures:
            with self._lock:
                self._total += 1
                if self._bar is not None:
                    self._bar.total = self._total
            future.add_done_callback(self._one_more)

    def _one_more(self, future: Future[Any]) -> None:
        with self._lock:
            self._done += 1
            if self._bar is not None:
                self._bar.update()
            elif self._done == self._total or (self._done - self._shown) * MAX_LINES >= self._total:
                self._shown = self._done
                sys.stderr.write(f"\r{self._done} of {self._total} calls done")
                sys.stderr.flush()

    def close(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.close()
            elif self._total:
                sys.stderr.write("\n")
                sys.stderr.flush()
