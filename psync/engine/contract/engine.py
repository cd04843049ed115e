"""The contract of an engine states its promises: atomicity, crash states, durability and freshness.

An engine keeps bytes under names. A name is a string of segments joined by ``/``. Three shapes:

* a **cell**: one name, one value, replaced whole;
* a **bucket**: one name, one dict that grows at its end (a cell that can be extended cheaply);
* a **log**: records in a row, each with a small *mark* that says how far it has come.

and three things more: a mutex, a watch (it tells that something may have changed), and owners (the
identities of processes, and whether each of them is alive).

Rules that hold for every verb
------------------------------
*Atomic.* A verb happens whole or not at all, at one instant between its call and its return, for
threads, processes and (where the engine spans them) hosts alike: the history of all verbs on
one name is linearizable. ``kill -9`` at any instant leaves the state before or the state after;
a killed verb may also leave a temporary file, which is invisible and swept later.

*Failing.* A verb that raises ``StoreFull`` or ``StoreFailed`` changed nothing, and the same
process may go on once the cause is gone. Stored bytes that fail their check raise
``CorruptValue`` and stay kept; they are never returned, never deleted, never "missing".

*Durable.* A change survives the death of any process. A handle's level says how much of it survives a power cut:

* ``"process"``: bytes that the kernel has not written by itself are lost, and a file it wrote in part can be damaged.
  Bytes that fail their check raise `CorruptValue`; in place of lost bytes, the value before may show.
* ``"file"``: bytes are on the disk before they become visible; nothing is torn, and no old value is destroyed.
* ``"power"``: names are on the disk, too, and so is the change itself: once the verb has returned, it is not lost.

At every level a verb that removes what it has just copied elsewhere (`Bucket.replace` with ``durable=True``, `move`,
`set_aside`) has the copy on the disk first. After a failed fsync the change counts as not written: the verb raises
`StoreFailed`, and takes another file next time, because the kernel gives up the pages that it could not write, and a
second fsync reports success. State that nobody needs after a power cut (mutexes, owners, watches) has no level. When
several processes need their changes of one log on the disk, one fsync serves all.

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
    """A mutex excludes other processes and threads until its holder releases it or its holder's process ends. Not
    reentrant."""

    token: int
    """While this process holds the mutex: a number larger than that of every holding before. Else 0."""

    @abstractmethod
    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the mutex: True once it is held; False after `timeout` seconds (0 looks once, None waits for
        ever)."""

    @abstractmethod
    def release(self) -> None:
        """Let the next one in. Raises RuntimeError if this process does not hold it."""

    def check(self) -> None:
        """Raise `StoreFailed` if this process held the mutex, and has lost it: its directory is gone, say."""
        return None

    @abstractmethod
    def holder(self) -> int:
        """Return the owner that holds the mutex, 0 if it is free. This changes nothing and waits for nobody."""


class Watch(ABC):
    """A watch tells that one of some names *may* have changed. A waiter that enters it, then reads, and only then
    pauses misses no change."""

    @abstractmethod
    def pause(self, timeout: float | None) -> None:
        """Return when something may have changed, or after `timeout` seconds, or earlier for no reason."""


