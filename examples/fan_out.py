"""Count the words of every file under a folder, with workers that share nothing but a directory.

File names go into a queue, a batch to a task; the counts come back through the queue's mailbox, a letter to a task.
The same is then done by this process alone: both must agree. ``--kill`` kills a worker on the way, and they still do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
from pathlib import Path

from psync import WorkQueue


def count(names: list[str]) -> dict[str, int]:
    return {name: len(re.findall(rb"\w+", Path(name).read_bytes())) for name in names}


def work(shared: str) -> None:
    """What a worker does. It needs `shared` and nothing else: it could be started by hand, or on another host."""
    for task in WorkQueue(shared, "files"):
        with task:
            task.done(count(task.value))


def fan_out(names: list[str], shared: str, workers: int, kill: bool) -> dict[str, int]:
    queue = WorkQueue(shared, "files")
    tasks = queue.put_many([names[start : start + 32] for start in range(0, len(names), 32)])
    crew = [multiprocessing.get_context("spawn").Process(target=work, args=(shared,)) for _ in range(workers)]
    for worker in crew:
        worker.start()
    found: dict[str, int] = {}
    for arrived, (_, counts) in enumerate(queue.results.collect(tasks, timeout=600), start=1):
        found |= counts
        if kill and arrived == len(tasks) // 3 + 1:
            crew[0].kill()  # the task it holds goes back to the queue
    for worker in crew:
        worker.join()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="count the words of every file under a folder")
    parser.add_argument("folder", nargs="?", default=Path(argparse.__file__).parent, help="default: Python's library")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count(), help="how many processes")
    parser.add_argument("--dir", help="the directory they share (default: a temporary one)")
    parser.add_argument("--kill", action="store_true", help="kill a worker on the way (there are two at least)")
    options = parser.parse_args()
    names = [str(path) for path in Path(options.folder).rglob("*") if path.is_file()]
    names = [name for name in names if not re.search(r"-packages/|\.pyc$", name)]  # what was installed or compiled
    with tempfile.TemporaryDirectory() as scratch:
        found = fan_out(names, options.dir or scratch, max(options.workers, 1 + options.kill), options.kill)
    print(f"{sum(found.values()):,} words in {len(found):,} files under {options.folder}")
    print("the counts agree" if found == count(names) else sys.exit("the counts differ"))
