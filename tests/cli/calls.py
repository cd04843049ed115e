"""Calls that `psync worker` is given in tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

kept: list[bytes] = []


def pid() -> int:
    return os.getpid()


def nap(flag: str, seconds: float) -> str:
    """Leaves word that it has begun, with its pid."""
    Path(flag).write_text(str(os.getpid()))
    time.sleep(seconds)
    return "rested"


def grow(megabytes: int) -> int:
    kept.append(b"x" * (megabytes << 20))
    return os.getpid()


def die_once(flag: str) -> str:
    """Kills its worker the first time."""
    try:
        Path(flag).mkdir()
    except FileExistsError:
        return "the second time"
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def leave(code: int) -> None:
    os._exit(code)
