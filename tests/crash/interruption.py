"""Ctrl-C at each system call: the operation is done or it is not, nobody else is kept waiting, the process goes on."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from tests.crash.harness import (
    LONG,
    Lost,
    Operation,
    Reference,
    Seen,
    directory,
    finish,
    no_litter,
    place,
    shown,
    strike,
    undisturbed,
    unharmed,
)
from tests.crash.ptrace import Interrupt, Run
from tests.crash.small_process import in_small_process


@in_small_process
def interrupt_everywhere(operation: Operation, folder: object, *, stride: int = 2) -> Seen:
    """SIGINT, whose handler raises, before and after every `stride`-th call (of a long operation more seldom); then
    another handle looks and acts, while the one that was interrupted lives on; then that one tries again, if nothing
    was done.

    Before one call is not after the last one: what was asked for came back, but nobody has looked at it yet.
    """
    reference = undisturbed(operation, folder)
    seen = Seen()
    for n in itertools.count(1, stride if stride == 1 else max(stride, len(reference.calls) // LONG)):
        reached = False
        for fault in (Interrupt(n), Interrupt(n, after=True)):
            with directory(folder) as path:
                hit = strike(operation, path, fault, functools.partial(_go_on, operation, path, reference))
                if not hit.struck:
                    continue
                reached = True
                seen.points += 1
                where = place(operation, fault, hit)
                assert hit.error is None or isinstance(hit.error, KeyboardInterrupt), f"{where}: raised {hit.error!r}"
                seen.refused += hit.error is not None
                _fs(operation, path, hit, reference, seen, where)
        if not reached:
            return seen
    raise AssertionError("a count has no end")


def _go_on(
    operation: Operation, path: str, reference: Reference, thing: Any, error: BaseException | None
) -> tuple[Any, BaseException | None]:
    """In the child that was interrupted: what can others see and do, and does it go on itself?"""
    state = None
    if error is not None:
        error.__traceback__ = None  # whoever handles it lets go of what was under way, and so of what that has locked
    with operation.store(path) as other:
        operation.use(other)
        if not operation.looking_changes:
            state = operation.look(other)
    if error is None or state != reference.before or operation.silent:
        return state, None  # done, or nobody knows
    try:
        operation.act(thing)
    except BaseException as second:
        return state, second
    return state, None


def _fs(operation: Operation, path: str, hit: Run, reference: Reference, seen: Seen, where: str) -> None:
    state, second = hit.report
    if state is not None and state not in (reference.before, reference.after):
        raise Lost(f"{where}: found {shown(state)}, neither {shown(reference.before)} nor {shown(reference.after)}")
    if second is not None:
        raise AssertionError(f"{where}: tried again, it raised {second!r}") from second
    with unharmed(where):
        end, files = finish(operation, path)
    if end != reference.after and not (hit.error is not None and state is None and end == reference.before):
        raise Lost(f"{where}, and tried again: found {shown(end)}, not {shown(reference.after)}")
    no_litter(files, reference, where)
    seen.before += reference.before in (state, end)
    seen.after += reference.after in (state, end)
