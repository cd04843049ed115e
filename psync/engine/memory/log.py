"""A log in memory: records in a row, and the two lines of those that wait to be taken."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from psync.engine.contract.log import FINAL, WAITING, Counts, Log, Mark, Record, Sealed, State, check_change

if TYPE_CHECKING:
    from psync.engine.memory.engine import MemoryEngine

SEGMENT = 64
"""Records that are cleared away together once all are final, so that both answers of `Log.read` occur."""


class Records:
    """What one log holds. Not thread-safe: used with the turn only."""

    def __init__(self) -> None:
        self.kept: dict[int, Record] = {}
        self.fresh: OrderedDict[int, None] = OrderedDict()
        self.returned: OrderedDict[int, None] = OrderedDict()
        self.delayed: dict[int, None] = {}
        self.appended = 0
        self.end = 0
        self.final = 0
        self.sealed = False
        self.note = 0
        self._final_in: dict[int, int] = {}

    def append(self, payload: bytes, mark: Mark) -> int:
        position = self.end
        self.kept[position] = Record(position, mark, payload)
        line = self.fresh if mark.state is State.WAITING else self.delayed
        line[position] = None
        self.appended += 1
        self.end += 1
        return position

    def begin(self, at: int, appended: int) -> None:
        self.end = -(-at // SEGMENT) * SEGMENT
        self.appended = self.final = appended

    def take(self, owner: int, beat: int, lease: float) -> Record | None:
        line = self.returned or self.fresh
        if not line:
            return None
        position, _ = line.popitem(last=False)
        old = self.kept[position]
        self.kept[position] = old._replace(mark=Mark(State.CLAIMED, old.mark.attempt + 1, owner, beat, lease))
        return self.kept[position]

    def mark(self, position: int, new: Mark) -> None:
        old = self.kept[position]
        self.kept[position] = old._replace(mark=new)
        if new.state is State.WAITING and old.mark.state is not State.WAITING:
            self.returned[position] = None
            if new.attempt < old.mark.attempt:
                self.returned.move_to_end(position, last=False)
        elif new.state is not State.WAITING:
            self.fresh.pop(position, None)
            self.returned.pop(position, None)
        if new.state is State.DELAYED:
            self.delayed[position] = None
        else:
            self.delayed.pop(position, None)
        if new.state in FINAL:
            self._count_final(position // SEGMENT)

    def _count_final(self, segment: int) -> None:
        self.final += 1
        self._final_in[segment] = self._final_in.get(segment, 0) + 1
        if self._final_in[segment] == SEGMENT:
            for position in range(segment * SEGMENT, (segment + 1) * SEGMENT):
                del self.kept[position]
            del self._final_in[segment]


class MemoryLog(Log):
    def __init__(self, engine: MemoryEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._key = ("log", name)

    def __repr__(self) -> str:
        return f"<MemoryLog {self._name!r}>"

    @contextmanager
    def _looking(self, verb: str) -> Iterator[Records]:
        with self._engine._turn(verb, self._name) as space:
            yield space.logs.get(self._name) or Records()

    @contextmanager
    def _changing(self, verb: str) -> Iterator[Records]:
        with self._engine._turn(verb, self._name, self._key) as space:
            yield space.logs.setdefault(self._name, Records())

    def append(self, payloads: Sequence[bytes], mark: Mark = WAITING) -> list[int]:
        copies = [bytes(payload) for payload in payloads]
        with self._changing("append") as records:
            if records.sealed and copies:
                raise Sealed(self._name)
            positions = [records.append(payload, mark) for payload in copies]
            if positions:
                self._engine._space.announce(self._name)
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
            self._engine._space.announce(self._name)
            self._engine._space.announce(self._name + "/final")

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
                before()  # without the turn: it has verbs of its own
            with self._changing("settle") as records:
                if new != held:
                    records.mark(position, new)
                    self._announce(new.state)
            return True

    def _announce(self, state: State) -> None:
        if state in (State.WAITING, State.DELAYED):
            self._engine._space.announce(self._name)
        elif state in FINAL:
            self._engine._space.announce(self._name + "/final")

    def read(self, position: int) -> Record | None:
        with self._looking("read record") as records:
            return records.kept.get(position)

    def claims(self) -> list[Record]:
        with self._looking("claims") as records:
            return [record for record in records.kept.values() if record.mark.state is State.CLAIMED]

    def delayed(self) -> list[tuple[int, Mark]]:
        with self._looking("delayed") as records:
            return [(position, records.kept[position].mark) for position in records.delayed]

    def unfinished(self) -> Iterator[Record]:
        with self._looking("unfinished") as records:
            return iter([record for record in records.kept.values() if record.mark.state not in FINAL])

    def finished(self) -> bool:
        with self._looking("finished") as records:
            return records.final == records.appended

    def counts(self) -> Counts:
        with self._looking("counts") as records:
            self.noted, self.sealed = records.note, records.sealed
            waiting = len(records.fresh) + len(records.returned)
            return Counts(waiting, records.appended, records.end, records.sealed)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._engine._step("hold", self._name)
        with self._engine._holding(self._key):
            yield
