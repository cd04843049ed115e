"""An operation is struck at every system call it makes: what is found afterwards is all of before or all of after.

For a new operation, three lines (they stand in `test_harness`)::

    def test_a_killed_swap_leaves_one_of_both(root):
        swap = Operation("swap", act=swap_items, prepare=two_items, look=lambda db: db.hdict("pair"))
        assert kill_everywhere(swap, root).points

and `tests.crash.refusal.refuse_everywhere`, `tests.crash.interruption.interrupt_everywhere` and
`tests.crash.concurrent_reader.look_everywhere` take the same operation. The states before and after are not spelled
out: the harness prepares a directory and looks, prepares another, lets a child act undisturbed, and looks again. Every
strike then gets a directory of its own.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import itertools
import os
import random
import reprlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from psync import PickleShareDB
from tests.crash.ptrace import Fail, Fault, Halfway, Interrupt, Kill, Pause, Run, Short, Torn, run
from tests.crash.small_process import in_small_process

PROBE = "probe"
LONG = 12
"""Calls of an operation that not every kind of fault is tried on, at each of them."""
_short = reprlib.Repr()
_short.maxdict = _short.maxlist = _short.maxtuple = 40


def everything(db: Any) -> Any:
    """All keys and values, but for what `use` leaves."""
    return {key: value for key, value in db.items() if key != PROBE}


def use(db: Any) -> None:
    """The store goes on: a value is set, read and deleted."""
    db[PROBE] = "alive"
    assert db[PROBE] == "alive", "a store that was hit does not keep a new value"
    del db[PROBE]


def sweep(db: Any) -> None:
    db.sweep()


@dataclasses.dataclass(frozen=True)
class Operation:
    """What is struck. Every function gets an open store (but `act`: what `ready` returned)."""

    name: str
    act: Callable[[Any], object]
    prepare: Callable[[Any], object] = lambda db: None
    """What is there before."""
    look: Callable[[Any], Any] = everything
    """The state as a user sees it."""
    ready: Callable[[Any], Any] = lambda db: db
    """What the child does before it is watched; `act` gets its result."""
    use: Callable[[Any], object] = use
    """Goes on with what was hit. It may leave things that `look` does not show, and is itself killed now and then."""
    recover: Callable[[Any], object] = sweep
    silent: bool = False
    """True when nobody sees a difference: only how things are kept changes, or recovery would do the same."""
    looking_changes: bool = False
    """True when `look` takes things away, so that it is the last thing done to a directory."""
    says: str = ""
    """What the text of an error must name: the key."""
    spare: int = 0
    """So many files more may be in a folder afterwards: in place of one that the disk refused, which is left alone."""
    open: Callable[[str], Any] = PickleShareDB

    @contextlib.contextmanager
    def store(self, path: str) -> Iterator[Any]:
        db = self.open(path)
        try:
            yield db
        finally:
            if hasattr(db, "close"):
                db.close()

    def prepared(self, path: str) -> None:
        with self.store(path) as db:
            self.prepare(db)

    def opened(self, path: str) -> Any:
        """For the child: opens the store and gets ready."""
        return self.ready(self.open(path))


@dataclasses.dataclass(frozen=True)
class Reference:
    """What an undisturbed operation shows."""

    before: Any
    after: Any
    calls: list[str]
    files: dict[str, int]
    """Folder -> the most files that are in it before or after."""


@dataclasses.dataclass
class Seen:
    """What the strikes came upon: tests demand that both sides were seen."""

    points: int = 0
    torn: int = 0
    halfway: int = 0
    before: int = 0
    after: int = 0
    refused: int = 0
    waited: int = 0


def shown(state: Any) -> str:
    """A state for people: values of thousands of letters are cut."""
    return _short.repr(state)


class Lost(AssertionError):
    """The state found is neither the one before nor the one after."""


def undisturbed(operation: Operation, folder: object) -> Reference:
    """The states before and after, from two directories of their own. Also warms up every import.

    A run before them compiles the modules that are loaded late: later runs would not make the calls of that.
    """
    with directory(folder) as path:
        operation.prepared(path)
        run(operation.act, ready=lambda: operation.opened(path))
    with directory(folder) as path:
        operation.prepared(path)
        run(lambda thing: None, ready=lambda: operation.opened(path))
        before, files_before = finish(operation, path)
    with directory(folder) as path:
        operation.prepared(path)
        ended = run(operation.act, ready=lambda: operation.opened(path))
        if ended.error is not None:
            raise ended.error
        after, files_after = finish(operation, path)
    assert operation.silent == (before == after), f"{operation.name}: {shown(before)} became {shown(after)}"
    files = {name: max(files_before[name], files_after[name]) + operation.spare for name in files_before | files_after}
    return Reference(before, after, ended.calls, files)


@in_small_process
def kill_everywhere(
    operation: Operation, folder: object, *, stride: int = 2, again: int = 0, network: bool = False
) -> Seen:
    """kill -9 before and after every `stride`-th call and the last one, and in the middle of every write; of a long
    operation more seldom, unless `stride` is 1. `network`: in the middle of every rename over a file, too.

    After one call is before the next, so a stride of 2 leaves out no instant between two calls. Then `again` times
    the recovery from one of these kills is killed, too.
    """
    reference = undisturbed(operation, folder)
    if stride > 1:
        stride = max(stride, len(reference.calls) // LONG)
    seen = Seen()
    struck: list[Fault] = []
    for n in itertools.count(1):
        reached = (n - 1) % stride != 0 and n != len(reference.calls)
        faults: list[Fault] = [] if reached else [Kill(n), Kill(n, after=True)]
        if is_write(reference, n):
            faults += [Torn(n), Torn(n, last=True)]
        if network and any(call.startswith("rename(") for call in reference.calls[max(0, n - 6) : n + 5]):
            faults.append(Halfway(n))  # a first run may have made a call or two that others need not
        for fault in faults:
            with directory(folder) as path:
                hit = strike(operation, path, fault)
                if not hit.struck:
                    continue
                reached = True
                struck.append(fault)
                seen.points += 1
                seen.torn += isinstance(fault, Torn)
                seen.halfway += isinstance(fault, Halfway)
                _checked(operation, path, reference, seen, place(operation, fault, hit))
        if not reached:
            break
    chosen = random.Random(operation.name)
    for _ in range(again):
        _kill_recovery(operation, folder, reference, seen, chosen.choice(struck), chosen.random())
    return seen


def is_write(reference: Reference, n: int) -> bool:
    return n <= len(reference.calls) and reference.calls[n - 1].startswith(("write(", "pwrite64("))


def _kill_recovery(
    operation: Operation, folder: object, reference: Reference, seen: Seen, fault: Fault, share: float
) -> None:
    """The crash at `fault`, and then another when what comes after it has made this `share` of its calls."""

    def recover(path: str) -> None:
        db = operation.open(path)
        operation.use(db)
        operation.recover(db)

    with directory(folder) as path:
        strike(operation, path, fault)
        calls = len(run(recover, ready=lambda: path).calls)
    with directory(folder) as path:
        hit = strike(operation, path, fault)
        again = run(recover, ready=lambda: path, fault=Kill(1 + int(share * calls)))
        where = f"{place(operation, fault, hit)}; recovery killed before {again}"
        if again.error is not None:
            raise AssertionError(f"{where}: recovery raised {again.error!r}") from again.error
        seen.points += 1
        _checked(operation, path, reference, seen, where, look_first=False)


def _checked(
    operation: Operation, path: str, reference: Reference, seen: Seen, where: str, look_first: bool = True
) -> None:
    """Whole at first sight, whole and clean after recovery, and usable."""
    first = None
    if look_first and not operation.looking_changes:
        with unharmed(where), operation.store(path) as db:
            first = operation.look(db)
        _fs(first, reference, f"{where}: found")
    with unharmed(where):
        end, files = finish(operation, path)
    _fs(end, reference, f"{where}, then recovered: found")
    if first is not None and first != end:
        raise Lost(f"{where}: recovery turned {shown(first)} into {shown(end)}")
    no_litter(files, reference, where)
    seen.before += end == reference.before
    seen.after += end == reference.after


def _fs(found: Any, reference: Reference, where: str) -> None:
    if found not in (reference.before, reference.after):
        raise Lost(f"{where} {shown(found)}, which is neither {shown(reference.before)} nor {shown(reference.after)}")


# -- what every kind of strike is made of --------------------------------------------------------


def strike(operation: Operation, path: str, fault: Fault, after: Any = None) -> Run:
    """The operation in a child, with one fault, in a directory that is prepared for it."""
    operation.prepared(path)
    hit = run(operation.act, ready=lambda: operation.opened(path), after=after, fault=fault)
    assert not hit.hung, f"{place(operation, fault, hit)}: the child hung and had to be killed"
    if not hit.struck and hit.error is not None:
        raise AssertionError(f"{operation.name}: raised undisturbed: {hit.error!r}") from hit.error
    return hit


def place(operation: Operation, fault: Fault, hit: Run) -> str:
    """Operation, number and system call, for people."""
    match fault:
        case Kill(after=after):
            what = "killed after" if after else "killed before"
        case Torn() | Halfway():
            what = "killed in the middle of"
        case Fail(errno=code):
            what = f"refused with {errno.errorcode[code]} at"
        case Short():
            what = "cut short at"
        case Interrupt(after=after):
            what = "interrupted after" if after else "interrupted before"
        case Pause():
            what = "standing still before"
    return f"{operation.name}: {what} {hit}"


def finish(operation: Operation, path: str) -> tuple[Any, collections.Counter[str]]:
    """Use and recover with a new handle; the state and the files that are there then."""
    with operation.store(path) as db:
        operation.use(db)
        operation.recover(db)
        files = _files(path)
        return operation.look(db), files


def _files(path: str) -> collections.Counter[str]:
    """The user's files by name; psync's own by their folder, as their names are new in every run."""
    found: collections.Counter[str] = collections.Counter()
    for folder, _, names in os.walk(path):
        relative = os.path.relpath(folder, path)
        for name in names:
            found[relative if relative.startswith(".psync") else os.path.join(relative, name)] += 1
    return found


def no_litter(files: collections.Counter[str], reference: Reference, where: str) -> None:
    litter = {name: count for name, count in files.items() if count > reference.files.get(name, 0)}
    assert not litter, f"{where}: left after a sweep: {litter}, where an undisturbed run leaves {reference.files}"
    in_the_making = {name for name in files if name.endswith("/tmp")}
    assert not in_the_making, f"{where}: files remain in {in_the_making}"


@contextlib.contextmanager
def unharmed(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Lost(f"{where}: the store can't be used any more: {error!r}") from error


_numbers = itertools.count(1)


@contextlib.contextmanager
def directory(folder: object) -> Iterator[str]:
    """A directory of its own for one strike; it stays when something is wrong, to be looked at."""
    path = os.path.join(str(folder), f"store-{next(_numbers)}")
    os.mkdir(path, 0o700)
    yield path
    shutil.rmtree(path)
