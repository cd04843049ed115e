"""A log is a row of records in segment files; a record's mark is overwritten in place as the record comes along.

Here is how a record is settled; `log_appends`, `log_takes` and `log_looks` have the other verbs.

On disk, in ``<name>/log/``: ``tail`` (where the log ends), ``front`` (how far it was taken), segments of records with
their marks (see `mark_file`), and two files of hints: ``returned`` (positions that became WAITING again), ``delayed``
(those that became DELAYED). At a durable level records (see `commit`) and marks reach the disk before a verb returns;
the rest is found anew from them after a power cut (see `mending`).

Who appends locks ``tail``, who takes locks ``front``, so they don't wait for each other. The facts that decide: a
record exists once ``tail`` says that the log ends behind it; it is whose its mark says.

A record that is mine, without a lease, I settle without a lock, and without reading its mark if I know how I left it:
anybody else may touch it only with a proof that I am dead, and as long as I live there is none: it is that my own file
can be locked. (On a network file system a server can lose my lock; there the mark is read.)

append: flock, pwrite, unlock. take: flock, unlock; one pread more, of many that lie in a row too, when the records were
not read ahead; of many at once a pread and a pwrite of their marks. settle of one's own: no system call; of what has a
lease: flock, unlock; of many at once a pread and a pwrite of their marks. Where marks and numbers are not changed by
stores into memory (see `Capabilities.in_place`), a pread and a pwrite for each mark that is read and changed, and a
pwrite of the numbers before each unlock; where marks have to reach the disk, those of marks. On a network file system a
pread more after each flock, and before each settle of one's own. Inodes are made and freed once in a segment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from psync.engine.contract.bucket import Bucket
from psync.engine.contract.log import FINAL, Change, Mark, State
from psync.engine.directory.log.claim import LogTakes
from psync.engine.directory.log.segment_files import SEGMENT
from psync.engine.directory.log.segments import Segments

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State
_KEPT = _CLAIMED, _DONE, _DEAD
"""What nobody has to look for any more, nor to take again: no hint is left of it."""


def _answer(changes: Sequence[Change]) -> dict[int, int]:
    """What `Log.settle_all` says of each, by position, once all answers are in their buckets."""
    sizes = {change.position: 1 for change in changes}
    by_bucket: dict[Bucket, list[Change]] = {}
    for change in changes:
        if change.bucket is not None:
            by_bucket.setdefault(change.bucket, []).append(change)
    for bucket, its in by_bucket.items():
        size = bucket.append(b"".join(change.ops for change in its))
        sizes.update((change.position, size) for change in its)
    return sizes


def _near_each_other(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """In order, and as many at once as lie in the files that are kept open."""
    near: list[Change] = []
    for change in sorted(changes, key=lambda change: change.position):
        if near and change.position - near[0].position > SEGMENT:
            yield near
            near = []
        near.append(change)
    if near:
        yield near


class DirectoryLog(LogTakes):
    """One log of a directory. Threads may share it; a forked child opens the files anew."""

    def settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        was, _, owner, _, lease = held
        state, _, new_owner, _, _ = new
        final = state is _DONE or state is _DEAD
        try:
            if not self._examined:
                self._examine()
            if was is _CLAIMED and not lease and (final or new_owner == owner) and owner == self._owners.number:
                # Only this process may touch the record, as long as it lives; so only its threads are kept out.
                with self._settling:
                    settled = self._settle_own(position, held, new, before)
            elif was in FINAL or position < 0:
                return False
            else:
                settled = self._settle_locked(position, held, new, before)
        except BaseException as error:
            if self._repair(error):
                return self.settle(position, held, new, before)
            if (worded := self.failed(error)) is error:
                raise
            raise worded from error
        if settled:
            if final:
                self._finished()
            elif state is not _CLAIMED:
                self._changed(1)
        return settled

    def _settle_own(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None) -> bool:
        known = self._claimed.get(position)
        reach = self._reach
        if position >= reach[0]:
            reach = self._look()
        if known is None:
            if not 0 <= position < reach[0] or not self._own.exchange_mark(position, reach[1], held, new, before):
                return False
            if self._commit is not None:
                self._sync_mark(self._own, position, reach[1], held)
            return True
        if known is not held and known != held:
            return False
        if before is not None:
            before()
        del self._claimed[position]  # should the write fail, the mark is read next time
        self._own.write_mark(position, reach[1], new)
        if self._commit is not None:
            self._sync_mark(self._own, position, reach[1], held)
        if new[0] is _CLAIMED:
            self._claimed[position] = new
        return True

    def settle_all(self, changes: Sequence[Change]) -> list[int | None]:
        """Of what is only ended, or gets another beat, the marks are read together, and written together where they lie
        in a row: after the answers, of which those of one bucket are one append. Claims with a lease: flock, flock."""
        if not all(held.state is _CLAIMED and new.state in _KEPT for _, held, new, _, _ in changes):
            return super().settle_all(changes)
        mine = self._owners.number
        try:
            if not self._examined:
                self._examine()
            if all(held.owner == mine and not held.lease and new.owner in (0, mine) for _, held, new, _, _ in changes):
                with self._settling:
                    done = self._settle_claims(self._own, changes)
            else:
                self._front.enter()
                try:
                    with self._settling:
                        done = self._settle_claims(self._taken, changes)
                finally:
                    self._front.leave()
        except BaseException as error:
            if self._repair(error):
                return self.settle_all(changes)
            if (worded := self.failed(error)) is error:
                raise
            raise worded from error
        if any(size and change.new.state in FINAL for change, size in zip(changes, done, strict=True)):
            self._finished()
        return done

    def _settle_claims(self, files: Segments, changes: Sequence[Change]) -> list[int | None]:
        sizes: dict[int, int] = {}
        for near in _near_each_other(changes):
            sizes.update(self._settle_near(files, near))
        return [sizes.get(change.position) for change in changes]

    def _settle_near(self, files: Segments, changes: Sequence[Change]) -> dict[int, int]:
        """What comes of each that can be made; they are in order."""
        end, base, _ = self._reaching(changes[-1].position)
        runs = files.marks_at([change.position for change in changes if 0 <= change.position < end], base)
        sizes = _answer([change for change in changes if runs.mark(change.position) == change.held])
        settled = [change for change in changes if sizes.get(change.position)]
        for position, _, new, _, _ in settled:
            self._claimed.pop(position, None)  # as in `_settle_own`
            runs.change(position, new)
        runs.write(self._passed)
        if self._commit is not None:
            self._sync_marks(files, settled, base)
        return sizes

    def _sync_marks(self, files: Segments, changes: Sequence[Change], base: int) -> None:
        """As `_sync_mark`."""
        try:
            files.sync_marks([change.position for change in changes], base)
        except BaseException:
            for position, held, _, _, _ in changes:
                files.write_mark(position, base, held)
            raise

    def _sync_mark(self, files: Segments, position: int, base: int, held: Mark) -> None:
        """The record's mark is on the disk, or `held` again: to write that also makes the kernel try the page anew."""
        try:
            files.sync_marks([position], base)
        except BaseException:
            files.write_mark(position, base, held)
            raise

    def _settle_locked(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None) -> bool:
        front = self._front.enter()
        try:
            ahead = position >= front.head  # whoever takes will come by
            if new.state is _WAITING and not (ahead and held.state is _DELAYED):
                unused = new.attempt < held.attempt
                before = functools.partial(self._hint, front, position, before, first=unused)
            elif new.state is _DELAYED:
                before = functools.partial(self._hint_delayed, front, [position], before)
            with self._settling:
                self._claimed.pop(position, None)
                end, base, _ = self._reaching(position)
                if position >= end or not self._taken.exchange_mark(position, base, held, new, before):
                    return False
                if self._commit is not None:
                    self._sync_mark(self._taken, position, base, held)
            skipped = new.state in FINAL and (held.state is _WAITING or (ahead and held.state is _DELAYED))
            arrived = ahead and held.state is _DELAYED and not held.attempt
            if skipped or arrived or (held.state is _WAITING and new.state is _CLAIMED):
                front.skipped += new.state is not _WAITING
                front.delayed_passed += arrived
                self._front.save()
            return True
        finally:
            self._front.leave()
