"""Count the words of every file under a folder, with workers that share nothing but a directory.

File names go into a queue, a batch to a task; the counts come back through the queue's mailbox, a letter to a task.
The same is then done by this process alone: both must agree. ``--kill`` kills a worker on the way, and they still do.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import re
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from psync import WorkQueue

BATCH = 32  # files in a task: enough that fetching it costs nothing beside doing it
PASSED_OVER = {"site-packages", "dist-packages", "__pycache__"}  # what was installed or compiled into a library
Counts = dict[str, tuple[int, int, str]]  # file -> words, different words, SHA-256


def files_under(folder: str) -> list[str]:
    found: list[str] = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - PASSED_OVER)
        found += (os.path.join(here, file) for file in sorted(files))
    return [name for name in found if os.path.isfile(name) and os.access(name, os.R_OK)]


def count(names: list[str]) -> Counts:
    counts = {}
    for name in names:
        content = Path(name).read_bytes()
        words = re.findall(rb"\w+", content)
        counts[name] = len(words), len(set(words)), hashlib.sha256(content).hexdigest()
    return counts


def work(shared: str) -> None:
    """What a worker does. It needs `shared` and nothing else: it could be started by hand, or on another host."""
    for task in WorkQueue(shared, "files"):
        with task:
            task.done(count(task.value))


def fan_out(names: list[str], shared: str, workers: int, kill: bool) -> Counts:
    queue = WorkQueue(shared, "files")
    tasks = queue.put_many([names[start : start + BATCH] for start in range(0, len(names), BATCH)])
    crew = [multiprocessing.get_context("spawn").Process(target=work, args=(shared,)) for _ in range(workers)]
    for worker in crew:
        worker.start()
    found: Counts = {}
    for arrived, (_, counts) in enumerate(queue.results.collect(tasks, timeout=600), start=1):
        found |= counts
        if kill and arrived == len(tasks) // 3 + 1:
            crew[0].kill()  # the task it holds goes back to the queue
        print(f"\r{arrived} of {len(tasks)} tasks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for worker in crew:
        worker.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="count the words of every file under a folder")
    parser.add_argument("folder", nargs="?", default=sysconfig.get_paths()["stdlib"], help="default: Python's library")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--dir", help="the directory they share (default: a temporary one)")
    parser.add_argument("--kill", action="store_true", help="kill a worker on the way (there are two at least)")
    options = parser.parse_args()
    names = files_under(options.folder)
    workers = max(options.workers, 1 + options.kill)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        found = fan_out(names, options.dir or scratch, workers, options.kill)
    together = time.perf_counter() - start
    start = time.perf_counter()
    expected = count(names)
    alone = time.perf_counter() - start

    print(f"{sum(words for words, _, _ in found.values()):,} words in {len(found):,} files under {options.folder}")
    print(f"{workers} workers {together:.2f} s, one process {alone:.2f} s: {alone / together:.2f} times as fast")
    if found != expected:
        print("the counts differ", file=sys.stderr)
        return 1
    print("the counts agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