class Engine(ABC):
    """One directory (or one memory, or one server) full of names."""

    durability: Durability = "process"
    """The level of the changes that are made through this engine."""

    format: Format | None = None
    """The serializer of the floors above, kept for them; None as long as none was agreed on."""

    signed: bool = False
    """Whether this engine signs the stored bytes with a key."""

    own_folders: Collection[str] = ("quarantine",)
    """The folders below ``.psync/`` that hold nothing that a caller stored: the engine's own files, and the damaged
    bytes that were set aside."""

    def at(self, durability: Durability | None) -> Engine:
        """Return an engine for the same names at another level of durability (None: this one); itself if it has no
        levels.

        The two share all that has no level: the owner, the waiters, the mutexes. Closing one of them closes all.
        """
        return self

    # -- cells ---------------------------------------------------------------------------------

    def is_gone(self) -> bool:
        """Tell whether its place is gone for good: then all verbs that change something raise `StoreFailed`."""
        return False

    @abstractmethod
    def read(self, name: str, known: Cell | None = None) -> Cell | None:
        """Read the cell at `name`, or None when there is none. Returns `known` itself if it is still current.

        The value is never torn, mixed or stale. Raises `CorruptValue`.
        """

    @abstractmethod
    def write(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> None:
        """Make `name` hold `payload`, whatever it held before. Creates folders as needed.

        With `spare_bucket` a category's items are safe: `InvalidKey`, and nothing is changed, if a bucket stands at
        `name`, or may come there because its folder holds other buckets (see `contract.bucket.is_bucket_name`).
        """

    @abstractmethod
    def create(self, name: str, payload: bytes, *, spare_bucket: bool = False) -> bool:
        """Write only if there is no such name: one of any number of callers gets True. `spare_bucket`: as in `write`;
        whatever stands at `name` gives False."""

    @abstractmethod
    def delete(self, name: str, *, spare_foreign: bool = False) -> bool:
        """Remove `name`; True for the one caller that removed it.

        With `spare_foreign`, a file that psync did not write stays: `CorruptValue`, with its field `foreign` set.
        """

    @abstractmethod
    def pop(self, name: str, before: Callable[[Cell], object] | None = None) -> Cell | None:
        """Remove `name` and return the last value it ever had: no write is lost between the two. None for a late
        caller.

        `before` gets the value first; if it raises, nothing is removed. It must be short and not change the name.
        """

    @abstractmethod
    def move(self, name: str, new: str) -> bool:
        """Rename `name` to `new`, which must not exist; True for the one caller that moved it."""

    @abstractmethod
    def update(self, name: str, function: Update, *, spare_bucket: Callable[[], bool] | None = None) -> bytes | None:
        """Replace the payload by ``function(payload)``; nobody else writes in between. Returns the new payload.

        `function` gets None when there is no such name, and may be called again if another process creates
        or removes it meanwhile. Returning None, or the very object it was given, leaves the cell as it is.
        Other writers of the name wait, so it must be short, and must not change the same name itself.
        `spare_bucket` is asked after `function`; if it says so, the rule of `write` holds.
        """

    @abstractmethod
    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        """List (names, folders) directly in `folder`, bare and unsorted; both empty when there is no such folder."""

    @abstractmethod
    def list(self, folder: str = "", *, hidden: bool = False) -> Iterator[str]:
        """Yield every name below `folder`, in no order. psync's own names (``.psync/...``) come only if `hidden`.

        A name that exists during the whole call is listed; one that comes or goes meanwhile may be.
        """

    # -- the other shapes ----------------------------------------------------------------------

    @abstractmethod
    def bucket(self, name: str) -> Bucket:
        """Return the bucket at `name`, whose last segment has two characters; whether or not there is one yet."""

    def tails(self, since: Mapping[str, Position | None]) -> Iterator[tuple[str, Tail | None]]:
        """Yield each name with its `Bucket.tail` since then, one after the other, in this order, or all at one
        instant."""
        for name, position in since.items():
            yield name, self.bucket(name).tail(position)

    @abstractmethod
    def append_all(self, ops: Mapping[str, bytes]) -> None:
        """Append to several buckets at one instant: a reader sees all of the appends or none of them.

        Raises `ForeignBucket`, a ValueError, if one of them is foreign.
        """

    @abstractmethod
    def log(self, name: str) -> Log:
        """Return the log at `name`, whether or not there is one yet."""

    @abstractmethod
    def register(self, name: str) -> Register:
        """Return the register at `name`, whether or not it was ever set. A watch on its name learns of changes."""

    @abstractmethod
    def mutex(self, name: str) -> Mutex:
        """Return the mutex `name`; nobody holds one that was never used."""

    @abstractmethod
    def guard(self, name: str) -> AbstractContextManager[None]:
        """Hold a lock for long, rare work (a compaction). It excludes threads, processes and hosts, and ends with its
        holder."""

    # -- waiting and time ----------------------------------------------------------------------

    @abstractmethod
    def watch(self, names: Sequence[str], taking: str | None = None) -> AbstractContextManager[Watch]:
        """Watch `names` (cells, buckets, logs). A change after the moment of entering ends the next `pause`.

        A change by psync ends a pause at once. A change by another program ends it within `Engine.grace` seconds.

        `taking`: a log to take from. At most one waiter is woken per available record. A woken waiter takes; if it dies
        before that, the others find the record when they read by themselves, within `Engine.grace` seconds.
        """

    @abstractmethod
    def announce(self, name: str) -> None:
        """End the pauses of all watches on `name`, though nothing stands or changes there."""

    @abstractmethod
    def now(self) -> float:
        """Return the seconds of a clock that never goes back. Only differences mean anything, and only in this
        process."""

    @abstractmethod
    def due(self, seconds: float) -> int:
        """Return a deadline `seconds` from now, as a number below 2**64 that can be stored; any process can ask
        `until`."""

    @abstractmethod
    def until(self, due: int) -> float | None:
        """Return the seconds until the deadline `due`, below 0 when it has passed; None if it was not set in this boot
        of this host.

        No jump of the wall clock changes it. Time during which the host sleeps counts.
        """

    @abstractmethod
    def give_way(self) -> None:
        """Yield the processor to other threads and processes for a moment, if there are any."""

    spin: float
    """Seconds for which a waiter should spin, giving way in between, before a `pause`; 0: not at all."""

    read_only: bool = False
    """This user may only read here: a verb that would change something raises `StoreFailed`."""

    remote: bool = False
    """Whether each verb is a request to a server with many clients. Callers then poll less often, and take more at
    once."""

    helpers: bool = True
    """Whether psync may start helper threads. Not where a test owns the time, or chooses the thread that runs next."""

    grace: float
    """Seconds after which a `pause` returns by itself, so that the waiter finds changes that nobody announced."""

    # -- owners --------------------------------------------------------------------------------

    @abstractmethod
    def owner(self) -> int:
        """Return this process's number, registered on first use. It is alive until the process ends or closes the
        engine.

        A forked child is another owner.
        """

    @abstractmethod
    def at_leaving(self, farewell: Callable[[], object]) -> None:
        """Register the method `farewell` (kept weakly): it is called when this process closes the engine or ends in
        order, while its number is still alive. A killed process calls nothing."""

    @abstractmethod
    def alive(self, owner: int) -> Alive:
        """Tell whether the process that got `owner` still runs and has not left. NO is a proof, never a guess.

        For an unknown number: NO or UNKNOWN.
        """

    @abstractmethod
    def describe(self, owner: int) -> str:
        """Describe `owner` for people: host, pid and start time, as far as is known."""

    # -- looking at the whole ------------------------------------------------------------------

    @abstractmethod
    def is_used(self) -> bool:
        """Tell whether psync ever did anything here."""

    @abstractmethod
    def walk(self, folder: str = "") -> Iterator[tuple[Shape, str]]:
        """Yield shape and name of all that is stored below `folder`, psync's own too, in no order, as it is found.

        Mutexes, owners and guards, which mean nothing elsewhere, are left out, and so are bytes that were set aside. A
        name that exists during the whole call comes once or more often; one that comes or goes meanwhile may come.
        """

    @abstractmethod
    def facts(self, name: str) -> Facts | None:
        """Return size and time of the cell or bucket at `name`; None when there is none. Its bytes are not read."""

    @abstractmethod
    def mutexes(self) -> Sequence[str]:
        """Return the names of all mutexes that are held; perhaps of others, too."""

    @abstractmethod
    def processes(self) -> Sequence[Process]:
        """Return all processes that are owners here and have not left in order."""

    # -- housekeeping --------------------------------------------------------------------------

    @abstractmethod
    def set_aside(self, name: str, reason: str, seen: Version | None = None, *, foreign: bool = False) -> str | None:
        """Move the damaged bytes at `name` to quarantine and return where they are now.

        Returns None, and moves nothing, if `name` can be read by now, or is not the version `seen` any more. With
        ``()`` for `seen`, it moves the bytes whatever they are. Bytes that psync did not write are moved only if
        `foreign`.
        """

    def spare_damaged(self, when: Callable[[], bool]) -> None:  # noqa: B027 (an engine may have no such bytes)
        """Leave damaged bytes where they are while ``when()``: a verb that meets them only raises `CorruptValue`.

        An engine in memory has no damage but what a test makes, and moves that all the same.
        """

    def keep(self, name: str, data: bytes, reason: str) -> str | None:
        """Copy `data`, damaged bytes that were found at `name` and can't be moved from there, to quarantine; return
        where they are. None if that can't be done."""
        refuge = f".psync/quarantine/{self.owner():x}.{next(_kept)}-{name.replace('/', '%2F')}"
        return refuge if self.create(refuge, data) else None

    @abstractmethod
    def sweep(self) -> int:
        """Remove the leftovers of killed processes (temporary files, dead owners nobody needs); returns how many."""

    @abstractmethod
    def close(self) -> None:
        """Give back descriptors. The engine opens them again if it is used once more."""
