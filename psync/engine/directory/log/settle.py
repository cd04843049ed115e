"""Settle: the status of a record is changed by compare-and-set, alone or together with others.

The fact that decides: the record's status. The owner of a record without a lease settles it without a lock, and without
reading the status if it knows the last one. Another process may touch such a record only with a proof that the owner is
dead, and while the owner lives there is none: the proof is that the file of the owner can be locked. (On a network file
system a server can lose the owner's lock; there the status is read.) All other changes are made under the lock on
``front``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from psync.engine.contract.bucket import Bucket
from psync.engine.contract.log import FINAL, Change, Mark, State
from psync.engine.directory.log.repair import CorruptionRepair
from psync.engine.directory.log.requeue import RequeueIndex
from psync.engine.directory.log.segment_files import SEGMENT_BYTES
from psync.engine.directory.log.segments import Segments
from psync.engine.directory.log.state import LogState
from psync.engine.system.clock import monotonic
from psync.engine.system.reentry import catch_up, postponed, reentrant

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State
_CLAIMED_OR_FINAL = _CLAIMED, _DONE, _DEAD
"""Records in these states have no entry in a position file."""


def can_settle_together(changes: Sequence[Change]) -> bool:
    """Whether each change ends a claim, or makes it go on: such a change needs no entry in a position file."""
    return all(held.state is _CLAIMED and new.state in _CLAIMED_OR_FINAL for _, held, new, _, _ in changes)


def _append_answers(changes: Sequence[Change]) -> dict[int, int]:
    """Append the answers to their buckets, once each; returns the results of `Log.settle_all` by position."""
    sizes = {change.position: 1 for change in changes}
    by_bucket: dict[Bucket, list[Change]] = {}
    for change in changes:
        if change.bucket is not None:
            by_bucket.setdefault(change.bucket, []).append(change)
    for bucket, its in by_bucket.items():
        size = bucket.append(b"".join(change.ops for change in its))
        sizes.update((change.position, size) for change in its)
    return sizes


def _in_open_files(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """The changes, sorted, in groups that lie in few enough segments to keep their files open."""
    group: list[Change] = []
    for change in sorted(changes, key=lambda change: change.position):
        if group and change.position - group[0].position > SEGMENT_BYTES:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


class Settler:
    """The verbs that change the status of known records of one log."""

    def __init__(self, state: LogState, repair: CorruptionRepair, requeue: RequeueIndex) -> None:
        self._state = state
        self._repair = repair
        self._requeue = requeue
        self._owners = state.owners
        self._front = state.front
        self._claiming = state.claiming
        self._settling = state.settling
        self._commit = state.commit
        self._claims = state.claims
        self._wake_claimers = state.wake_claimers
        self._wake_final = state.wake_final
        self._presence = state.fs.presence

    def settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        was, _, owner, _, lease = held
        state, _, new_owner, _, _ = new
        final = state is _DONE or state is _DEAD
        log = self._state
        try:
            if monotonic() > self._presence.due:
                self._presence.look()
                if self._presence.thorough:
                    with log.settle_section, log.settle_section.lock:
                        self._settling.look()
            if not log.checked:
                self._repair.check()
            if was is _CLAIMED and not lease and (final or new_owner == owner) and owner == self._owners.number:
                # while this process lives no other one touches the record, so only its own threads are kept out
                section = log.settle_section
                if section.is_mine():  # `with section`, written out: this is a hot path
                    raise reentrant(section.what)
                try:
                    with section.lock:
                        settled = self._settle_own(position, held, new, before)
                finally:
                    if postponed:
                        catch_up()
            elif was in FINAL or position < 0:
                return False
            else:
                settled = self._settle_locked(position, held, new, before)
        except BaseException as error:
            self._repair.handle(error)
            return self.settle(position, held, new, before)
        if settled:
            if final:
                self._wake_final()
            elif state is not _CLAIMED:
                self._wake_claimers(1)
        return settled

    def _settle_own(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None) -> bool:
        known = self._claims.get(position)
        reach = self._state.reach
        if position >= reach[0]:
            reach = self._state.read_reach()
        if known is None:
            if not 0 <= position < reach[0] or not self._settling.exchange(position, reach[1], held, new, before):
                return False
            if self._commit is not None:
                self._sync(self._settling, position, reach[1], held)
            return True
        if known is not held and known != held:
            return False
        if before is not None:
            before()
        del self._claims[position]  # if the write fails, the next settle reads the status
        self._settling.write_status(position, reach[1], new)
        if self._commit is not None:
            self._sync(self._settling, position, reach[1], held)
        if new[0] is _CLAIMED:
            self._claims[position] = new
        return True

    def _settle_locked(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None) -> bool:
        front = self._front.enter()
        if before is not None:
            before = functools.partial(self._call_admitted, before)
        try:
            ahead = position >= front.head  # a claimer will still come past the record, so it needs no entry
            if new.state is _WAITING and not (ahead and held.state is _DELAYED):
                unused = new.attempt < held.attempt
                before = functools.partial(self._requeue.add, front, position, before, first=unused)
            elif new.state is _DELAYED:
                before = functools.partial(self._requeue.add_delayed, front, [position], before)
            with self._state.settle_section, self._state.settle_section.lock:
                self._claims.pop(position, None)
                end, base = self._state.reach_for(position)
                if position >= end or not self._claiming.exchange(position, base, held, new, before):
                    return False
                if self._commit is not None:
                    self._sync(self._claiming, position, base, held)
            skipped = new.state in FINAL and (held.state is _WAITING or (ahead and held.state is _DELAYED))
            arrived = ahead and held.state is _DELAYED and not held.attempt
            if skipped or arrived or (held.state is _WAITING and new.state is _CLAIMED):
                front.skipped += new.state is not _WAITING
                front.delayed_passed += arrived
                self._front.save()
            return True
        finally:
            self._front.leave()

    def _call_admitted(self, before: Callable[[], object]) -> None:
        """Call `before`, which may call verbs of this log."""
        with self._front.admitting():
            before()

    def settle_claims(self, changes: Sequence[Change]) -> list[int | None]:
        """Change claims together, as `Log.settle_all` does: see `can_settle_together`.

        Statuses that lie in a row are read together, and written together after the answers; the answers for one bucket
        are one append. Claims with a lease need the lock on ``front``.
        """
        mine = self._owners.number
        state = self._state
        try:
            if not state.checked:
                self._repair.check()
            if all(held.owner == mine and not held.lease and new.owner in (0, mine) for _, held, new, _, _ in changes):
                with state.settle_section, state.settle_section.lock:
                    done = self._settle_groups(self._settling, changes)
            else:
                self._front.enter()
                try:
                    with state.settle_section, state.settle_section.lock:
                        done = self._settle_groups(self._claiming, changes)
                finally:
                    self._front.leave()
        except BaseException as error:
            self._repair.handle(error)
            return self.settle_claims(changes)
        if any(size and change.new.state in FINAL for change, size in zip(changes, done, strict=True)):
            self._wake_final()
        return done

    def _settle_groups(self, segments: Segments, changes: Sequence[Change]) -> list[int | None]:
        sizes: dict[int, int] = {}
        for group in _in_open_files(changes):
            sizes.update(self._settle_group(segments, group))
        return [sizes.get(change.position) for change in changes]

    def _settle_group(self, segments: Segments, changes: Sequence[Change]) -> dict[int, int]:
        """Make the changes whose status is still `held`; returns the result sizes by position. `changes` are sorted."""
        end, base = self._state.reach_for(changes[-1].position)
        batch = segments.batch([change.position for change in changes if 0 <= change.position < end], base)
        # the answers before the statuses: a crash here repeats a task, it never loses its result
        sizes = _append_answers([change for change in changes if batch.status(change.position) == change.held])
        settled = [change for change in changes if sizes.get(change.position)]
        for position, _, new, _, _ in settled:
            self._claims.pop(position, None)  # if the write fails, the next settle reads the status
            batch.change(position, new)
        batch.write(self._state.passed)
        if self._commit is not None:
            self._sync_all(segments, settled, base)
        return sizes

    def _sync(self, segments: Segments, position: int, base: int, held: Mark) -> None:
        """Write a status to the disk; if that fails, make it `held` again, which makes the kernel try the page anew."""
        try:
            segments.sync_statuses([position], base)
        except BaseException:
            segments.write_status(position, base, held)
            raise

    def _sync_all(self, segments: Segments, changes: Sequence[Change], base: int) -> None:
        """The same for several."""
        try:
            segments.sync_statuses([change.position for change in changes], base)
        except BaseException:
            for position, held, _, _, _ in changes:
                segments.write_status(position, base, held)
            raise
