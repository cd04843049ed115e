"""``psync top DIR`` shows it live in a terminal, and leaves the terminal as it was."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from psync import WorkQueue
from tests.cli.shell import ENVIRON, psync


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self.fd, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (20, 60))
        self.before = termios.tcgetattr(self.theirs)
        command = [sys.executable, "-m", "psync", *map(str, arguments)]
        ends = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        self.process = subprocess.Popen(command, env=ENVIRON, start_new_session=True, **ends)
        self.said = ""

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 30
        while text not in self.said:
            assert time.monotonic() < end, self.said
            if select.select([self.fd], [], [], 0.1)[0]:
                self.said += os.read(self.fd, 65536).decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self.theirs)


@pytest.mark.parametrize("end", ["q", "ctrl-c"])
def test_it_shows_what_changes_until_it_is_told_to_end(root: Path, end: str) -> None:
    queue = WorkQueue(root, "jobs")
    queue.put_many([1] * 23)
    terminal = Terminal("top", root, "--interval", "0.05")
    try:
        terminal.wait_for("23")
        queue.put_many([1] * 54)
        terminal.wait_for("77")
        assert "\x1b[?1049h" in terminal.said
        for frame in terminal.said.split("\x1b[H")[1:]:
            lines = frame.replace("\x1b[K", "").replace("\x1b[J", "").split("\n")
            assert len(lines) <= 20
            assert all(len(line.rstrip("\r")) < 60 for line in lines)
        if end == "q":
            os.write(terminal.fd, b"q")
        else:
            terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("\x1b[?1049l")
        assert terminal.process.wait(10) == 0
        assert termios.tcgetattr(terminal.theirs) == terminal.before
        assert "Traceback" not in terminal.said
    finally:
        terminal.close()


def test_without_a_terminal_it_prints_once(root: Path) -> None:
    WorkQueue(root, "jobs").put(1)
    ran = psync("top", root)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == psync("status", root).out
    assert "jobs" in ran.out


@pytest.mark.parametrize("arguments", [["--interval", "0"], ["--interval", "soon"], ["--json"]])
def test_wrong_use(root: Path, arguments: list[str]) -> None:
    ran = psync("top", root, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "error: " in ran.err
