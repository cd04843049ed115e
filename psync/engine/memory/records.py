"""Records of a log in memory: each with its status, and the queues of those that wait to be claimed."""

from __future__ import annotations

from collections import OrderedDict

from psync.engine.contract.log import FINAL, Mark, Record, State

SEGMENT = 64
"""Records that are cleared away together once all are final, so that both answers of `Log.read` occur."""


class Records:
    """The records of one log. Not thread-safe: call it within a turn."""

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
