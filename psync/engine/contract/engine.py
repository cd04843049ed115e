"""What an engine promises: who wins, what a crash leaves, what is durable, what may be stale.

An engine keeps bytes under names. A name is a string of segments joined by ``/``. Three shapes:

* a **cell**: one name, one value, replaced whole;
* a **bucket**: one name, one dict that grows at its end (a cell that can be extended cheaply);
* a **log**: records in a row, each with a small *mark* that says how far it has come.

and beside them a mutex, a watch (learn that something may have changed), and owners (who am I,
is that one alive).

Rules that hold for every verb
------------------------------
*Atomic.* A verb happens whole or not at all, at one instant between its call and its return, for
threads, processes and (where the engine spans them) hosts alike: the history of all verbs on
one name is linearizable. ``kill -9`` at any instant leaves the state before or the state after;
what a killed verb leaves besides (a temporary file) is invisible and swept later.

*Failing.* A verb that raises ``StoreFull`` or ``StoreFailed`` changed nothing, and the same
process may go on once the cause is gone. Stored bytes that fail their check raise
``CorruptValue`` and stay kept; they are never returned, never deleted, never "missing".

*Durable.* What a verb did survives the death of any process. How much of a power cut, a handle's level says:

* ``"process"``: whatever the kernel has not written by itself is lost, and a file it wrote in part can be damaged.
  What fails its check is `CorruptValue`; what is no longer there may be the value before.
* ``"file"``: bytes are on the disk before they become visible; nothing is torn, and no old value is destroyed.
* ``"power"``: so are names, and the change itself: what a verb returned from is not lost.

At every level a verb that removes what it has just copied elsewhere (`Bucket.replace` with ``durable=True``, `move`,
`set_aside`) has the copy on the disk first. What could not be had there was not written: the verb raises `StoreFailed`,
and goes to another file next time, as the kernel gives up what it could not write and is silent when asked again. What
nobody needs after a power cut (mutexes, owners, who watches what) has no level. Of several processes whose changes of
one log have to reach the disk, one asks for all.

*Fresh.* A read that begins after a write has returned sees that write or a later one, on the same
host. (Between hosts: see the engine.)

*Payloads.* Cells and buckets hold pickle opcodes, so that any pickle reader can open the stored
file; the engine never unpickles, it only splices and checks. A log's payload is any bytes.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from psync.engine.contract.values import Alive, Cell, Durability, Format, Update, Version

if TYPE_CHECKING:
    from psync.engine.contract.bucket import Bucket, Position, Tail
    from psync.engine.contract.log import Log
    from psync.engine.contract.register import Register
    from psync.engine.contract.report import Facts, Process, Shape

_kept = itertools.count(1)


class Mutex(ABC):
    """Mutual exclusion that ends with its holder's process. Between threads too; not reentrant."""

    token: int
    """While this process holds the mutex: a number larger than that of every holding before. Else 0."""

    @abstractmethod
    def acquire(self, timeout: float | None = None) -> bool:
        """True once held; False after `timeout` seconds (0 looks once, None waits for ever)."""

    @abstractmethod
    def release(self) -> None:
        """Let the next one in. Raises RuntimeError if this process does not hold it."""

    @abstractmethod
    def holder(self) -> int:
        """The owner that holds the mutex, 0 if it is free. A look that changes nothing and waits for nobody."""


class Watch(ABC):
    """Learn that one of some names *may* have changed. Begin it, look, and only then pause: no change is missed."""

    @abstractmethod
    def pause(self, timeout: float | None) -> None:
        """Return when something may have changed, or after `timeout` seconds, or earlier for no reason."""


