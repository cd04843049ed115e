"""Whatever is done in whatever order, the directory engine gives the answers that the memory engine gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from psync.engine import DirectoryEngine, Engine, MemoryEngine
from psync.engine.contract.log import Mark, Record, State
from psync.engine.contract.values import Cell
from psync.errors import PsyncError
from tests.contract.conftest import SHM
from tests.contract.payloads import Follower, items, loaded, pickled
from tests.support import scaled

CELLS = ["a", "a/b", "a/b/c", "d", "c/0f", "c/1e", "c"]
BUCKETS = ["c/0f", "c/1e"]
FOLDERS = ["", "a", "a/b", "c", "nowhere"]
LOGS = [".psync/queue/q"]

values = st.one_of(st.integers(0, 9), st.sampled_from([100, 4000, 9000]).map(lambda size: "v" * size))
dicts = st.dictionaries(st.integers(0, 5), values, max_size=3)
cell, bucket = st.sampled_from(CELLS), st.sampled_from(BUCKETS)
Do = Callable[["Player"], Any]


class Player:
    """One engine, what its log was given, and who follows its buckets."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.followers = {name: Follower(engine.bucket(name)) for name in BUCKETS}
        self.log = engine.log(LOGS[0])
        self.positions: list[int] = []
        self.records: list[Record] = []

    def plain(self, answer: Any) -> Any:
        """An answer as two engines can be compared by it: positions by their order, pickles by what they hold."""
        if isinstance(answer, Record):
            return self.positions.index(answer.position), answer.mark, answer.payload
        if isinstance(answer, list):
            return [self.plain(one) for one in answer]
        payload = answer.payload if isinstance(answer, Cell) else answer
        return loaded(payload) if isinstance(payload, bytes) else payload

    def held(self, name: str, work: Callable[[Any], Any]) -> Any:
        with self.engine.bucket(name).held() as held:
            return "nothing to hold" if held is None else work(held)

    def append(self, payloads: list[bytes]) -> int:
        self.positions += self.log.append(payloads)
        return len(payloads)

    def take(self, limit: int) -> list[Record]:
        taken = self.log.take(5, limit)
        self.records += taken
        return taken

    def settle(self, which: int, state: State) -> bool | None:
        if not self.records:
            return None
        record = self.records[which % len(self.records)]
        return self.log.settle(record.position, record.mark, Mark(state, record.mark.attempt))

    def cancel(self, which: int) -> bool | None:
        if not self.positions:
            return None
        return self.log.settle(self.positions[which % len(self.positions)], Mark(State.WAITING), Mark(State.DEAD))

    def still_there(self, which: int) -> Any:
        """A record that is not final; one that is may or may not have been cleared away."""
        if not self.positions:
            return None
        record = self.log.read(self.positions[which % len(self.positions)])
        return None if record is None or record.mark.state >= State.DONE else record


def do(name: str, verb: Callable[..., Any], *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Do]]:
    def bind(drawn: tuple[Any, ...]) -> tuple[str, Do]:
        shown = ", ".join(repr(one)[:30] for one in drawn)
        return f"{name}({shown})", lambda player: player.plain(verb(player, *drawn))

    return st.tuples(*arguments).map(bind)


steps = st.one_of(
    do("read", lambda p, name: p.engine.read(name), cell),
    do("write", lambda p, name, value: p.engine.write(name, pickled(value)), cell, dicts),
    do("write foreign", lambda p, name, value: p.engine.write(name, pickled(value)), bucket, dicts),
    do("create", lambda p, name, value: p.engine.create(name, pickled(value)), cell, dicts),
    do("delete", lambda p, name: p.engine.delete(name), cell),
    do("pop", lambda p, name: p.engine.pop(name), cell),
    do("move", lambda p, name, new: p.engine.move(name, new), cell, cell),
    do("update", lambda p, name, value: p.engine.update(name, lambda old: pickled(value)), cell, dicts),
    do("update to None", lambda p, name: p.engine.update(name, lambda old: None), cell),
    do("list", lambda p, folder: sorted(p.engine.list(folder)), st.sampled_from(FOLDERS)),
    do("names", lambda p, folder: sorted(p.engine.entries(folder)[0]), st.sampled_from(FOLDERS)),
    do("set_aside", lambda p, name: p.engine.set_aside(name, "no reason"), cell),
    do("append", lambda p, name, more: p.engine.bucket(name).append(items(more)) > 0, bucket, dicts),
    do(
        "append_all",
        lambda p, more: p.engine.append_all({n: items(m) for n, m in more.items()}),
        st.dictionaries(bucket, dicts),
    ),
    do("follow", lambda p, name: p.followers[name].look(), bucket),
    do(
        "replace",
        lambda p, name, new, flags: p.held(name, lambda h: h.replace(items(new), flags=flags)),
        bucket,
        dicts,
        st.integers(0, 255),
    ),
    do("append held", lambda p, name, more: p.held(name, lambda h: bool(h.append(items(more)))), bucket, dicts),
    do("tail held", lambda p, name: p.held(name, lambda h: (h.tail().flags, h.tail().foreign)), bucket),
    do("drop", lambda p, name: p.held(name, lambda h: h.drop()), bucket),
    do("log append", lambda p, more: p.append(more), st.lists(st.binary(max_size=20), max_size=3)),
    do("take", lambda p, limit: p.take(limit), st.integers(0, 3)),
    do(
        "settle",
        lambda p, which, state: p.settle(which, state),
        st.integers(0, 9),
        st.sampled_from([State.WAITING, State.DONE, State.DEAD]),
    ),
    do("cancel", lambda p, which: p.cancel(which), st.integers(0, 9)),
    do("still there", lambda p, which: p.still_there(which), st.integers(0, 9)),
    do("counts", lambda p: (p.log.counts()[:2], p.log.finished())),
    do("claims", lambda p: sorted(p.log.claims())),
)


def answer(player: Player, step: Do) -> Any:
    try:
        return step(player)
    except (PsyncError, ValueError) as error:
        return type(error).__name__


@settings(max_examples=scaled(60))
@given(st.integers(1, 60).flatmap(lambda count: st.lists(steps, min_size=count, max_size=count)))
def test_both_engines_give_the_same_answers(plan: list[tuple[str, Do]]) -> None:
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as root:
        directory = DirectoryEngine(root, wakeups="poll")
        try:
            players = Player(MemoryEngine()), Player(directory)
            for number, (name, step) in enumerate(plan):
                expected, got = (answer(player, step) for player in players)
                assert got == expected, f"step {number}, {name}: {got!r:.200} and not {expected!r:.200}"
        finally:
            directory.close()
