"""The rig leaves nothing behind, however the process ends that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STARTS = """
import subprocess, sys, time
from pathlib import Path
from tests.nfs.machines import Janitor

folder = Path(sys.argv[1])
(folder / "disk").touch()
janitor = Janitor(folder)
process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
janitor.started(process)
print(process.pid, flush=True)
time.sleep(1000)
"""


def until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_whoever_ends_the_tests_ends_the_machines(how: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "rig"
    folder.mkdir()
    tests = subprocess.Popen([sys.executable, "-c", STARTS, str(folder)], stdout=subprocess.PIPE, text=True)
    assert tests.stdout is not None
    machine = int(tests.stdout.readline())
    tests.send_signal(how)
    tests.communicate()
    until(lambda: not folder.exists())
    until(lambda: not Path(f"/proc/{machine}").exists())
