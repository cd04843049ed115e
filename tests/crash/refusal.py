"""The file system refuses: the operation changed nothing and says what to do, or is done; then the process goes on."""

from __future__ import annotations

import errno
import functools
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psync.engine.directory.fs.presence import GONE_ERRORS
from psync.errors import DirectoryGone, PsyncError, StoreFailed, StoreFull
from tests.crash.harness import (
    LONG,
    Lost,
    Operation,
    Reference,
    Seen,
    directory,
    finish,
    is_write,
    no_litter,
    place,
    shown,
    strike,
    undisturbed,
    unharmed,
)
from tests.crash.ptrace import Fail, Fault, Run, Short, run
from tests.crash.small_process import in_small_process
from tests.support import SCALE, scaled

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EMFILE,
    errno.EACCES,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
)


@in_small_process
def refuse_everywhere(operation: Operation, folder: object, errnos: tuple[int, ...] = REFUSALS) -> Seen:
    """Each call is refused with each of `errnos`, each write also cut short; then the same process tries again.

    Unless PSYNC_TEST_SCALE says more, with two of them, taken in turn; of a long operation with one, and not each.
    """
    reference = undisturbed(operation, folder)
    seen = Seen()
    long = len(reference.calls) > LONG
    each = min(scaled(1 if long else 2), len(errnos))
    for n in itertools.count(1, max(1, round(len(reference.calls) / (3 * LONG * SCALE)))):
        reached = False
        faults: list[Fault] = [Fail(n, errnos[(n + turn) % len(errnos)]) for turn in range(each)]
        if is_write(reference, n):
            faults.append(Short(n))
        for fault in faults:
            with directory(folder) as path:
                hit = strike(operation, path, fault, functools.partial(_go_on, operation, path, lambda: None, True))
                if not hit.struck:
                    continue
                reached = True
                seen.points += 1
                where = place(operation, fault, hit)
                if hit.error is not None:
                    assert isinstance(fault, Fail), f"{where}: {hit.error!r}, although a short write is no error"
                    seen.refused += 1
                    _helps(hit.error, fault.errno, path, operation.says, where)
                _got_over(operation, path, hit, reference, where)
        if not reached:
            return seen
    raise AssertionError("a count has no end")


def hinder(
    operation: Operation,
    disk: Path,
    elsewhere: Path,
    harm: Callable[[], object],
    heal: Callable[[], object],
    code: int,
    *,
    before_opening: bool = False,
    readable: bool = True,
) -> BaseException | None:
    """The operation on a `disk` to which `harm` was done: whole, or refused with `code` and done after `heal`.

    Returns the refusal, or None. What is expected is found out `elsewhere`. Unless the harm is of a kind that nothing
    can be read through, what is there is looked at before healing.
    """
    reference = undisturbed(operation, elsewhere)
    path = os.path.join(disk, "store")
    os.mkdir(path, 0o700)
    operation.prepared(path)

    def ready() -> Any:
        if before_opening:
            harm()
            return operation.opened(path)
        thing = operation.opened(path)
        harm()
        return thing

    hit = run(operation.act, ready=ready, after=functools.partial(_go_on, operation, path, heal, readable))
    where = f"{operation.name} on a disk that gives {errno.errorcode[code]}"
    if hit.error is not None:
        _helps(hit.error, code, path, operation.says, where)
    _got_over(operation, path, hit, reference, where)
    return hit.error


def _go_on(
    operation: Operation,
    path: str,
    heal: Callable[[], object],
    readable: bool,
    thing: Any,
    error: BaseException | None,
) -> tuple[Any, BaseException | None]:
    """In the child that was refused: what is there, and does it work now?"""
    state = None
    if not readable:
        heal()
    if not operation.looking_changes:
        with operation.store(path) as other:
            state = operation.look(other)
    heal()
    try:
        if error is not None:
            operation.act(thing)
    except BaseException as second:
        return state, second
    return state, None


def _helps(error: BaseException, code: int, path: str, key: str, where: str) -> None:
    """`error` is of psync's tree, of the right class, and names key, path and remedy."""
    expected = StoreFull if code in FULL else StoreFailed
    assert isinstance(error, expected), f"{where}: raised {error!r}, not {expected.__name__}"
    assert isinstance(error, OSError), f"{where}: {error!r} is no OSError"
    if isinstance(error, DirectoryGone):
        assert code in GONE_ERRORS, f"{where}: {errno.errorcode[code]} does not say that the directory is gone"
        assert error.directory == path, f"{where}: {error!r} names another directory"
        return
    assert isinstance(error, PsyncError), f"{where}: {error!r} is not of psync's tree"
    assert error.errno == code, f"{where}: errno {error.errno}, not {errno.errorcode[code]}, in {error!r}"
    text = str(error)
    assert key in text, f"{where}: the key {key!r} is not named in {text!r}"
    assert path in text, f"{where}: the path {path} is not named in {text!r}"
    assert "; " in text, f"{where}: no remedy is named in {text!r}"


def _got_over(operation: Operation, path: str, hit: Run, reference: Reference, where: str) -> None:
    state, second = hit.report
    if second is not None:
        raise AssertionError(f"{where}: raised {hit.error!r}, and again without a fault {second!r}") from second
    expected = reference.after if hit.error is None else reference.before
    if state is not None and state != expected:
        said = "returned" if hit.error is None else f"raised {hit.error!r}"
        raise Lost(f"{where}: {said}, but found {shown(state)} instead of {shown(expected)}")
    with unharmed(where):
        end, files = finish(operation, path)
    if end != reference.after:
        raise Lost(f"{where}, at last without a fault: found {shown(end)}, not {shown(reference.after)}")
    no_litter(files, reference, where)
