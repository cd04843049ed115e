"""The terminal programs as a person sees them: typed into a shell in tmux, and its screen read."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from psync import WorkQueue
from tests.cli.shell import ENVIRON
from tests.support import files

if shutil.which("tmux") is None:
    pytest.skip("tmux is not installed", allow_module_level=True)

PATIENCE = 60.0
PROMPT = "shell>"
PSYNC = f"{shlex.quote(sys.executable)} -m psync"
_numbers = itertools.count()


class Screen:
    """A shell in a terminal of 80 columns and 24 lines."""

    def __init__(self) -> None:
        self._server = f"psync-{os.getpid()}-{next(_numbers)}"
        shell = ["env", f"PS1={PROMPT} ", "bash", "--norc", "--noprofile", "-i"]
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", "80", "-y", "24", shlex.join(shell))
        self.wait_for(PROMPT)

    def _tmux(self, *arguments: str) -> str:
        environ = {name: value for name, value in ENVIRON.items() if name != "TMUX"}
        command = ["tmux", "-u", "-L", self._server, *arguments]
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=30).stdout

    def type(self, line: str) -> None:
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def lines(self) -> list[str]:
        return self._tmux("capture-pane", "-p").rstrip("\n").split("\n")

    def wait_for(self, *texts: str) -> list[str]:
        """Until all of them are on the screen; returns its lines."""
        end = time.monotonic() + PATIENCE
        while True:
            lines = self.lines()
            if all(text in "\n".join(lines) for text in texts):
                return lines
            assert time.monotonic() < end, f"{texts} did not come to the screen:\n" + "\n".join(lines)
            time.sleep(0.05)

    def exit_code(self) -> int:
        """Of the last command, once the prompt is there."""
        self.type("echo ended with [$?]")
        lines = self.wait_for("\nended with [")
        return int(next(line for line in reversed(lines) if line.startswith("ended with"))[len("ended with [") : -1])

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def screen() -> Iterator[Screen]:
    found = Screen()
    yield found
    found.close()


@files
def test_top_fills_the_screen_follows_what_happens_and_gives_the_screen_back(screen: Screen, root: Path) -> None:
    queue = WorkQueue(root, "jobs")
    queue.put_many(range(23))
    screen.type("echo before")
    screen.wait_for("\nbefore")
    screen.type(f"{PSYNC} top {root} --interval 0.1")
    shown = screen.wait_for("psync top", "q ends", "jobs", "23")
    assert not any(PROMPT in line for line in shown)
    task = queue.get()
    screen.wait_for("22", f"pid {os.getpid()}")
    task.done()
    queue.put_many(range(54))
    screen.wait_for("76")
    screen.press("q")
    shown = screen.wait_for(PROMPT, "before")
    assert not any("q ends" in line for line in shown)
    assert screen.exit_code() == 0


@files
def test_ctrl_c_ends_a_run_which_says_what_is_left_and_goes_on_later(screen: Screen, root: Path) -> None:
    run = f"{PSYNC} run {root} -j 2 --resume -- 'test -e {root}-go || sleep 600; echo did {{}}'"
    screen.type(f"seq 5 | {run}")
    queue = WorkQueue(root, "run")
    end = time.monotonic() + PATIENCE
    while queue.statistics().running < 2:
        assert time.monotonic() < end, screen.lines()
        time.sleep(0.05)
    screen.press("C-c")
    screen.wait_for("interrupted", f"\n{PROMPT}")
    assert screen.exit_code() == 130
    go = Path(f"{root}-go")
    go.touch()
    try:
        screen.type(f"clear; seq 5 | {run}")
        shown = screen.wait_for(*(f"did {number}" for number in range(1, 6)), f"\n{PROMPT}")
        assert sum(line.startswith("did ") for line in shown) == 5
        assert screen.exit_code() == 0
    finally:
        go.unlink()


@files
def test_ctrl_c_ends_a_worker(screen: Screen, root: Path) -> None:
    screen.type(f"{PSYNC} worker {root} -j 2")
    queue = WorkQueue(root, "jobs")
    end = time.monotonic() + PATIENCE
    while queue.statistics().workers < 1:
        assert time.monotonic() < end, screen.lines()
        time.sleep(0.05)
    screen.press("C-c")
    shown = screen.wait_for("^C", f"\n{PROMPT}")
    assert not any("Traceback" in line for line in shown)
    assert screen.exit_code() in (0, 130)


@files
def test_progress_is_one_line_that_moves(screen: Screen, root: Path) -> None:
    program = root / "program.py"
    program.write_text(
        "import psync\n"
        "with psync.Executor(max_workers=2, progress=True) as executor:\n"
        "    found = sum(executor.map(abs, range(-40, 0), chunksize=1))\n"
        "print(found)\n"
    )
    screen.type(f"{shlex.quote(sys.executable)} {program}")
    shown = screen.wait_for("\n820\n", f"\n{PROMPT}")
    (line,) = (line for line in shown if "40" in line)
    assert "40 of 40 calls done" in line or "40/40" in line  # with tqdm it is a bar
    assert screen.exit_code() == 0
