"""How long `import psync` takes, beside PickleShare with the two libraries that psync stands on."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.harness import Bench, Case, Figure

TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def imported(bench: Bench) -> dict[str, float]:
    """Inside new interpreters. The first one writes the byte code, whatever the environment says, and is not timed."""
    return {"import": _best(bench, bench.peer.IMPORT), "import, store in hand": _best(bench, bench.peer.READY)}


def _best(bench: Bench, statement: str) -> float:
    environment = dict(os.environ, PYTHONPYCACHEPREFIX=os.path.join(bench.folder, "byte code"))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    took = []
    for _ in range(3):
        command = [sys.executable, "-c", TIMED.format(statement)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=bench.folder, env=environment)
        took.append(1e3 * float(done.stdout))
    return min(took[1:])


CASES = (
    Case(
        "startup",
        "import",
        imported,
        (Figure("import", "ms"), Figure("import, store in hand", "ms")),
        ("plain", "pickleshare"),
        rounds=9,
        quick_rounds=3,
        disk=False,
    ),
)
