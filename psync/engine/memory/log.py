"""A log in memory runs each verb of the contract as one step on the log's records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from psync.engine.contract.log import FINAL, WAITING, Counts, Log, Mark, Record, Sealed, State, check_change
from psync.engine.memory.records import Records
from psync.engine.memory.turns import Turns


class MemoryLog(Log):
    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name
        self._key = ("log", name)

    def __repr__(self) -> str:
        return f"<MemoryLog {self._name!r}>"

    @contextmanager
    def _reading(self, verb: str) -> Iterator[Records]:
        with self._turns.turn(verb, self._name) as state:
            yield state.logs.get(self._name) or Records()

    @contextmanager
    def _changing(self, verb: str) -> Iterator[Records]:
        with self._turns.turn(verb, self._name, self._key) as state:
            yield state.logs.setdefault(self._name, Records())

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        copies = [bytes(payload) for payload in payloads]
        with self._changing("append") as records:
            if records.sealed and copies:
                raise Sealed(self._name)
            positions = [records.append(payload, mark) for payload in copies]
            if positions:
                self._turns.state.announce(self._name)
            return positions

    def take(self, owner: int, limit: int = 1, beat: int = 0, lease: float = 0.0) -> list[Record]:
        if not owner:
            raise ValueError("owner 0 is nobody; take with Engine.owner()")
        with self._changing("take") as records:
            taken = list(islice(iter(lambda: records.take(owner, beat, lease), None), max(0, limit)))
            self.noted, self.sealed = records.note, records.sealed
            return taken

    def begin(self, at: int, appended: int) -> bool:
        with self._changing("begin") as records:
            if records.end:
                return False
            records.begin(at, appended)
            return True

    def seal(self, sealed: bool = True) -> None:
        with self._changing("seal") as records:
            records.sealed = sealed
            self._turns.state.announce(self._name)
            self._turns.state.announce(self._name + "/final")

    def note(self, change: Callable[[int], int]) -> None:
        with self._changing("note") as records:
            records.note = change(records.note)

    def settle(self, position: int, held: Mark, new: Mark, before: Callable[[], object] | None = None) -> bool:
        check_change(held, new)
        with self.held():
            record = self.read(position)
            if record is None or record.mark != held:
                return False
            if before is not None:
                before()  # the turn is given back for it, because `before` calls verbs itself
            with self._changing("settle") as records:
                if records.kept[position].mark != held:  # a signal's handler has settled it in between
                    return False
                if new != held:
                    records.mark(position, new)
                    self._announce(new.state)
            return True

    def _announce(self, new: State) -> None:
        if new in (State.WAITING, State.DELAYED):
            self._turns.state.announce(self._name)
        elif new in FINAL:
            self._turns.state.announce(self._name + "/final")

    def read(self, position: int) -> Record | None:
        with self._reading("read record") as records:
            return records.kept.get(position)

    def claims(self) -> list[Record]:
        with self._reading("claims") as records:
            return [record for record in records.kept.values() if record.mark.state is State.CLAIMED]

    def delayed(self) -> list[tuple[int, Mark]]:
        with self._reading("delayed") as records:
            return [(position, records.kept[position].mark) for position in records.delayed]

    def unfinished(self) -> Iterator[Record]:
        with self._reading("unfinished") as records:
            return iter([record for record in records.kept.values() if record.mark.state not in FINAL])

    def finished(self) -> bool:
        with self._reading("finished") as records:
            return records.final == records.appended

    def counts(self) -> Counts:
        with self._reading("counts") as records:
            self.noted, self.sealed = records.note, records.sealed
            waiting = len(records.fresh) + len(records.returned)
            return Counts(waiting, records.appended, records.end, records.sealed)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._turns.step("hold", self._name)
        with self._turns.holding(self._key):
            yield
