"""A reader that looks at a store while a writer stands still between two of its system calls."""

from __future__ import annotations

import itertools
from typing import Any

from tests.crash.harness import LONG, Lost, Operation, Seen, directory, place, shown, undisturbed
from tests.crash.ptrace import Pause, run
from tests.crash.second_process import second
from tests.crash.small_process import in_small_process


@in_small_process
def look_everywhere(operation: Operation, folder: object, *, network: bool = False) -> Seen:
    """Before each call (some, of a long operation) another process looks, with a handle it kept and with a new one.
    `network`: before each, and in the middle of every rename over a file, as an NFS client makes it.

    A reader may wait for a writer that is in the middle of something, but it sees old or new; `seen.waited` counts
    those that waited.
    """
    reference = undisturbed(operation, folder)
    seen = Seen()
    for n in itertools.count(1, 1 if network else 1 + len(reference.calls) // LONG):
        with directory(folder) as path:
            operation.prepared(path)
            with second(look_twice, lambda path=path: opened_and_looked(operation, path)) as reader:
                fault = Pause(n, reader.go, halfway=network)
                paused = run(operation.act, ready=lambda path=path: operation.opened(path), fault=fault)
                if not paused.struck:
                    break
                where = place(operation, fault, paused)
                assert paused.error is None, f"{where}: the writer raised {paused.error!r}"
                fine, states = reader.end()
                if not fine:
                    raise Lost(f"{where}: a reader raised {states}")
                for handle, state in states.items():
                    if state not in (reference.before, reference.after):
                        possible = f"{shown(reference.before)} or {shown(reference.after)}"
                        raise Lost(f"{where}: {handle} sees {shown(state)}, not {possible}")
                    seen.before += state == reference.before
                    seen.after += state == reference.after
                seen.points += 1
                seen.waited += reader.waited
    return seen


def opened_and_looked(operation: Operation, path: str) -> tuple[Operation, str, Any]:
    kept = operation.open(path)
    operation.look(kept)
    return operation, path, kept


def look_twice(found: tuple[Operation, str, Any]) -> dict[str, Any]:
    operation, path, kept = found
    return {"a kept handle": operation.look(kept), "a new handle": operation.look(operation.open(path))}