class Engine(ABC):
    """One directory (or one memory, or one server) full of names."""

    durability: Durability = "process"
    """The level of what is done through this one."""

    format: Format | None = None
    """How those above write values, kept for them; None as long as that was not agreed on."""

    signed: bool = False
    """Whether what is stored through this engine is signed with a key."""

    own_folders: Collection[str] = ("quarantine",)
    """The folders below ``.psync/`` that hold nothing that was stored: the engine's own files, and what was set
    aside."""

    def at(self, durability: Durability | None) -> Engine:
        """The same names, changed at another level of durability (None: this one); where there are no levels, itself.

        What has no level is shared: the owner, who waits, the mutexes. Close one of them, and all are closed.
        """
        return self

    # -- cells ---------------------------------------------------------------------------------

    @abstractmethod
    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        """The cell at `name`, or None when there is none. Returns `known` itself if it is still current.

        Never torn, mixed or stale. Raises `CorruptValue`.
        """

    @abstractmethod
    def write(self, name: str, payload: bytes) -> None:
        """`name` holds `payload` from now on, whatever it held. Creates folders as needed."""

    @abstractmethod
    def create(self, name: str, payload: bytes) -> bool:
        """Like `write`, but only if there is no such name: of any number of callers one gets True."""

    @abstractmethod
    def delete(self, name: str) -> bool:
        """`name` is gone; True for the one caller who removed it."""

    @abstractmethod
    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        """`delete`, and the last value it ever had: no write is lost between the two. None for who came late.

        `before` sees the value first; if it raises, nothing is removed. It must be short and not change the name.
        """

    @abstractmethod
    def move(self, name: str, new: str) -> bool:
        """`name` becomes `new`, which must not exist; True for the one caller who moved it."""

    @abstractmethod
    def update(self, name: str, function: Update) -> bytes | None:
        """Replace the payload by ``function(payload)``; nobody else writes in between. Returns the new payload.

        `function` gets None when there is no such name, and may be called again if another process creates
        or removes it meanwhile. Returning None, or the very object it was given, leaves the cell as it is.
        Other writers of the name wait, so it must be short, and must not change the same name itself.
        """

    @abstractmethod
    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        """(names, folders) directly in `folder`, bare and unsorted; both empty when there is no such folder."""

    @abstractmethod
    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        """Every name below `folder`, in no order. psync's own names (``.psync/...``) only if `hidden`.

        A name that exists during the whole call is listed; one that comes or goes meanwhile may be.
        """

    # -- the other shapes ----------------------------------------------------------------------

    @abstractmethod
    def bucket(self, name: str) -> Bucket:
        """The bucket at `name`, whose last segment has two characters; whether or not there is one yet."""

    def tails(self, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
        """Each name with its `Bucket.tail` since then; one after the other, in this order, or all at one instant."""
        for name, position in since.items():
            yield name, self.bucket(name).tail(position)

    @abstractmethod
    def append_all(self, ops: Mapping[str, bytes]) -> None:
        """`Bucket.append` to several buckets at one instant: who reads them sees all of it or nothing.

        Raises ValueError if one of them is foreign.
        """

    @abstractmethod
    def log(self, name: str) -> Log:
        """The log at `name`, whether or not there is one yet."""

    @abstractmethod
    def register(self, name: str) -> Register:
        """The register at `name`, whether or not it was ever set. A watch on its name learns of changes."""

    @abstractmethod
    def mutex(self, name: str) -> Mutex:
        """The mutex `name`; nobody holds one that was never used."""

    @abstractmethod
    def guard(self, name: str) -> AbstractContextManager[None]:
        """Mutual exclusion for long, rare work (a compaction), of threads, processes, hosts; ends with its holder."""

    # -- waiting and time ----------------------------------------------------------------------

    @abstractmethod
    def watch(self, names: Sequence[str], taking: str | None = None) -> AbstractContextManager[Watch]:
        """Watch `names` (cells, buckets, logs). What changes from the moment of entering on ends the next `pause`.

        What psync itself does to a name ends a pause at once; what other programs do, within `Engine.grace` seconds.

        `taking` is a log that the caller waits for to take from: of all who watch it so, as few may be woken as there
        are records to take. Who is woken takes; one that dies before it did leaves the others to their own looks.
        """

    @abstractmethod
    def announce(self, name: str) -> None:
        """End the pauses of all who watch `name`, though nothing stands or changes there."""

    @abstractmethod
    def now(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything, only in this process."""

    @abstractmethod
    def due(self, seconds: float) -> int:
        """The moment in so many `seconds`, as a number below 2**64 that can be kept, and asked `until` of by others."""

    @abstractmethod
    def until(self, due: int) -> float | None:
        """Seconds until the moment `due`, below 0 when it has passed; None if it was not set in this boot of this host.

        No jump of the wall clock changes it; the time during which the host sleeps counts.
        """

    @abstractmethod
    def give_way(self) -> None:
        """Let others run for a moment, if they can."""

    spin: float
    """Seconds for which it pays to look again and again, giving way in between, before a `pause`; 0: not at all."""

    remote: bool = False
    """Whether each verb asks a server, which many others ask: so look less often, and take more at once."""

    helpers: bool = True
    """Whether there may be threads beside the caller's own: not where a test owns the time, or draws who goes on."""

    grace: float
    """Seconds after which a `pause` returns by itself, to look for what nobody announced."""

    # -- owners --------------------------------------------------------------------------------

    @abstractmethod
    def owner(self) -> int:
        """This process as a number, registered on first use. It is alive until the process ends or closes the engine.

        A forked child is another owner.
        """

    @abstractmethod
    def at_leaving(self, farewell: Callable[[], object]) -> None:
        """Call the method `farewell` (kept weakly) when this process closes the engine or ends in order: before it
        is nobody any more. Who is killed says no farewell."""

    @abstractmethod
    def alive(self, owner: int) -> Alive:
        """Whether the process that got `owner` still runs and has not left. NO is a proof, never a guess.

        Of a number that no process has here, NO or UNKNOWN.
        """

    @abstractmethod
    def describe(self, owner: int) -> str:
        """`owner` for people: host, pid and since when, as far as is known."""

    # -- looking at the whole ------------------------------------------------------------------

    @abstractmethod
    def is_used(self) -> bool:
        """Whether psync ever did anything here."""

    @abstractmethod
    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        """All that is stored below `folder`, psync's own too: its shape and name, in no order, as it is found.

        Left out is what means nothing elsewhere (mutexes, owners, guards), and what was set aside. A name that exists
        during the whole call comes once or more often; one that comes or goes meanwhile may come.
        """

    @abstractmethod
    def facts(self, name: str) -> Facts | None:
        """What is known of the cell or bucket at `name`; None when there is none. Its bytes are not read."""

    @abstractmethod
    def mutexes(self) -> Sequence[str]:
        """The names of all mutexes that are held; perhaps of others, too."""

    @abstractmethod
    def processes(self) -> Sequence[Process]:
        """All that are owners here, and have not left in order."""

    # -- housekeeping --------------------------------------------------------------------------

    @abstractmethod
    def set_aside(self, name: str, reason: str, seen: Version | None = None) -> str | None:
        """Move the damaged bytes at `name` to quarantine and say where they are now.

        None, and nothing moves, if `name` can be read by now, or (`seen`) is not that version any more; with ``()``
        for `seen`, whatever stands there is moved.
        """

    def spare_damaged(self, when: Callable[[], bool]) -> None:  # noqa: B027 (an engine may have no such bytes)
        """Leave damaged bytes where they are while ``when()``: a verb that meets them only raises `CorruptValue`.

        An engine in memory has no damage but what a test makes, and moves that all the same.
        """

    def keep(self, name: str, data: bytes, reason: str) -> str | None:
        """Put `data`, damaged bytes that were found at `name` and can't be moved from there, into quarantine; say where
        they are. None if that can't be done."""
        refuge = f".psync/quarantine/{self.owner():x}.{next(_kept)}-{name.replace('/', '%2F')}"
        return refuge if self.create(refuge, data) else None

    @abstractmethod
    def sweep(self) -> int:
        """Remove what killed processes left (temporary files, dead owners nobody needs); returns how many."""

    @abstractmethod
    def close(self) -> None:
        """Give back descriptors. The engine opens them again if it is used once more."""
