"""Directory log: records in segment files, each with a mutable status that shows how far the record has come.

`DirectoryLog` binds the verbs of its parts: `append`, `claim`, `settle` and `inspect` on the `state` that they share,
with `requeue`, `repair` and `recovery` below them.

On disk, in ``<name>/log/``: the headers ``tail`` (where the log ends) and ``front`` (how far it was claimed); segments
of records, with their statuses (see `status_file`); and two position files, ``returned`` (records that are WAITING
again) and ``delayed``. At a durable level records (see `group_commit`, with the header ``sync``) and statuses reach the
disk before a verb returns; all else is rebuilt from them after a power cut (see `recovery`).

An appender locks ``tail``, a claimer locks ``front``, so they don't wait for each other. The facts that decide: a
record exists once ``tail`` says that the log ends behind it; its status says whose it is.

Cost. append: flock, pwrite, unlock. take: flock, unlock; one pread more for several records that lie in a row, if they
were not read ahead; for many at once a pread and a pwrite of their statuses. settle of an own claim: no system call; of
a claim with a lease: flock, unlock; of many at once a pread and a pwrite of their statuses. Where statuses and headers
are not changed by stores into memory (see `Capabilities.in_place`): a pread and a pwrite for each status, and a pwrite
of the header before each unlock; the first also where statuses have to reach the disk. On a network file system a pread
more after each flock, and before each settle of an own claim. Inodes are made and freed once in a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from psync.engine.contract.log import Change, Counts, Log, Mark, Record
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.fd_cache import DescriptorCache
from psync.engine.directory.layout import Layout
from psync.engine.directory.liveness.registry import OwnerRegistry
from psync.engine.directory.log.append import Appender
from psync.engine.directory.log.claim import Claimer
from psync.engine.directory.log.inspect import Inspector
from psync.engine.directory.log.nfs_log import NfsChangeTokens, NfsClaimer
from psync.engine.directory.log.recovery import CrashRecovery
from psync.engine.directory.log.repair import CorruptionRepair
from psync.engine.directory.log.requeue import RequeueIndex
from psync.engine.directory.log.settle import Settler, can_settle_together
from psync.engine.directory.log.state import WRITABLE, FileKinds, LogState

CHANGES = "append", "begin", "take", "note", "settle", "_settle_claims", "seal"
"""The verbs that change something."""


class DirectoryLog(Log):
    """One log of a directory. Threads may share it; a forked child opens the files anew.

    Its verbs are those of its parts, bound when it is made, so that a call costs no more than a method. A slot for each
    satisfies the abstract class.
    """

    __slots__ = (
        "_settle_claims",
        "_state",
        "after_fork",
        "append",
        "begin",
        "change_tokens",
        "claims",
        "counts",
        "delayed",
        "finished",
        "held",
        "lost",
        "note",
        "read",
        "seal",
        "settle",
        "take",
        "unfinished",
    )

    append: Callable[..., list[int]]
    begin: Callable[..., bool]
    claims: Callable[..., list[Record]]
    counts: Callable[..., Counts]
    delayed: Callable[..., list[tuple[int, Mark]]]
    finished: Callable[..., bool]
    held: Callable[..., AbstractContextManager[None]]
    lost: Callable[..., bool]
    note: Callable[..., None]
    read: Callable[..., Record | None]
    seal: Callable[..., None]
    settle: Callable[..., bool]
    take: Callable[..., list[Record]]
    unfinished: Callable[..., Iterator[Record]]

    def __init__(
        self,
        name: str,
        layout: Layout,
        *,
        fs: AtomicFiles,
        owners: OwnerRegistry,
        changed: Callable[[int], None],
        finished: Callable[[], None],
        kept: DescriptorCache,
        kinds: FileKinds = WRITABLE,
    ) -> None:
        """`changed` is told how many records can be claimed since, and `finished` that records have become final."""
        self._state = state = LogState(
            self, name, layout, fs=fs, owners=owners, kept=kept, kinds=kinds, changed=changed, finished=finished
        )
        recovery = CrashRecovery(state)
        repair = CorruptionRepair(state, recovery)
        requeue = RequeueIndex(state)
        appender = Appender(state, recovery, repair, requeue)
        claimer = Claimer(state, repair, requeue)
        settler = Settler(state, repair, requeue)
        inspector = Inspector(state, repair)
        self.append, self.begin, self.seal = appender.append, appender.begin, appender.seal
        self.take = claimer.take if state.local else NfsClaimer(state, repair, claimer).take
        self.note, self.claims = claimer.note, claimer.claims
        self.settle, self._settle_claims = settler.settle, settler.settle_claims
        self.read, self.lost, self.counts = inspector.read, inspector.lost, inspector.counts
        self.delayed, self.unfinished, self.finished = inspector.delayed, inspector.unfinished, inspector.finished
        self.held = recovery.locked
        self.change_tokens = NfsChangeTokens(state).tokens
        self.after_fork = state.after_fork
        if not kinds.writable:
            for verb in CHANGES:
                setattr(self, verb, state.refuse)

    def settle_all(self, changes: Sequence[Change]) -> list[int | None]:
        return self._settle_claims(changes) if can_settle_together(changes) else super().settle_all(changes)
