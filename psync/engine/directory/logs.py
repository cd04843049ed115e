"""A log is a row of records in segment files; a record's mark is overwritten in place as the record comes along.

On disk, in ``<name>/log/``: ``tail`` (where the log ends), ``front`` (how far it was taken), segments of records with
their marks (see `mark_file`), and two files of hints: ``returned`` (positions that became WAITING again), ``delayed``
(those that became DELAYED). At a durable level records (see `commit`) and marks reach the disk before a verb returns;
the rest is found anew from them after a power cut (see `mending`).

Who appends locks ``tail``, who takes locks ``front``, so they don't wait for each other. The facts that decide: a
record exists once ``tail`` says that the log ends behind it; it is whose its mark says. What ``front`` says is a hint
that a killed taker leaves behind the marks: the next one steps over what is marked already.

A record that is mine, without a lease, I settle without a lock, and without reading its mark if I know how I left it:
anybody else may touch it only with a proof that I am dead, and as long as I live there is none: it is that my own file
can be locked. (On a network file system a server can lose my lock; there the mark is read.) What begins DELAYED is
marked before it exists; should it never come to exist, ``tail`` knows that there may be marks behind the end, and who
appends next cuts them off.

append: flock, pwrite, unlock. take: flock, unlock; one pread more, of many that lie in a row too, when the records were
not read ahead; of many at once a pread and a pwrite of their marks. settle of one's own: no system call; of what has a
lease: flock, unlock. Where marks and numbers are not changed by stores into memory (see `Abilities.in_place`), a pread
and a pwrite for each mark that is read and changed, and a pwrite of the numbers before each unlock; where marks have to
reach the disk, those of marks. On a network file system a pread more after each flock, and before each settle of one's
own. Inodes are made and freed once in a segment.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence

from psync.engine.contract import FINAL, WAITING, Mark, Record, Sealed, State
from psync.engine.directory.commit import APPENDED, BASE, END, LATER, MARKED, PENDING, PREPARED, SEALED, Commit
from psync.engine.directory.log_files import (
    ARRIVED,
    DELAYED,
    FRONT,
    LOW,
    NOTE,
    RETAKEN,
    RETURNED,
    ROOM,
    SKIPPED,
    TAKEN,
    in_words,
)
from psync.engine.directory.log_looks import LogLooks
from psync.engine.directory.records import ALIGN, encode
from psync.engine.directory.segment_files import SEGMENT
from psync.engine.directory.segments import Segments
from psync.engine.seal import Unreadable

_WAITING, _CLAIMED, _DONE, _DEAD, _DELAYED = State


class DirectoryLog(LogLooks):
    """One log of a directory. Threads may share it; a forked child opens the files anew."""

    # -- appending -----------------------------------------------------------------------------------

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        if not payloads:
            return []
        try:
            if not self._examined:
                self._examine()
            if self._commit is None:
                positions = self._append(payloads, mark)
            else:
                positions = self._append_durably(self._commit, payloads, mark)
        except BaseException as error:
            if self._repair(error):
                return self.append(payloads, mark)
            if (worded := self.failed(error)) is error:
                raise
            raise worded from error
        self._changed()
        return positions

    def _append_durably(self, commit: Commit, payloads: Sequence[bytes], mark: Mark) -> list[int]:
        if mark.state is not _WAITING:
            with commit.alone():
                self._tail.enter()
                try:
                    commit.all()
                    self._look_for_failure(commit)
                    return self._append(payloads, mark)
                finally:
                    self._tail.leave()
        self._tail.enter()
        try:
            fails = self._look_for_failure(commit)
            positions = self._append(payloads, mark)
            end = self._tail.values[PREPARED]
        finally:
            self._tail.leave()
        try:
            commit.wait(end, fails)
        except BaseException:
            with contextlib.suppress(OSError, Unreadable):
                self._withdraw(commit, positions, end, fails)
            raise
        return positions

    def _withdraw(self, commit: Commit, positions: list[int], end: int, fails: int) -> None:
        """What was prepared, and could not be seen to its end, will not exist."""
        tail = self._tail.enter()
        try:
            if commit.fails() != fails or tail[END] >= end:
                return
            if tail[PREPARED] == end:
                tail[PREPARED] = positions[0] if positions[0] > tail[END] else 0
                tail[PENDING] -= len(positions)
                self._tail.save()
            else:  # others have prepared something behind it: it comes to exist with that, but nobody takes it
                for position in positions:
                    self._written.write_mark(position, tail[BASE], Mark(_DONE, 1))
        finally:
            self._tail.leave()

    def _look_for_failure(self, commit: Commit) -> int:
        """While ``tail`` is locked: how often the disk failed; since then, segments may have other files."""
        fails = commit.fails()
        if fails != self._fails:
            self._written.close()
            self._fails = fails
        return fails

    def _append(self, payloads: Sequence[bytes], mark: Mark) -> list[int]:
        tail = self._tail.enter()
        try:
            if tail[SEALED]:
                raise Sealed(self._name)
            begin = end = tail[PREPARED] or tail[END]
            base = tail[BASE]
            if end - base >= SEGMENT:
                base = end
            if tail[MARKED] > begin:
                self._written.cut_marks(begin, base)
                tail[MARKED] = 0
            if len(payloads) == 1:
                positions = [begin]
                data = encode(payloads[0], begin)
                end += len(data)
            else:
                positions, records = [], []
                more = len(payloads)
                for payload in payloads:
                    more -= 1
                    positions.append(end)
                    record = encode(payload, end, more)
                    records.append(record)
                    end += len(record)
                data = b"".join(records)
            if mark is WAITING or mark.state is _WAITING:
                self._written.write(data, begin, base)
                tail[BASE] = base
                if self._commit is not None:
                    tail[PREPARED] = end
                    tail[PENDING] += len(positions)
                else:
                    tail[END] = end
                    tail[APPENDED] += len(positions)
                    if tail[PREPARED]:  # by others, for whom it is on the disk when they say so, but seen from now on
                        tail[APPENDED] += tail[PENDING]
                        tail[PREPARED] = tail[PENDING] = 0
                self._tail.save()
            else:
                self._append_delayed(tail, data, positions, end, base, mark)
            return positions
        finally:
            self._tail.leave()

    def _append_delayed(
        self, tail: list[int], data: bytes, positions: list[int], end: int, base: int, mark: Mark
    ) -> None:
        front = self._front.enter()  # till the end, or somebody would find that the hints lead to nothing
        try:
            self._hint_delayed(front, positions)
            tail[MARKED] = end
            self._tail.save()
            self._written.set_marks(positions, end, base, mark)
            self._written.write(data, positions[0], base)
            if self._commit is None:
                tail[END], tail[BASE], tail[APPENDED] = end, base, tail[APPENDED] + len(positions)
            else:
                self._written.sync_marks(positions, base)
                tail[PREPARED], tail[BASE], tail[PENDING] = end, base, len(positions)
                self._commit.all()
            tail[LATER] += len(positions)
            self._tail.save()
        finally:
            self._front.leave()

    @in_words
    def begin(self, at: int, appended: int) -> bool:
        with self.held():
            tail, front = self._tail.values, self._front.values
            if tail[END]:
                return False
            at += -at % ALIGN
            # first, for it counts as nothing before `tail` says where the log ends: killed in between, begin anew
            front[FRONT] = front[LOW] = at
            front[TAKEN] = appended
            self._front.save()
            tail[END] = tail[BASE] = at
            tail[APPENDED] = appended
            self._tail.save()
            return True

    @in_words
    def seal(self, sealed: bool = True) -> None:
        with self._commit.alone() if self._commit is not None else contextlib.nullcontext():
            tail = self._tail.enter()
            try:
                if self._commit is not None:
                    self._commit.all()
                tail[SEALED] = int(sealed)
                self._tail.save()
            finally:
                self._tail.leave()
        self._changed()
        self._finished()

    # -- taking --------------------------------------------------------------------------------------

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        taken: list[Record] = []
        try:
            if not self._examined:
                self._examine()
            front = self._front.enter()
            try:
                if (limit == 1 and self._take_next(front, owner, beat, lease, taken)) or self._advance(
                    front, owner, beat, lease, limit, taken
                ):
                    self._front.save()
                self.noted = front[NOTE]
                if self._commit is not None:
                    self._taken.sync_marks([record.position for record in taken], self._reach[1])
            except BaseException:
                self._untake(front, taken)
                raise
            finally:
                self._front.leave()
        except BaseException as error:
            if self._repair(error):
                return self.take(owner, limit, beat, lease)
            if (worded := self.failed(error)) is error:
                raise
            raise worded from error
        if self._mapped and not lease:
            for position, mark, _ in taken:
                self._claimed[position] = mark
        return taken

    def _take_next(self, front: list[int], owner: int, beat: int, lease: float, taken: list[Record]) -> bool:
        """`_advance` by one record, if the next one is as they mostly are; else False, and nothing has happened."""
        position = front[FRONT]
        end, base, _ = self._reach
        if position >= end or front[RETAKEN] != front[RETURNED]:
            return False
        record, size, _ = self._taken.claim(position, end, base, owner, beat, lease)
        if record is None:
            return False
        taken.append(record)
        front[FRONT] = position + size
        front[TAKEN] += 1
        if position // SEGMENT != (position + size) // SEGMENT:
            self._raise_low(front, self._look(), position + size)
        return True

    def _advance(self, front: list[int], owner: int, beat: int, lease: float, limit: int, taken: list[Record]) -> bool:
        """Claim records into `taken`; True if `front` has changed."""
        begun = front[FRONT]
        changed = False
        while len(taken) < limit:
            position = self._next(front) if front[RETAKEN] < front[RETURNED] else front[FRONT]
            end, base, _ = self._reach
            if position >= end:
                end, base, _ = self._look()
                if position >= end:
                    return self._reckon(front) or changed
            changed = True
            if position != front[FRONT]:
                record, size, mark = self._taken.claim(position, end, base, owner, beat, lease)
                if record is None:
                    self._pass_by(front, mark, hinted=True)
            else:
                many, before = limit - len(taken), len(taken)
                if many > 1:
                    size = self._taken.claim_run(position, end, base, many, owner, beat, lease, taken)
                    if size:
                        front[FRONT] += size
                        front[TAKEN] += len(taken) - before
                        continue
                record, size, mark = self._taken.claim(position, end, base, owner, beat, lease)
                if record is None:
                    self._pass_by(front, mark, hinted=False)
                front[FRONT] += size
                front[TAKEN] += 1
            if record is not None:
                taken.append(record)
        if begun // SEGMENT != front[FRONT] // SEGMENT:
            self._raise_low(front, self._look(), front[FRONT])
        return changed

    def _pass_by(self, front: list[int], mark: Mark | None, *, hinted: bool) -> None:
        """Keep count of what is not to be taken."""
        if mark is not None and mark.state is _DELAYED:
            if not mark.attempt and not hinted:
                front[ARRIVED] += 1
        elif front[SKIPPED] and (hinted or mark is None or (mark.state in FINAL and not mark.attempt)):
            front[SKIPPED] -= 1

    def _reckon(self, front: list[int]) -> bool:
        """Nothing is left to take, so nothing is left to pass: a count that says otherwise was a killed process's."""
        tail = self._tail.peek()
        counts = tail[APPENDED], 0, tail[LATER]
        if front[FRONT] != tail[END] or counts == (front[TAKEN], front[SKIPPED], front[ARRIVED]):
            return False
        front[TAKEN], front[SKIPPED], front[ARRIVED] = counts
        return True

    def _untake(self, front: list[int], taken: list[Record]) -> None:
        """Something failed, and nobody will hear of these: they wait again, with the attempts they had."""
        for position, mark, _ in reversed(taken):
            before = Mark(_WAITING, mark.attempt - 1)
            if position < front[FRONT]:
                with contextlib.suppress(OSError):  # then it was not written that they were passed
                    self._hint(front, position, None, first=True)
            with contextlib.suppress(OSError, Unreadable):
                self._taken.exchange_mark(position, self._reach[1], mark, before, None)

    def _next(self, front: list[int]) -> int:
        """The position of what was given back and not taken since."""
        position = self._returned.get(front[RETAKEN])
        front[RETAKEN] += 1
        return position

    @in_words
    def note(self, change: Callable[[int], int]) -> None:
        front = self._front.enter()
        try:
            front[NOTE] = change(front[NOTE])
            self._front.save()
        finally:
            self._front.leave()

    # -- settling ------------------------------------------------------------------------------------

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
                self._changed()
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
            ahead = position >= front[FRONT]  # whoever takes will come by
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
                front[SKIPPED] += new.state is not _WAITING
                front[ARRIVED] += arrived
                self._front.save()
            return True
        finally:
            self._front.leave()

    def _hint(self, front: list[int], position: int, before: Callable[[], object] | None, *, first: bool) -> None:
        """Say that the record can be taken again before it is so: else nobody would come past it any more."""
        if before is not None:
            before()
        if front[RETAKEN] == front[RETURNED]:
            front[RETAKEN] = front[RETURNED] = ROOM
        if first and front[RETAKEN]:
            self._returned.put(front[RETAKEN] - 1, [position])
            front[RETAKEN] -= 1
        else:
            self._returned.put(front[RETURNED], [position])
            front[RETURNED] += 1
        self._front.save()

    def _hint_delayed(self, front: list[int], positions: list[int], before: Callable[[], object] | None = None) -> None:
        """Say that the records are DELAYED before they are so: else nobody would find them any more."""
        if before is not None:
            before()
        self._later.put(front[DELAYED], positions)
        front[DELAYED] += len(positions)
        self._front.save()
