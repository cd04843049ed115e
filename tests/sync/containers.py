"""A container that evaluates what it is told: the first process in a pid namespace of its own, so its pid is 1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import psync
from psync.engine.system.process_identity import boot_id, myself

WAYS = [["unshare"], ["unshare", "--user", "--map-root-user"]]
"""As root, or as anybody where the kernel lets users have namespaces."""
PIDS = ["--pid", "--fork", "--mount-proc", "--kill-child"]


def way() -> list[str] | str:
    """The command that makes a container, or why there is none here."""
    if shutil.which("unshare") is None:
        return "there is no unshare here (util-linux)"
    said = ""
    for begin in WAYS:
        tried = subprocess.run([*begin, *PIDS, "true"], check=False, capture_output=True, text=True, timeout=30)
        if tried.returncode == 0:
            return [*begin, *PIDS]
        said = tried.stderr.strip()
    return f"no pid namespace can be made here: {said}"


class Container:
    """One container, from outside."""

    def __init__(self, command: list[str], root: Path) -> None:
        self._process = subprocess.Popen(
            [*command, sys.executable, "-m", "tests.sync.containers", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        )
        self.facts: dict[str, Any] = self.hear()

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the container ended with {self._process.wait()}"
        fine, said = json.loads(line)
        assert fine, said
        return said

    def do(self, command: str) -> Any:
        """What the expression is there: of psync's names, `db`, and what ``keep(name, it)`` has kept."""
        self.tell(command)
        return self.hear()

    def kill(self) -> None:
        """kill -9 of the process that holds things, and with it its container."""
        self._process.kill()  # --kill-child: its child dies with it
        self._process.wait()

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def inside(root: str) -> None:
    me = myself(0.0)
    names: dict[str, Any] = {name: getattr(psync, name) for name in psync.__all__} | {"db": root}

    def keep(name: str, thing: Any) -> str:
        names[name] = thing
        return repr(thing)

    names["keep"] = keep
    say(True, {"pid": os.getpid(), "boot": boot_id(), "host": me.host, "namespace": me.namespace})
    for line in sys.stdin:
        try:
            said = eval(json.loads(line), names)
        except Exception:
            say(False, traceback.format_exc())
        else:
            say(True, said if isinstance(said, bool | int | float | str | list | None) else repr(said))


def say(fine: bool, said: Any) -> None:
    print(json.dumps([fine, said]), flush=True)


if __name__ == "__main__":
    inside(sys.argv[1])
